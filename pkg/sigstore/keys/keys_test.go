package keys_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

func TestPrivateKeySigns(t *testing.T) {
	t.Parallel()
	for name, key := range loadedKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload := []byte("a payload")
			first, err := key.Sign(t.Context(), payload)
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			second, err := key.Sign(t.Context(), payload)
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			if err := key.Probe(t.Context()); err != nil {
				t.Errorf("Probe: %v", err)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("two signatures over one payload differ: %x and %x", first, second)
			}
			// This is how `cosign verify --key` loads a public key.
			verifier, err := signature.LoadVerifier(rawKeys()[name].Public(), crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.VerifySignature(bytes.NewReader(first), bytes.NewReader(payload)); err != nil {
				t.Errorf("cosign's verifier refuses the signature: %v", err)
			}
			if err := verifier.VerifySignature(bytes.NewReader(first), strings.NewReader("another")); err == nil {
				t.Error("cosign's verifier accepts the signature for another payload")
			}
			der, err := x509.MarshalPKIXPublicKey(rawKeys()[name].Public())
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(der)
			if got, want := key.ID(), hex.EncodeToString(sum[:]); got != want {
				t.Errorf("ID() = %s, want the SHA-256 of the SPKI %s", got, want)
			}
			block, _ := pem.Decode(key.PublicPEM())
			if block == nil || !bytes.Equal(block.Bytes, der) {
				t.Errorf("PublicPEM() is not the key's SPKI")
			}
		})
	}
}

func TestLoadPrivateKeyRefuses(t *testing.T) {
	t.Parallel()
	good := encryptKey(rawKeys()["p256"])
	plain, err := x509.MarshalPKCS8PrivateKey(rawKeys()["p256"])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		key      []byte
		keyMode  os.FileMode
		password string
		passMode os.FileMode
		want     string
	}{
		{name: "key readable by the group", key: good, keyMode: 0o640, want: "chmod 600"},
		{name: "key readable by others", key: good, keyMode: 0o604, want: "chmod 600"},
		{name: "password readable by others", key: good, passMode: 0o644, want: "chmod 600"},
		{name: "empty password", key: good, password: "\n", want: "is empty"},
		{name: "wrong password", key: good, password: "wrong\n", want: "is wrong, or the file is damaged"},
		{name: "no PEM", key: []byte("hello"), want: "no PEM file"},
		{name: "empty file", key: []byte{}, want: "no PEM file"},
		{name: "not encrypted", key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), want: "cosign import-key-pair"},
		{name: "public key", key: loadedKeys()["p256"].PublicPEM(), want: `"PUBLIC KEY"`},
		{name: "damaged", key: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: []byte("{}")}), want: "is damaged"},
		{name: "decrypts to something else", key: encryptBytes(plain[:len(plain)-9]), want: "no PKCS #8 private key"},
		{name: "curve P-521", key: encryptKey(rawKeys()["p521"]), want: "P-256 or P-384"},
		{name: "RSA with 1024 bits", key: encryptKey(rawKeys()["rsa1024"]), want: "1024 bits"},
		{name: "huge file", key: bytes.Repeat([]byte("x"), 65<<10), want: "cannot be a secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			keyFile, passwordFile := filepath.Join(dir, "key"), filepath.Join(dir, "password")
			if tt.password == "" {
				tt.password = password
			}
			write(t, keyFile, tt.key, tt.keyMode)
			write(t, passwordFile, []byte(tt.password), tt.passMode)
			_, err := keys.LoadFile(keyFile, passwordFile)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("LoadFile() = %v, want an error with %q", err, tt.want)
			}
			for _, secret := range []string{strings.TrimSpace(tt.password), string(plain), hex.EncodeToString(plain)} {
				if secret != "" && strings.Contains(strings.ReplaceAll(err.Error(), "password in", ""), secret) && secret != "wrong" {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
	t.Run("missing files", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if _, err := keys.LoadFile(filepath.Join(dir, "none"), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("LoadFile() = %v, want os.ErrNotExist", err)
		}
		if _, err := keys.LoadFile(dir, dir); err == nil {
			t.Error("LoadFile() of a directory succeeded")
		}
		if _, err := keys.LoadFile("", ""); err == nil {
			t.Error("LoadFile() of nothing succeeded")
		}
	})
}

func TestPrintsShowNoKey(t *testing.T) {
	t.Parallel()
	key := loadedKeys()["p256"]
	der, err := x509.MarshalPKCS8PrivateKey(rawKeys()["p256"])
	if err != nil {
		t.Fatal(err)
	}
	scalar := der[36:68] // the private scalar of a P-256 key in PKCS #8
	number := new(big.Int).SetBytes(scalar)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, value := range []any{key, reflect.ValueOf(key).Elem().Interface(), key.Public()} {
			printed := fmt.Sprintf(format, value)
			for _, secret := range []string{hex.EncodeToString(scalar), number.String(), fmt.Sprintf("%d", scalar)} {
				if strings.Contains(printed, secret) {
					t.Errorf("%s of %T shows the private key", format, value)
				}
			}
		}
	}
}

func TestGenerateKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passwordFile := filepath.Join(dir, "password")
	write(t, passwordFile, []byte(password+"\n"), 0o600)
	prefix := filepath.Join(dir, "cosign")
	public, err := keys.Generate(prefix, passwordFile)
	if err != nil {
		t.Fatalf("Generate: %v", err)
	}
	info, err := os.Stat(prefix + ".key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode of the private key: %v, error %v, want 0600", info.Mode(), err)
	}
	loaded, err := keys.LoadFile(prefix+".key", passwordFile)
	if err != nil || loaded.ID() != public.ID() {
		t.Fatalf("LoadFile() of the new key: %v", err)
	}
	data, err := os.ReadFile(prefix + ".key") //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cosign.LoadPrivateKey(data, []byte(password), nil); err != nil {
		t.Errorf("cosign cannot load the new key: %v", err)
	}
	pub, err := os.ReadFile(prefix + ".pub") //nolint:gosec // a file of the test
	if err != nil || !bytes.Equal(pub, public.PEM()) {
		t.Errorf("public key file: %q, error %v, want %q", pub, err, public.PEM())
	}

	if _, err := keys.Generate(prefix, passwordFile); !errors.Is(err, os.ErrExist) {
		t.Errorf("Generate() over a key = %v, want os.ErrExist", err)
	}
	if err := os.Remove(prefix + ".key"); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Generate(prefix, passwordFile); !errors.Is(err, os.ErrExist) {
		t.Errorf("Generate() over a public key = %v, want os.ErrExist", err)
	}
	if _, err := os.Stat(prefix + ".key"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a private key was left behind: %v", err)
	}
	if after, err := os.ReadFile(prefix + ".pub"); err != nil || !bytes.Equal(after, pub) { //nolint:gosec // a file of the test
		t.Errorf("the public key was changed: %q, error %v", after, err)
	}
	if _, err := keys.Generate(filepath.Join(dir, "none", "cosign"), passwordFile); err == nil {
		t.Error("Generate() into a missing folder succeeded")
	}
}

func TestGenerateKeyTwiceAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passwordFile, prefix := filepath.Join(dir, "password"), filepath.Join(dir, "cosign")
	write(t, passwordFile, []byte(password), 0o600)
	made := make(chan keys.PublicKey, 2)
	var wg sync.WaitGroup
	for range cap(made) {
		wg.Go(func() {
			key, err := keys.Generate(prefix, passwordFile)
			if err == nil {
				made <- key
			} else if !errors.Is(err, os.ErrExist) {
				t.Errorf("Generate() = %v, want os.ErrExist", err)
			}
		})
	}
	wg.Wait()
	close(made)
	if len(made) != 1 {
		t.Fatalf("%d keys were made under one name, want 1", len(made))
	}
	loaded, err := keys.LoadFile(prefix+".key", passwordFile)
	if want := <-made; err != nil || loaded.ID() != want.ID() {
		t.Errorf("the key in the file is %v, %v, want %s", loaded, err, want.ID())
	}
}

func TestParsePublicKey(t *testing.T) {
	t.Parallel()
	spki := func(name string) []byte {
		der, err := x509.MarshalPKIXPublicKey(rawKeys()[name].Public())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, key := range loadedKeys() {
		parsed, err := keys.ParsePublicKey(key.PublicPEM())
		if err != nil || parsed.ID() != key.ID() || !bytes.Equal(parsed.PEM(), key.PublicPEM()) {
			t.Errorf("%s: ParsePublicKey() = %v, %v, want the key %s", name, parsed, err, key.ID())
		}
	}
	for name, data := range map[string][]byte{
		"nothing":          nil,
		"no PEM":           []byte("ssh-rsa AAAA"),
		"another type":     block("CERTIFICATE", spki("p256")),
		"garbage":          block("PUBLIC KEY", []byte{1, 2, 3}),
		"truncated":        block("PUBLIC KEY", spki("p256")[:40]),
		"two keys":         append(block("PUBLIC KEY", spki("p256")), block("PUBLIC KEY", spki("rsa"))...),
		"P-521":            block("PUBLIC KEY", spki("p521")),
		"RSA of 1024 bits": block("PUBLIC KEY", spki("rsa1024")),
		"huge":             bytes.Repeat([]byte("x"), 1<<20),
		"private key":      encryptKey(rawKeys()["p256"]),
	} {
		if key, err := keys.ParsePublicKey(data); err == nil || !key.IsZero() {
			t.Errorf("%s: ParsePublicKey() = %v, %v, want an error", name, key, err)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, key := range loadedKeys() {
		f.Add(key.PublicPEM())
	}
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := keys.ParsePublicKey(data)
		if err != nil {
			return
		}
		again, err := keys.ParsePublicKey(key.PEM())
		if err != nil || again.ID() != key.ID() {
			t.Errorf("ParsePublicKey(PEM()) = %v, %v, want the key %s", again, err, key.ID())
		}
	})
}

func write(tb testing.TB, path string, data []byte, mode os.FileMode) {
	tb.Helper()
	if mode == 0 {
		mode = 0o600
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		tb.Fatal(err)
	}
}
