package harness

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
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

// writeLedgerKey makes the key that signs checkpoints, unless it is there.
func writeLedgerKey(path string) error {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("making the ledger key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("making the ledger key: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("making the ledger key: %w", err)
	}
	return nil
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
