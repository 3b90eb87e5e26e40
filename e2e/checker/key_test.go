package checker_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/e2e/checker"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no PEM":                    "public key",
		"a key that signs nothing":  exchangeKey,
		"rubbish":                   "-----BEGIN PUBLIC KEY-----\naaaa\n-----END PUBLIC KEY-----\n",
		"a private key's PEM block": "-----BEGIN PRIVATE KEY-----\naaaa\n-----END PRIVATE KEY-----\n",
	} {
		if key, err := checker.ParseKey([]byte(text)); err == nil {
			t.Errorf("%s: got the key %T, want an error", name, key)
		}
	}
}

// exchangeKey is one of X25519.
const exchangeKey = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAOeQtjRyqHJrmYYQ5cMG80k/YSUx+hbNwVFfTJ4Lb8kI=
-----END PUBLIC KEY-----
`

// Every kind of key that images may be signed with verifies its own signatures, in both formats, and no others.
func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weighty, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, private := range map[string]crypto.Signer{"Ed25519": ed, "ECDSA P-384": p384, "RSA": weighty} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGarden(t)
			digest := g.image(t)
			g.sign(t, digest, g.layer(t, digest, claim{key: private}))
			g.bundle(t, digest, statement{key: private})
			spki, err := x509.MarshalPKIXPublicKey(private.Public())
			if err != nil {
				t.Fatal(err)
			}
			key, err := checker.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
			if err != nil {
				t.Fatal(err)
			}
			if id, err := checker.KeyID(key); err != nil || len(id) != 64 {
				t.Errorf("id of the key: got %q, %v, want 64 digits", id, err)
			}
			reader := checker.NewRegistry(checker.Access{URL: "http://" + g.address})
			if _, violations, err := checker.New(reader, host, key).Signed(t.Context(), repository, digest); err != nil || len(violations) > 0 {
				t.Errorf("with its own key: got %v, %v, want nothing", violations, err)
			}
			_, violations, err := g.wanting().Signed(t.Context(), repository, digest)
			if got := rules(violations); err != nil || !slices.Equal(got, []checker.Rule{checker.Unsigned}) {
				t.Errorf("with another key: got %q, %v, want %q", got, err, checker.Unsigned)
			}
		})
	}
}
