//go:build e2e

package e2e_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// keyID is what the report calls a key by.
func keyID(t *testing.T, public string) string {
	t.Helper()
	text, err := os.ReadFile(public) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is no PEM", public)
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// activeKey and otherKey are entries of the signer's keys.
func activeKey(name string, k harness.Keys) harness.Config {
	return harness.Config{"name": name, "file": k.Private, "password_file": k.Password}
}

func otherKey(name, state string, k harness.Keys) harness.Config {
	return harness.Config{"name": name, "state": state, "public_key_file": k.Public}
}

// A key is followed by another one: what the first has signed stays valid until it is revoked, and is then signed by the
// second, by the next sweep.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	s := newStage(t, env.harbor, 1, func([]string) option {
		return func(o *harness.Options) {
			o.Sweep = time.Second
			o.EditSigner = func(c harness.Config) { harness.Set(c, "both", "sign", "format") }
		}
	})
	a, b := s.Keys, otherKeys(t)
	idA, idB := keyID(t, a.Public), keyID(t, b.Public)
	img, err := harness.NewImage(false)
	old := s.pushTo(t, s.project+"/app", "v1", img, err)
	s.awaitSigned(t, old)
	s.settled(t)
	s.judgeKey(t, old, idA)
	signatures := s.digestOfTag(t, old)

	s.reconfigure(t, s.Signers[0], func(c harness.Config) {
		harness.Set(c, []harness.Config{activeKey("b", b), otherKey("a", "verify-only", a)}, "keys")
	})
	img, err = harness.NewImage(false)
	later := s.pushTo(t, s.project+"/app", "v2", img, err)
	s.awaitSigned(t, later)
	s.awaitSweeps(t, 2)
	s.settled(t)
	s.judgeKey(t, later, idB)
	s.judgeKey(t, old, idA)
	if got := s.digestOfTag(t, old); got != signatures {
		t.Errorf("what a verify-only key signed was signed again: the tag names %s, want %s", got, signatures)
	}
	s.judgeCarried(t, old, "both")

	s.reconfigure(t, s.Signers[0], func(c harness.Config) {
		harness.Set(c, []harness.Config{activeKey("b", b), otherKey("a", "revoked", a)}, "keys")
	})
	s.until(t, func(ctx context.Context) error {
		if row := s.audit(ctx, t, old); row.State != "signed" || row.KeyID != idB {
			return fmt.Errorf("the report says %+v, want it signed by the new key", row)
		}
		return nil
	})
	s.settled(t)
	s.judgeKey(t, old, idB)
	s.judgeKey(t, later, idB)
	for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
		if err := s.client(t, variable).Verify(t.Context(), b.Public, s.images(old, later)...); err != nil {
			t.Error(err)
		}
	}
	if err := s.withSigstoreGo(t, b.Public, "legacy", s.images(old, later)...); err != nil {
		t.Error(err)
	}
	// One more of each, beside those of the old key, and no further ones.
	if layers, err := s.legacyLayers(t.Context(), t, old); err != nil || len(layers) != 2 {
		t.Errorf("under the .sig tag stand %d signatures (%v), want 2", len(layers), err)
	}
	if got := len(s.signatureBundles(t, old)); got != 2 {
		t.Errorf("%d bundles hold signatures, want 2", got)
	}
}

// judgeKey looks whose signatures the report names.
func (s *stage) judgeKey(t *testing.T, p harness.Pushed, want string) {
	t.Helper()
	row := s.audit(t.Context(), t, p)
	if row.KeyID != want || len(row.Signatures) == 0 {
		t.Errorf("%s: the report says %+v, want the key %s", p.Digest, row, want)
	}
	for _, signature := range row.Signatures {
		if signature.KeyID != want {
			t.Errorf("%s: a signature of the report is by %s, want %s", p.Digest, signature.KeyID, want)
		}
	}
}

// A project may name the key that its images are signed with. Keys may be PKCS #8 files, of every kind that verifiers take.
func TestKeyOfAProject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kinds := []struct {
		name string
		make func() (crypto.Signer, error)
	}{
		{"p256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		{"p384", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
		{"ed25519", func() (crypto.Signer, error) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return key, err
		}},
		{"rsa3072", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
	}
	var keys []harness.Config
	public := make(map[string]string)
	for _, kind := range kinds {
		key, err := kind.make()
		if err != nil {
			t.Fatal(err)
		}
		private := filepath.Join(dir, kind.name+".pem")
		public[kind.name] = filepath.Join(dir, kind.name+".pub")
		writeKey(t, private, public[kind.name], key)
		keys = append(keys, harness.Config{"name": kind.name, "file": private})
	}
	s := newStage(t, env.harbor, 1+len(kinds), func(projects []string) option {
		return func(o *harness.Options) {
			o.EditSigner = func(c harness.Config) {
				first, ok := c["keys"].([]harness.Config)
				if !ok {
					t.Fatalf("the keys are %T", c["keys"])
				}
				c["keys"] = append(first, keys...)
				harness.Set(c, "image", "sign", "key")
			}
			for i, kind := range kinds {
				o.Policies = append(o.Policies, harness.Config{"projects": []string{projects[1+i]}, "backfill": "all", "key": kind.name})
			}
			// The receiver knows the key of the harness alone: it cannot tell what a policy may name.
			o.EditReceiver = func(c harness.Config) { delete(c, "keys") }
		}
	})
	public["image"] = s.Keys.Public
	signers := map[string]string{s.projects[0]: "image"}
	for i, kind := range kinds {
		signers[s.projects[1+i]] = kind.name
	}
	for project, key := range signers {
		img, err := harness.NewImage(false)
		p := s.pushTo(t, project+"/app", "v1", img, err)
		s.awaitSigned(t, p)
		s.judgeKey(t, p, keyID(t, public[key]))
		for _, variable := range []string{harness.EnvCosignV2, harness.EnvCosignV3} {
			cosign := s.client(t, variable)
			if err := cosign.Verify(t.Context(), public[key], s.image(p)); err != nil {
				t.Errorf("key %s: %v", key, err)
			}
			if key != "image" && cosign.Verify(t.Context(), public["image"], s.image(p)) == nil {
				t.Errorf("what %s signed verifies with the key of other projects", key)
			}
		}
		for _, format := range []string{"legacy", "bundle"} {
			if err := s.withSigstoreGo(t, public[key], format, s.image(p)); err != nil {
				t.Errorf("key %s: %v", key, err)
			}
		}
	}
}

// writeKey writes a key as openssl does, in PKCS #8, not encrypted.
func writeKey(t *testing.T, private, public string, key crypto.Signer) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		private: {Type: "PRIVATE KEY", Bytes: der}, public: {Type: "PUBLIC KEY", Bytes: spki},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
