package signing_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// manyKeys is a ring of the project's key "k", another project's, one that is recognised while a rotation runs, and a
// revoked one.
type manyKeys struct {
	ring    *sigstore.Keyring
	private map[string]*keys.Key
}

func newManyKeys(t *testing.T) manyKeys {
	t.Helper()
	m := manyKeys{private: map[string]*keys.Key{}}
	var named []sigstore.NamedKey
	for name, state := range map[string]sigstore.KeyState{
		"k": sigstore.Active, "other": sigstore.Active, "old": sigstore.VerifyOnly, "lost": sigstore.Revoked,
	} {
		_, key := newKey(t)
		m.private[name] = key
		n := sigstore.NamedKey{Name: name, State: state, Public: key.Public()}
		if state == sigstore.Active {
			n.Signer = key
		}
		named = append(named, n)
	}
	m.ring = newRing(t, named...)
	return m
}

func (m manyKeys) parts(t *testing.T, w *world) parts {
	t.Helper()
	return partsOf(t, w, w, m.ring, m.ring)
}

// of gives the parts of somebody who signs with one of the keys and knows no other.
func (m manyKeys) of(t *testing.T, w *world, name string) parts {
	t.Helper()
	ring := newRing(t, sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: m.private[name]})
	return partsOf(t, w, w, ring, ring)
}

// TestWhoseSignaturesCount: those of the project's key and of keys that are recognised still. Another project's key and a
// revoked one do not make a digest signed, and what they signed stays beside the new signature.
func TestWhoseSignaturesCount(t *testing.T) {
	all := newManyKeys(t)
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle} {
		for _, name := range slices.Sorted(maps.Keys(all.private)) {
			t.Run(fmt.Sprintf("%s by %s", format, name), func(t *testing.T) {
				counts := name == "k" || name == "old"
				w := newWorld(t)
				w.bundles = true
				w.enable(t, format, "demo")
				ref := w.push(t, "demo/app", ociImage, image)
				s, _ := all.of(t, w, name).service(t, w)
				if d := w.attempt(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("the first signer's delivery ended %q", d.ended)
				}
				w.ledger = w.ledger[:1]

				s, v := all.parts(t, w).service(t, w)
				if got := w.verify(t, v, ref).Signed(); got != counts {
					t.Errorf("Signed() = %t, want %t", got, counts)
				}
				w.receive(t, ref, "again")
				w.attempt(t, s, ref, 1)
				how, by := artifact.Made, "k"
				if counts {
					how, by = artifact.Found, name
				}
				wantSignedBy(t, w, v, ref, how)
				if got, want := w.events(artifact.Signed, ref)[0].KeyID, all.private[by].ID(); got != want {
					t.Errorf("the ledger names the key %s, want that of %q, %s", got, by, want)
				}
				if !w.verify(t, all.of(t, w, name).verifier, ref).Signed() {
					t.Errorf("the signature by %q is gone", name)
				}
			})
		}
	}
}

// TestAKnownBundleIsJudgedForEachProject: that it verifies is remembered, whether it counts depends on who asks.
func TestAKnownBundleIsJudgedForEachProject(t *testing.T) {
	all := newManyKeys(t)
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBundle, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	s, _ := all.of(t, w, "other").service(t, w)
	w.attempt(t, s, ref, 1)
	v := all.parts(t, w).verifier
	for _, tt := range []struct {
		key  string
		want bool
	}{{"k", false}, {"other", true}, {"k", false}} {
		need := signing.Requirement{Key: tt.key, Formats: []artifact.Format{artifact.Bundle}}
		verdict, err := v.Verify(t.Context(), ref, need)
		if err != nil || verdict.Signed() != tt.want {
			t.Errorf("where %q signs: Signed() = %t, %v; want %t", tt.key, verdict.Signed(), err, tt.want)
		}
	}
}

// TestCannotTellIsNotAbsent: another project's signature verifies, ours has annotations that the policy does not name, so
// that its payload has to be read, and cannot be. No second one is added.
func TestCannotTellIsNotAbsent(t *testing.T) {
	all := newManyKeys(t)
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	p := all.parts(t, w)
	var tag *artifact.Manifest
	for _, signer := range []struct {
		key         string
		annotations map[string]string
	}{{"other", nil}, {"k", map[string]string{"build": "7"}}} {
		claim := p.verifier.Claim(ref, signing.Requirement{Annotations: signer.annotations})
		signature, err := p.ring.Sign(t.Context(), signer.key, artifact.Legacy, claim)
		if err != nil {
			t.Fatal(err)
		}
		m, blobs, err := p.legacy.Append(tag, signature)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blobs {
			w.blobs["demo/app "+b.Digest] = b.Raw
		}
		tag = &m
	}
	w.put(t, ref, *tag)
	w.operations = nil
	w.fail = failing("get blob")
	s, v := p.service(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Fatalf("the delivery ended %q, want retry", d.ended)
	}
	if want := "get manifest, get manifest, get blob"; w.requests() != want {
		t.Errorf("requests %s, want %s", w.requests(), want)
	}
	if e := w.events(artifact.Failed, ref); len(e) != 1 || e[0].Unsigned {
		t.Errorf("failed events: %+v, want one that does not say unsigned", e)
	}
	w.fail = nil
	w.attempt(t, s, ref, 2)
	if strings.Contains(w.requests(), "pu") {
		t.Errorf("requests %s, want none that writes", w.requests())
	}
	wantSignedBy(t, w, v, ref, artifact.Found)
}
