package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	main "github.com/harborseal/harborseal/cmd/signer"
)

// run gives what the program prints.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	stderr, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close() //nolint:errcheck // nothing is written
	var stdout bytes.Buffer
	err = main.NewProgram().Run(t.Context(), args, &stdout, stderr)
	return stdout.String(), err
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// newFolder makes an empty working folder, and takes the program's variables away.
func newFolder(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, variable := range os.Environ() { // make has some for other tests, and the configuration knows them not
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "HARBORSEAL_") {
			t.Setenv(name, "") // puts it back in the end
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// newPlainKey writes a key in PKCS #8 to plain.pem and gives its public key.
func newPlainKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	write(t, "plain.pem", encode(t, "PRIVATE KEY", der, err))
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	return encode(t, "PUBLIC KEY", der, err)
}

// newKeys fills the working folder with an encrypted key (k.key, k.pub, password), one in PKCS #8 (plain.pem), and a
// configuration of both (signer.yaml). It gives the public keys.
func newKeys(t *testing.T) (encrypted, plain string) {
	t.Helper()
	newFolder(t)
	write(t, "password", "hunter2\n")
	if out, err := run(t, "generate-key", "--password-file", "password", "--output-prefix", "k"); err != nil || !strings.Contains(out, "k.pub") {
		t.Fatalf("generate-key: got %q and %v, want the name of the public key", out, err)
	}
	public, err := os.ReadFile("k.pub")
	if err != nil {
		t.Fatal(err)
	}
	plain = newPlainKey(t)
	write(t, "signer.yaml", `
harbor: {url: "https://harbor.example.com", username: robot, secret_file: not-needed}
sign: {key: encrypted}
keys:
  - {name: encrypted, file: k.key, password_file: password}
  - {name: plain, file: plain.pem}
  - {name: old, state: verify-only, public_key_file: k.pub}
  - {name: lost, file: lost.key}
queue: {urls: ["nats://127.0.0.1:4222"]}
`)
	return string(public), plain
}

func TestPublicKey(t *testing.T) {
	encrypted, plain := newKeys(t)
	const usage = "want --key, with --password-file if the key is encrypted, or --config and --name"
	for _, c := range []struct {
		name, args string
		want       string // on standard output
		err        string
	}{
		{"encrypted", "--key k.key --password-file password", encrypted, ""},
		{"PKCS #8", "--key plain.pem", plain, ""},
		{"no password", "--key k.key", "", "name the file that holds its password"},
		{"a password for PKCS #8", "--key plain.pem --password-file password", "", "is not encrypted"},
		{"encrypted, by name", "--config signer.yaml --name encrypted", encrypted, ""},
		{"PKCS #8, by name", "--config signer.yaml --name plain", plain, ""},
		{"one that does not sign, by name", "--config signer.yaml --name old", encrypted, ""},
		{"one that is not there", "--config signer.yaml --name lost", "", `key "lost": signing key: `},
		{"unknown name", "--config signer.yaml --name other", "", `the configuration has no key with the name "other"`},
		{"unknown configuration", "--config none.yaml --name old", "", "reading the configuration none.yaml"},
		{"nothing", "", "", usage},
		{"no name", "--config signer.yaml", "", usage},
		{"no configuration", "--name old", "", usage},
		{"both", "--key plain.pem --config signer.yaml --name old", "", usage},
		{"a password beside a name", "--password-file password --config signer.yaml --name encrypted", "", usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := run(t, append([]string{"public-key"}, strings.Fields(c.args)...)...)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			switch {
			case c.err == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got error %v, want one with %q", err, c.err)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("error %q holds the password", err)
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	newKeys(t)
	for _, c := range []struct{ name, args, err string }{
		{"no password", "", "--password-file is required"},
		{"files that are there", "--password-file password --output-prefix k", "already exists"},
	} {
		if out, err := run(t, append([]string{"generate-key"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q and error %v, want one with %q", c.name, out, err, c.err)
		}
	}
	if _, err := run(t, "generate-key", "--password-file", "password"); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"harborseal.key": 0o600, "harborseal.pub": 0o644} {
		if info, err := os.Stat(filepath.Clean(name)); err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: got %v and %v, want at most the mode %s", name, info, err, mode)
		}
	}
}

func TestKeySources(t *testing.T) {
	if out, err := run(t, "key-sources"); err != nil || !strings.HasPrefix(out, "file\n") {
		t.Errorf("got %q and %v, want file at first", out, err)
	}
}
