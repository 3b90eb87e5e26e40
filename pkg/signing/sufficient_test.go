package signing_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

func newReview(t *testing.T, p parts) *signing.Review {
	t.Helper()
	r, err := signing.NewReview(p.verifier, p.merger)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWhatAReviewGives: the evidence is what the signer recorded, and the note says what is unusual about it.
func TestWhatAReviewGives(t *testing.T) {
	for _, locked := range []bool{false, true} {
		w := newWorld(t)
		w.bundles = true
		w.enable(t, policy.FormatBoth, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		if locked {
			w.lock(ref)
		}
		r := newReview(t, newParts(t, w))
		evidence, note, signed, err := r.Verify(t.Context(), w.policies["demo"], w.listed(t, ref))
		if len(evidence) > 0 || note != "" || signed || err != nil {
			t.Errorf("locked %t: Verify() = %+v, %q, %t, %v before the signature", locked, evidence, note, signed, err)
		}
		s, _ := newService(t, w)
		w.attempt(t, s, ref, 1)
		recorded := w.events(artifact.Signed, ref)[0]
		evidence, note, signed, err = r.Verify(t.Context(), w.policies["demo"], w.listed(t, ref))
		if !slices.Equal(evidence, recorded.Signatures) || note != recorded.Detail || (note != "") != locked || !signed || err != nil {
			t.Errorf("locked %t: Verify() = %+v, %q, %t, %v; want what the ledger says, %+v, %q", locked, evidence, note, signed, err, recorded.Signatures, recorded.Detail)
		}
	}
}

// TestAReviewOfARotation: what counts is evidence, also where it is not enough.
func TestAReviewOfARotation(t *testing.T) {
	all := newManyKeys(t)
	for _, wanted := range []bool{false, true} {
		w, ref := rotatedWorld(t, all, policy.FormatBoth)
		if wanted {
			w.change(resign)
		}
		r := newReview(t, all.parts(t, w))
		evidence, _, signed, err := r.Verify(t.Context(), w.policies["demo"], w.listed(t, ref))
		if len(evidence) != 2 || signed == wanted || err != nil {
			t.Errorf("re-sign %t: Verify() = %+v, signed %t, %v; want both of the retired key's, signed %t", wanted, evidence, signed, err, !wanted)
		}
	}
}

// TestSufficient: whether evidence is enough is told from the keys and Harbor's version alone.
func TestSufficient(t *testing.T) {
	all := newManyKeys(t)
	legacy := func(name string) artifact.Evidence {
		return artifact.Evidence{Format: artifact.Legacy, KeyID: all.private[name].ID(), Digest: artifact.DigestOf(nil)}
	}
	bundle := func(name string) artifact.Evidence {
		e := legacy(name)
		e.Format = artifact.Bundle
		return e
	}
	unknown := legacy("k")
	unknown.KeyID = strings.Repeat("0", 64)
	type list = []artifact.Evidence
	for _, tt := range []struct {
		name     string
		format   policy.Format
		evidence list
		// of a policy that takes all keys that count, and of one that asks for the active one
		ok, resignOK, retired bool
	}{
		{"none", policy.FormatLegacy, nil, false, false, false},
		{"by the active key", policy.FormatLegacy, list{legacy("k")}, true, true, false},
		{"more than asked for", policy.FormatLegacy, list{bundle("k"), legacy("k")}, true, true, false},
		{"by the retired key", policy.FormatLegacy, list{legacy("old")}, true, false, true},
		{"by both keys", policy.FormatLegacy, list{legacy("old"), legacy("k")}, true, true, false},
		{"by a revoked key", policy.FormatLegacy, list{legacy("lost")}, false, false, false},
		{"by another project's key", policy.FormatLegacy, list{legacy("other")}, false, false, false},
		{"by a key that is gone", policy.FormatLegacy, list{unknown}, false, false, false},
		{"a revoked one beside it", policy.FormatLegacy, list{legacy("lost"), legacy("k")}, true, true, false},
		{"both formats", policy.FormatBoth, list{legacy("k"), bundle("k")}, true, true, false},
		{"one format is missing", policy.FormatBoth, list{legacy("k")}, false, false, false},
		{"one format is retired", policy.FormatBoth, list{legacy("k"), bundle("old")}, true, false, true},
		{"one format is revoked", policy.FormatBoth, list{legacy("k"), bundle("lost")}, false, false, false},
		{"a bundle for a locked tag", policy.FormatLegacy, list{bundle("k")}, false, false, false},
		{"a bundle for both", policy.FormatBoth, list{bundle("k")}, false, false, false},
		{"what this Harbor asks for", policy.FormatAuto, list{legacy("k")}, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, tt.format, "demo")
			r := newReview(t, all.parts(t, w))
			ok, retired, err := r.Sufficient(t.Context(), w.policies["demo"], tt.evidence)
			if ok != tt.ok || retired != tt.retired || err != nil {
				t.Errorf("Sufficient() = %t, retired %t, %v; want %t, %t", ok, retired, err, tt.ok, tt.retired)
			}
			w.change(resign)
			ok, retired, err = r.Sufficient(t.Context(), w.policies["demo"], tt.evidence)
			if ok != tt.resignOK || retired != tt.retired || err != nil {
				t.Errorf("re-sign: Sufficient() = %t, retired %t, %v; want %t, %t", ok, retired, err, tt.resignOK, tt.retired)
			}
			if len(w.operations) > 0 {
				t.Errorf("it asked for %q, want nothing", w.operations)
			}
		})
	}
}

// awayHarbor does not tell its version.
type awayHarbor struct{ *world }

func (awayHarbor) Bundles(context.Context) (bool, string, error) { return false, "", errInjected }

// TestSufficientWithoutHarbor: a version that is not known is an error where it matters; a format that this Harbor cannot have
// is not there.
func TestSufficientWithoutHarbor(t *testing.T) {
	w := newWorld(t)
	p := newParts(t, w)
	id, _ := p.ring.KeyID("k")
	evidence := []artifact.Evidence{{Format: artifact.Legacy, KeyID: id}, {Format: artifact.Bundle, KeyID: id}}
	away, err := signing.NewVerifier(signing.VerifierConfig{
		Registry: w, Keys: p.ring, Legacy: p.legacy, Bundles: p.bundles, Harbor: awayHarbor{w}, PublicHost: host,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		verifier *signing.Verifier
		format   policy.Format
		ok, err  bool
	}{
		{"away", away, policy.FormatAuto, false, true},
		{"away and not asked", away, policy.FormatLegacy, true, false},
		{"too old", p.verifier, policy.FormatBoth, false, false},
	} {
		w.enable(t, tt.format, "demo")
		r := newReview(t, parts{verifier: tt.verifier, merger: p.merger})
		if ok, _, err := r.Sufficient(t.Context(), w.policies["demo"], evidence); ok != tt.ok || (err != nil) != tt.err {
			t.Errorf("%s: Sufficient() = %t, %v; want %t and an error: %t", tt.name, ok, err, tt.ok, tt.err)
		}
	}
}

// TestTag: the digest under the tag costs one request. That it cannot be read is not that there is none.
func TestTag(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	r := newReview(t, newParts(t, w))
	ask := func(want string) {
		t.Helper()
		w.operations = nil
		if got, err := r.Tag(t.Context(), ref); got != want || err != nil || w.requests() != "get manifest" {
			t.Errorf("Tag() = %q, %v with %s; want %q with one request", got, err, w.requests(), want)
		}
	}
	ask("")
	m := w.foreign("demo/app", "theirs")
	w.put(t, ref, m)
	ask(m.Digest)
	w.fail = failing("get manifest")
	if got, err := r.Tag(t.Context(), ref); got != "" || fault.Of(err).Reason != fault.Unavailable {
		t.Errorf("Tag() = %q, %v; want %s", got, err, fault.Unavailable)
	}
}

// TestKeySetOfAReview: what was looked at under other keys or another name is looked at again.
func TestKeySetOfAReview(t *testing.T) {
	w := newWorld(t)
	_, key := newKey(t)
	_, second := newKey(t)
	active := sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: key}
	of := func(host string, named ...sigstore.NamedKey) string {
		p := partsOf(t, w, w, newRing(t, named...), newRing(t, named...))
		v, err := signing.NewVerifier(signing.VerifierConfig{
			Registry: w, Keys: p.keys, Legacy: p.legacy, Bundles: p.bundles, Harbor: w, PublicHost: host,
		})
		if err != nil {
			t.Fatal(err)
		}
		p.verifier = v
		return newReview(t, p).KeySet()
	}
	base := of(host, active)
	if again := of(host, active); base != again || len(base) != 16 {
		t.Errorf("KeySet() = %q and %q, want the same 16 digits", base, again)
	}
	for name, other := range map[string]string{
		"another host":  of("other.example.com", active),
		"one key more":  of(host, active, sigstore.NamedKey{Name: "old", State: sigstore.VerifyOnly, Public: second.Public()}),
		"a key instead": of(host, sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: second}),
	} {
		if other == base {
			t.Errorf("%s: KeySet() is the same", name)
		}
	}
}
