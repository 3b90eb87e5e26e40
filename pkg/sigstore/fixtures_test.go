package sigstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	password = "correct horse battery staple"
	host     = "harbor.example.com"
	identity = host + "/demo/app"
	digest   = "sha256:8c0583f16169c1819ddd88c00b3b1e05a63489b5d25c4b3150740d580d513b77"
	other    = "sha256:deec5364d333db6a899f614800c3e2c315ecd02255b9539ebff4e3a95c7aef43"
)

// rawKeys are made once: RSA keys take their time.
var rawKeys = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"p256":    must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"second":  must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"p384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ed25519": must(ed, err),
		"rsa":     must(rsa.GenerateKey(rand.Reader, 2048)),
		"p521":    must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
	}
})

// loadedKeys come from files that are not encrypted: decryption is slow by design.
var loadedKeys = sync.OnceValue(func() map[string]*keys.Key {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	loaded := make(map[string]*keys.Key)
	for _, name := range []string{"p256", "second", "p384", "ed25519", "rsa"} {
		path := filepath.Join(dir, name)
		block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(rawKeys()[name])})
		err := os.WriteFile(path, block, 0o600)
		if err == nil {
			loaded[name], err = keys.LoadFile(path, "")
		}
		if err != nil {
			panic(err)
		}
	}
	return loaded
})

// cosignKeys are the same keys as files that cosign takes.
var cosignKeys = sync.OnceValue(func() map[string][]byte {
	files := make(map[string][]byte)
	for name := range loadedKeys() {
		data, err := encrypted.Encrypt(pkcs8(rawKeys()[name]), []byte(password))
		if err != nil {
			panic(err)
		}
		files[name] = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: data})
	}
	return files
})

func pkcs8(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

func active(name string) sigstore.NamedKey {
	return sigstore.NamedKey{Name: name, State: sigstore.Active, Signer: loadedKeys()[name]}
}

func verifyOnly(name string) sigstore.NamedKey {
	return sigstore.NamedKey{Name: name, State: sigstore.VerifyOnly, Public: loadedKeys()[name].Public()}
}

func revoked(name string) sigstore.NamedKey {
	return sigstore.NamedKey{Name: name, State: sigstore.Revoked, Public: loadedKeys()[name].Public()}
}

func newRing(tb testing.TB, named ...sigstore.NamedKey) *sigstore.Keyring {
	tb.Helper()
	r, err := sigstore.NewKeyring(named, sigstore.Trust{})
	if err != nil {
		tb.Fatalf("NewKeyring: %v", err)
	}
	return r
}

// anyKey accepts all keys.
func anyKey(string) bool { return true }

func newLegacy(tb testing.TB, named ...sigstore.NamedKey) *sigstore.Legacy {
	tb.Helper()
	return sigstore.NewLegacy(newRing(tb, named...))
}

func newBundles(tb testing.TB, named ...sigstore.NamedKey) *sigstore.Bundles {
	tb.Helper()
	return sigstore.NewBundles(newRing(tb, named...))
}

// claim is what most tests sign.
func claim() artifact.Claim { return artifact.Claim{Identity: identity, Digest: digest} }

func sign(tb testing.TB, name string, format artifact.Format, c artifact.Claim) artifact.Signature {
	tb.Helper()
	s, err := newRing(tb, active(name)).Sign(tb.Context(), name, format, c)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	return s
}

// attach signs and gives the manifest that carries the signature, and its blobs.
func attach(tb testing.TB, name string, existing *artifact.Manifest, c artifact.Claim) (artifact.Manifest, []artifact.Blob) {
	tb.Helper()
	m, blobs, err := newLegacy(tb, active(name)).Append(existing, sign(tb, name, artifact.Legacy, c))
	if err != nil {
		tb.Fatalf("Append: %v", err)
	}
	return m, blobs
}

// compose gives the manifest of a bundle about the digest that most tests sign.
func compose(tb testing.TB, s artifact.Signature) (artifact.Manifest, []artifact.Blob) {
	tb.Helper()
	m, pieces, err := newBundles(tb, active("p256")).Compose(s, artifact.Descriptor{MediaType: manifestType, Digest: digest, Size: 418})
	if err != nil {
		tb.Fatalf("Compose: %v", err)
	}
	return m, pieces
}

func fetchPieces(pieces []artifact.Blob) sigstore.Fetch {
	raw := make([][]byte, len(pieces))
	for i, piece := range pieces {
		raw[i] = piece.Raw
	}
	return blobs(raw...)
}

// noFetch is for cases that must do with the manifest alone.
func noFetch(tb testing.TB) sigstore.Fetch {
	tb.Helper()
	return func(_ context.Context, digest string) ([]byte, error) {
		tb.Errorf("the payload %s was fetched, want it recomputed or ignored", digest)
		return nil, errors.New("not to be fetched")
	}
}

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}
