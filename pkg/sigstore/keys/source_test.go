package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// file writes a file for its owner alone.
func file(tb testing.TB, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "file")
	write(tb, path, []byte(content), 0)
	return path
}

// rsaKey is made for one test: it takes its time.
func rsaKey(tb testing.TB, bits int) crypto.Signer {
	tb.Helper()
	if bits == 2048 {
		return rawKeys()["rsa"]
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// wantSigns checks that cosign's verifier takes what the key signs.
func wantSigns(tb testing.TB, key *keys.Key, public crypto.PublicKey) {
	tb.Helper()
	payload := []byte("a payload of " + tb.Name())
	first, err := key.Sign(context.Background(), payload)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	second, err := key.Sign(context.Background(), payload)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	if same := bytes.Equal(first, second); same != key.Deterministic() {
		tb.Errorf("two signatures over one payload are equal: %t, but Deterministic() = %t", same, key.Deterministic())
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range [][]byte{first, second} {
		if err := verifier.VerifySignature(bytes.NewReader(s), bytes.NewReader(payload)); err != nil {
			tb.Errorf("cosign's verifier refuses the signature: %v", err)
		}
	}
	if err := verifier.VerifySignature(bytes.NewReader(first), strings.NewReader("another")); err == nil {
		tb.Error("cosign's verifier accepts the signature for another payload")
	}
}

func TestOpenFile(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]func(testing.TB) crypto.Signer{
		"P-256":    func(testing.TB) crypto.Signer { return rawKeys()["p256"] },
		"P-384":    func(testing.TB) crypto.Signer { return rawKeys()["p384"] },
		"Ed25519":  func(testing.TB) crypto.Signer { return rawKeys()["ed25519"] },
		"RSA 2048": func(tb testing.TB) crypto.Signer { tb.Helper(); return rsaKey(tb, 2048) },
		"RSA 3072": func(tb testing.TB) crypto.Signer { tb.Helper(); return rsaKey(tb, 3072) },
		"RSA 4096": func(tb testing.TB) crypto.Signer { tb.Helper(); return rsaKey(tb, 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := key(t)
			sources := map[string]keys.Source{"PKCS#8": {File: file(t, string(pkcs8PEM(raw)))}}
			if strings.HasPrefix(name, "RSA") { // the others are loadedKeys: each encryption takes seconds under the race detector
				sources["cosign"] = keys.Source{File: file(t, string(encryptKey(raw))), PasswordFile: file(t, password+"\n")}
			}
			for kind, s := range sources {
				opened, err := keys.Open(t.Context(), s)
				if err != nil {
					t.Fatalf("%s: Open: %v", kind, err)
				}
				if !opened.Deterministic() {
					t.Errorf("%s: Deterministic() = false, want true", kind)
				}
				wantSigns(t, opened, raw.Public())
				if err := errors.Join(opened.Close(), opened.Close()); err != nil {
					t.Errorf("%s: Close: %v", kind, err)
				}
			}
		})
	}
}

func TestOpenPinned(t *testing.T) {
	t.Parallel()
	s := keys.Source{Name: "prod", File: file(t, string(pkcs8PEM(rawKeys()["p256"]))), PublicKeyFile: file(t, string(loadedKeys()["p256"].PublicPEM()))}
	if _, err := keys.Open(t.Context(), s); err != nil {
		t.Errorf("Open() with its own public key: %v", err)
	}
	s.PublicKeyFile = file(t, string(loadedKeys()["second"].PublicPEM()))
	_, err := keys.Open(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), `key "prod": its public key `+loadedKeys()["p256"].ID()+" is not the one in") {
		t.Errorf("Open() with another public key = %v, want it refused", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	good := file(t, string(pkcs8PEM(rawKeys()["p256"])))
	open := file(t, string(pkcs8PEM(rawKeys()["p256"])))
	if err := os.Chmod(open, 0o640); err != nil { //nolint:gosec // to be refused
		t.Fatal(err)
	}
	block := func(kind string) string {
		return file(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("Hunter2")})))
	}
	for _, tt := range []struct {
		name   string
		source keys.Source
		want   string
	}{
		{"nothing", keys.Source{}, "exactly one"},
		{"two of them", keys.Source{File: good, KMS: "hashivault://k"}, "exactly one"},
		{"two others", keys.Source{KMS: "hashivault://k", PKCS11: keys.PKCS11Options{Token: "t"}}, "exactly one"},
		{"negative calls", keys.Source{File: good, MaxCalls: -1}, "0 or more"},
		{"negative timeout", keys.Source{File: good, Timeout: -time.Second}, "0 or more"},
		{"a password for a KMS", keys.Source{KMS: "hashivault://k", PasswordFile: good}, "key file alone"},
		{"no such public key", keys.Source{File: good, PublicKeyFile: "none"}, "pinned public key"},
		{"bad public key", keys.Source{File: good, PublicKeyFile: good}, "pinned public key"},
		{"PKCS#8 that others may read", keys.Source{File: open}, "chmod 600"},
		{"PKCS#8 with a password", keys.Source{File: good, PasswordFile: file(t, password)}, "is not encrypted, yet there is a password file"},
		{"cosign's without a password", keys.Source{File: file(t, string(encryptKey(rawKeys()["p256"])))}, "name the file that holds its password"},
		{"encrypted PKCS#8", keys.Source{File: block("ENCRYPTED PRIVATE KEY")}, "encrypted PKCS #8 is not read: turn it into a cosign key with `cosign import-key-pair`"},
		{"SEC 1", keys.Source{File: block("EC PRIVATE KEY")}, "openssl pkcs8 -topk8 -nocrypt"},
		{"PKCS#1", keys.Source{File: block("RSA PRIVATE KEY")}, "openssl pkcs8 -topk8 -nocrypt"},
		{"broken PKCS#8", keys.Source{File: block("PRIVATE KEY")}, "no PKCS #8 private key"},
		{"P-521", keys.Source{File: file(t, string(pkcs8PEM(rawKeys()["p521"])))}, "P-256 or P-384"},
		{"a scheme that nobody knows", keys.Source{KMS: "k8s://a/b"}, "want one that begins with hashivault://, awskms://, gcpkms://, azurekms://"},
		{"no scheme", keys.Source{KMS: "hashivault"}, "want one that begins with"},
		{"credentials in the reference", keys.Source{KMS: "awskms://Hunter2:Hunter2@host/alias/k"}, "credentials and options are no part of it"}, //nolint:gosec // to be refused
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := keys.Open(t.Context(), tt.source)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Open() = %v, want an error with %q", err, tt.want)
			}
			if fault.Of(err).Reason == fault.KeyUnavailable {
				t.Errorf("%v is key_unavailable, want an error that waiting does not mend", err)
			}
			if strings.Contains(err.Error(), "Hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestSourcesThatWereNotBuiltIn(t *testing.T) {
	t.Parallel()
	in := keys.Providers()
	for name, want := range map[string]struct {
		source keys.Source
		build  string
	}{
		"hashivault": {keys.Source{KMS: "hashivault://k"}, "without the tag no_hashivault"},
		"awskms":     {keys.Source{KMS: "awskms:///alias/k"}, "without the tag no_awskms"},
		"gcpkms":     {keys.Source{KMS: "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k"}, "with the tag gcpkms"},
		"azurekms":   {keys.Source{KMS: "azurekms://v/k"}, "with the tag azurekms"},
		"pkcs11":     {keys.Source{PKCS11: keys.PKCS11Options{Token: "t"}}, "with the tag pkcs11 and CGO"},
	} {
		if slices.Contains(in, name) {
			continue
		}
		_, err := keys.Open(t.Context(), want.source)
		if err == nil || !strings.Contains(err.Error(), "built without") || !strings.Contains(err.Error(), want.build) {
			t.Errorf("%s: Open() = %v, want an error that names the build %q", name, err, want.build)
		}
	}
}

// wantNoSecret looks for secrets in an error.
func wantNoSecret(tb testing.TB, err error, secrets ...string) {
	tb.Helper()
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			tb.Errorf("the error shows a secret: %v", err)
		}
	}
}

func closeKey(tb testing.TB, key *keys.Key) {
	tb.Helper()
	if err := key.Close(); err != nil {
		tb.Errorf("Close: %v", err)
	}
}
