package pubkey_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/pubkey"
)

func encode(t *testing.T, public crypto.PublicKey) (text, id string) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), hex.EncodeToString(sum[:])
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) crypto.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

func rsaKey(bits int) crypto.PublicKey {
	// Odd, and of that many bits: nobody will sign with it.
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits)-1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
}

func TestParseByStrength(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		public crypto.PublicKey
		says   string // empty if the key is taken
	}{
		{"P-256", ecdsaKey(t, elliptic.P256()), ""},
		{"P-384", ecdsaKey(t, elliptic.P384()), ""},
		{"P-224", ecdsaKey(t, elliptic.P224()), "P-256 or P-384"},
		{"P-521", ecdsaKey(t, elliptic.P521()), "P-256 or P-384"},
		{"Ed25519", ed, ""},
		{"X25519", agreement.Public(), "want ECDSA, Ed25519 or RSA"},
		{"RSA 1024", rsaKey(1024), "RSA key has 1024 bits"},
		{"RSA 2047", rsaKey(2047), "RSA key has 2047 bits"},
		{"RSA 2048", rsaKey(2048), ""},
		{"RSA 4096", rsaKey(4096), ""},
		{"RSA 4097", rsaKey(4097), "RSA key has 4097 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, id := encode(t, tt.public)
			got, err := pubkey.Parse([]byte("a comment\n" + text + "\n"))
			switch {
			case tt.says == "" && (err != nil || got.ID != id || got.PEM != text):
				t.Errorf("Parse() = %+v, %v; want the key %s as it was written", got, err, id)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || got != pubkey.Key{}):
				t.Errorf("Parse() = %+v, %v; want an error with %q", got, err, tt.says)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	good, _ := encode(t, ecdsaKey(t, elliptic.P256()))
	for _, tt := range []struct{ name, text, says string }{
		{"nothing", "", "PEM block"},
		{"no PEM", "hello", "PEM block"},
		{"another type", strings.ReplaceAll(good, "PUBLIC", "PRIVATE"), `got "PRIVATE KEY"`},
		{"headers", strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1), "without headers"},
		{"two keys", good + good, "something follows"},
		{"garbage in it", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})), "public key: "},
		{"large", good + strings.Repeat("\n", 64<<10), "at most 65536"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := pubkey.Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Parse() = %+v, %v; want an error with %q", got, err, tt.says)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nA: b\n\neA==\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := pubkey.Parse(data)
		if err != nil {
			return
		}
		again, err := pubkey.Parse([]byte(key.PEM))
		if err != nil || again.ID != key.ID || again.PEM != key.PEM {
			t.Errorf("Parse of what it gave = %+v, %v; want %+v", again, err, key)
		}
	})
}
