package harness

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
)

// Keys is a key pair of the signer, in files.
type Keys struct {
	Private, Public, Password string
}

// GenerateKeys makes a key pair with the signer's own command.
func GenerateKeys(ctx context.Context, p Programs, dir, name string) (Keys, error) {
	k := Keys{
		Private: filepath.Join(dir, name+".key"), Public: filepath.Join(dir, name+".pub"),
		Password: filepath.Join(dir, name+".password"),
	}
	if err := os.WriteFile(k.Password, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return Keys{}, fmt.Errorf("making a key: %w", err)
	}
	cmd := exec.CommandContext(ctx, p.Signer, "generate-key", //nolint:gosec // the program that was just built
		"--password-file", k.Password, "--output-prefix", filepath.Join(dir, name))
	if out, err := cmd.CombinedOutput(); err != nil {
		return Keys{}, fmt.Errorf("making a key: %w\n%s", err, out)
	}
	return k, nil
}

// Entry is the key as a signer uses it.
func (k Keys) Entry(name string) Key {
	return Key{Name: name, Public: k.Public, Source: Config{"file": k.Private, "password_file": k.Password}}
}

// Key is a key of a system, wherever it is.
type Key struct {
	Name string
	// Public is the file with the public key in PEM.
	Public string
	// Source is what the signer's configuration says of an active key beside its name: file, kms, pkcs11 and so on.
	Source Config
	// Address is the host and port that the signer dials for it; empty for none.
	Address string
	// State is active if it is empty.
	State string
}

// signingKeys are the keys as the signer's configuration names them: of one that is not active, the public key alone.
func signingKeys(keys []Key) []Config {
	all := make([]Config, 0, len(keys))
	for _, key := range keys {
		c := Config{"public_key_file": key.Public}
		if key.active() {
			c = maps.Clone(key.Source)
		}
		c["name"], c["state"] = key.Name, key.state()
		all = append(all, c)
	}
	return all
}

// publicKeys are the keys as the receiver's configuration names them.
func publicKeys(keys []Key) []Config {
	all := make([]Config, 0, len(keys))
	for _, key := range keys {
		all = append(all, Config{"name": key.Name, "public_key_file": key.Public, "state": key.state()})
	}
	return all
}

func (k Key) active() bool { return k.state() == "active" }

func (k Key) state() string {
	if k.State == "" {
		return "active"
	}
	return k.State
}
