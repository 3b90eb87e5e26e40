package signing_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// randomKeys signs as a KMS does: no two signatures are alike.
type randomKeys struct {
	*sigstore.Keyring
	key    *ecdsa.PrivateKey
	signer *keys.Key // the same; nil if the ring is to be used as it is
}

func (r randomKeys) Sign(ctx context.Context, name string, format artifact.Format, claim artifact.Claim) (artifact.Signature, error) {
	s, err := r.Keyring.Sign(ctx, name, format, claim)
	if err != nil {
		return s, err
	}
	message := s.Payload
	if format == artifact.Bundle {
		const payloadType = "application/vnd.in-toto+json"
		message = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(s.Payload), s.Payload)
	}
	sum := sha256.Sum256(message)
	s.Bytes, err = ecdsa.SignASN1(rand.Reader, r.key, sum[:])
	return s, err
}

func (r randomKeys) Deterministic(string) bool { return false }

func newRandomKeys(t *testing.T) randomKeys {
	t.Helper()
	private, key := newKey(t)
	return randomKeys{newRing(t, sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: key}), private, key}
}

// newKey makes a key that no other test has.
func newKey(t *testing.T) (*ecdsa.PrivateKey, *keys.Key) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := keys.LoadFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return private, loaded
}

// service is a signer of its own with these keys.
func (r randomKeys) service(t *testing.T, w *world) (*signing.Service, *signing.Verifier) {
	t.Helper()
	return r.parts(t, w).service(t, w)
}

func (r randomKeys) parts(t *testing.T, w *world) parts {
	t.Helper()
	if r.signer != nil { // the ring is of one key, and trusts what is in the world
		r.Keyring = newTrustedRing(t, w.trust(), sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: r.signer})
	}
	return partsOf(t, w, w, r.Keyring, r)
}

// TestFourSignersOneSignature: one digest in both lanes, each delivered twice, to four signers whose key signs
// differently each time. There is one signature in each format in the end.
func TestFourSignersOneSignature(t *testing.T) {
	random := newRandomKeys(t)
	for round := range 50 {
		w := newWorld(t)
		w.bundles = true
		w.enable(t, policy.FormatBoth, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		request := w.waiting[ref]
		var signers sync.WaitGroup
		for n, lane := range []artifact.Lane{artifact.Live, artifact.Live, artifact.Bulk, artifact.Bulk} {
			s, _ := random.service(t, w)
			r := request
			r.Lane = lane
			d := &delivery{w: w, request: r, attempts: uint64(n + 1), firstSeen: time.Now()}
			signers.Go(func() { s.Handle(t.Context(), d) })
		}
		signers.Wait()
		_, v := random.service(t, w)
		if verdict := w.verify(t, v, ref); !verdict.Signed() || len(verdict.Signatures) != 2 {
			t.Fatalf("round %d: %+v, want one signature in each format", round, verdict)
		}
		var tag struct{ Layers []json.RawMessage }
		if err := json.Unmarshal(w.manifests["demo/app "+sigTag(ref.Digest())].Raw, &tag); err != nil || len(tag.Layers) != 1 {
			t.Fatalf("round %d: %d signatures under the tag (%v), want 1", round, len(tag.Layers), err)
		}
		listed, err := w.Referrers(t.Context(), "demo/app", ref.Digest())
		if err != nil || len(listed) != 2 { // the legacy manifest and the bundle
			t.Fatalf("round %d: %d accessories (%v), want 2", round, len(listed), err)
		}
		for _, e := range w.ledger {
			if e.Kind == artifact.Failed {
				t.Errorf("round %d: an attempt failed: %s", round, e.Detail)
			}
		}
	}
}

// TestAForgedKeptSignature: what does not verify is not attached, and holds nobody up.
func TestAForgedKeptSignature(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	p := newParts(t, w)
	id, _ := p.ring.KeyID("k")
	for name, forged := range map[string]artifact.Signature{
		"garbage":        {Format: artifact.Legacy, KeyID: id, Payload: []byte("{}"), Bytes: []byte("x")},
		"another digest": mustSign(t, p, artifact.Legacy, artifact.DigestOf([]byte("other"))),
		"another format": mustSign(t, p, artifact.Bundle, ref.Digest()),
	} {
		t.Run(name, func(t *testing.T) {
			w.kept[keptName(ref, artifact.Signature{Format: artifact.Legacy, KeyID: id})] = forged
			delete(w.manifests, "demo/app "+sigTag(ref.Digest()))
			w.ledger = w.ledger[:1]
			w.receive(t, ref, "push-1")
			if d := w.attempt(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("the delivery ended %q, want done", d.ended)
			}
			wantSigned(t, w, ref, artifact.Made)
		})
	}
}

func mustSign(t *testing.T, p parts, format artifact.Format, digest string) artifact.Signature {
	t.Helper()
	s, err := p.ring.Sign(t.Context(), "k", format, artifact.Claim{Identity: host + "/demo/app", Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
