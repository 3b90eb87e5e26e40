package signing_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// resign asks for signatures of the active key.
func resign(p *policy.Policy) { p.Terms.ActiveKeyOnly = true }

// rotatedWorld has one digest that only the retired key "old" has signed.
func rotatedWorld(t *testing.T, all manyKeys, format policy.Format) (*world, artifact.Ref) {
	t.Helper()
	w := newWorld(t)
	w.bundles = true
	w.enable(t, format, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	s, _ := all.of(t, w, "old").service(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the first signer's delivery ended %q", d.ended)
	}
	w.ledger = w.ledger[:1]
	clear(w.kept)
	return w, ref
}

// signers gives the names of the keys by which there is evidence, in its order, for each format.
func signers(all manyKeys, evidence []artifact.Evidence) map[artifact.Format][]string {
	found := map[artifact.Format][]string{}
	for _, e := range evidence {
		for name, key := range all.private {
			if key.ID() == e.KeyID {
				found[e.Format] = append(found[e.Format], name)
			}
		}
	}
	return found
}

// TestARotationAddsTheActiveKey: its signature comes beside the retired key's, which stays, once. The ledger names both.
func TestARotationAddsTheActiveKey(t *testing.T) {
	all := newManyKeys(t)
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
		for _, wanted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, re-sign %t", format, wanted), func(t *testing.T) {
				w, ref := rotatedWorld(t, all, format)
				how, want := artifact.Found, []string{"old"}
				if wanted {
					w.change(resign)
					how, want = artifact.Made, []string{"k", "old"}
				}
				w.receive(t, ref, "again")
				s, v := all.parts(t, w).service(t, w)
				w.attempt(t, s, ref, 1)
				wantSignedBy(t, w, v, ref, how)
				e := w.events(artifact.Signed, ref)[0]
				for format, got := range signers(all, e.Signatures) {
					if !slices.Equal(got, want) {
						t.Errorf("the ledger names the keys %v of the %s, want %v", got, format, want)
					}
				}
				if !w.verify(t, all.of(t, w, "old").verifier, ref).Signed() {
					t.Error("the retired key's signature is gone")
				}

				// Once more, by a signer that remembers what it has seen, and by one that does not.
				for name, s := range map[string]*signing.Service{"the same": s, "another": first(all.parts(t, w).service(t, w))} {
					w.receive(t, ref, "once more "+name)
					w.attempt(t, s, ref, 1)
					if strings.Contains(w.requests(), "pu") {
						t.Errorf("%s signer causes %s, want nothing written", name, w.requests())
					}
					found := w.events(artifact.Signed, ref)
					if last := found[len(found)-1]; last.How != artifact.Found || !slices.Equal(last.Signatures, e.Signatures) {
						t.Errorf("%s signer records %s %+v, want found %+v", name, last.How, last.Signatures, e.Signatures)
					}
				}
			})
		}
	}
}

// TestBundlesOfARotationAreReadOnce: what the active key's bundle costs, when all is known, is one listing.
func TestBundlesOfARotationAreReadOnce(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatBundle)
	w.change(resign)
	w.receive(t, ref, "again")
	s, v := all.parts(t, w).service(t, w)
	w.attempt(t, s, ref, 1)
	const want = "get manifest, list referrers, get manifest, get blob, push blob, push blob, put manifest, list referrers"
	if w.requests() != want {
		t.Errorf("requests\n got %s\nwant %s", w.requests(), want)
	}
	w.operations = nil
	if verdict := w.verify(t, v, ref); len(verdict.Signatures) != 2 || w.requests() != "list referrers" {
		t.Errorf("%+v with %s, want both with one listing", verdict.Signatures, w.requests())
	}
	// Many by others do not keep what is there from being enough.
	w.foreignBundles(ref, 300)
	if !w.verify(t, v, ref).Signed() {
		t.Error("the digest is not signed among many bundles")
	}
}

// TestARotationBesideALockedTag: the retired key's signature stands where nobody can add to it. A bundle stands in.
func TestARotationBesideALockedTag(t *testing.T) {
	all := newManyKeys(t)
	for _, rulesErr := range []error{nil, errInjected} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
			w, ref := rotatedWorld(t, all, format)
			w.locked, w.rulesErr = []string{"rule 7: all tags"}, rulesErr
			w.change(resign)
			before := w.bundlesOf(t, ref)
			w.receive(t, ref, "again")
			s, _ := all.parts(t, w).service(t, w)
			if d := w.attempt(t, s, ref, 1); d.ended != "done" || w.bundlesOf(t, ref) != before+1 {
				t.Fatalf("%s, rules %v: the delivery ended %q with %d bundles, want done with %d", format, rulesErr, d.ended, w.bundlesOf(t, ref), before+1)
			}
			e := wantEnd(t, w, ref, artifact.Signed, "")
			if got := signers(all, e.Signatures)[artifact.Bundle]; len(got) == 0 || got[0] != "k" || !strings.Contains(e.Detail, "stands in") {
				t.Errorf("%s, rules %v: bundles by %v and the note %q, want one by k first, that stands in", format, rulesErr, got, e.Detail)
			}
		}
	}
}

// TestARotationOfAKeyThatNeverRepeatsItself: signatures that are out of sight are merged back, twins make one, and everything
// that was there is there still.
func TestARotationOfAKeyThatNeverRepeatsItself(t *testing.T) {
	private, key := newKey(t)
	_, old := newKey(t)
	ring := newRing(t,
		sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: key},
		sigstore.NamedKey{Name: "old", State: sigstore.VerifyOnly, Public: old.Public()})
	random := randomKeys{ring, private, nil}
	for _, at := range []string{"keep", "push blob", "put manifest"} {
		w := newWorld(t)
		w.bundles = true
		w.enable(t, policy.FormatBoth, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		oldRing := newRing(t, sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: old})
		s, _ := partsOf(t, w, w, oldRing, oldRing).service(t, w)
		w.attempt(t, s, ref, 1)
		w.ledger = w.ledger[:1]
		w.change(resign)
		w.receive(t, ref, "again")
		s, v := random.service(t, w)
		twin, _ := random.service(t, w)
		w.meanwhile(t, at, twin, ref)
		if d := w.attempt(t, s, ref, 1); d.ended != "done" {
			t.Fatalf("at %s: the delivery ended %q, want done", at, d.ended)
		}
		w.put(t, ref, w.foreign("demo/app", "theirs")) // overwrites both
		w.receive(t, ref, "once more")
		w.attempt(t, s, ref, 1)
		verdict := w.verify(t, v, ref)
		var tag struct{ Layers []json.RawMessage }
		if err := json.Unmarshal(w.manifests["demo/app "+sigTag(ref.Digest())].Raw, &tag); err != nil || len(tag.Layers) != 3 {
			t.Errorf("at %s: %d signatures under the tag (%v), want theirs, the retired key's and ours", at, len(tag.Layers), err)
		}
		if !verdict.Signed() || len(verdict.Signatures) != 4 || w.bundlesOf(t, ref) != 2 {
			t.Errorf("at %s: %+v and %d bundles, want one signature by each key in each format", at, verdict, w.bundlesOf(t, ref))
		}
	}
}

// TestARotationThatCannotTell: the active key's signature is there, its payload cannot be read now. That the retired key's can
// is no answer.
func TestARotationThatCannotTell(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatLegacy)
	p := all.parts(t, w)
	claim := p.verifier.Claim(ref, signing.Requirement{Annotations: map[string]string{"build": "7"}})
	signature, err := p.ring.Sign(t.Context(), "k", artifact.Legacy, claim)
	if err != nil {
		t.Fatal(err)
	}
	tag := w.manifests["demo/app "+sigTag(ref.Digest())]
	m, blobs, err := p.legacy.Append(&tag, signature)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		w.blobs["demo/app "+b.Digest] = b.Raw
	}
	w.put(t, ref, m)
	w.change(resign)
	w.receive(t, ref, "again")
	w.fail = failing("get blob")
	s, v := p.service(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" || strings.Contains(w.requests(), "pu") {
		t.Fatalf("the delivery ended %q after %s, want retry and nothing written", d.ended, w.requests())
	}
	w.fail = nil
	w.attempt(t, s, ref, 2)
	wantSignedBy(t, w, v, ref, artifact.Found)
}

// TestAKeyThatIsNotThere: what the retired key signed does not count, and nothing is given up.
func TestAKeyThatIsNotThere(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatLegacy)
	w.change(func(p *policy.Policy) {
		resign(p)
		p.Terms.Key = "nobody"
	})
	w.receive(t, ref, "again")
	s, _ := all.parts(t, w).service(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Errorf("the delivery ended %q, want retry", d.ended)
	}
	if e := w.events(artifact.Failed, ref); len(e) != 1 || e[0].Reason != string(fault.KeyUnavailable) {
		t.Errorf("failed events %+v, want one with reason %s", e, fault.KeyUnavailable)
	}
}

// TestEveryStepOfARotationMayFail: in the end there is one signature more in each format.
func TestEveryStepOfARotationMayFail(t *testing.T) {
	all := newManyKeys(t)
	for _, how := range []mode{fails, failsButPersists, persistsLate} {
		for step := 1; ; step++ {
			w, ref := rotatedWorld(t, all, policy.FormatBoth)
			w.projectID = 7
			w.tags[ref] = []string{"v1"}
			w.change(func(p *policy.Policy) {
				resign(p)
				filtered(p)
				p.ProjectID = 7
			})
			w.receive(t, ref, "again")
			name, reached := w.dieAt(t, all.parts(t, w), ref, step, how)
			if !reached {
				if step <= 16 {
					t.Fatalf("only %d operations were seen", step-1)
				}
				break
			}
			t.Run(name, func(t *testing.T) {
				s, v := all.parts(t, w).service(t, w) // restarted
				if _, waits := w.waiting[ref]; waits {
					if d := w.attempt(t, s, ref, 2); d.ended != "done" {
						t.Fatalf("the second delivery ended %q, want done", d.ended)
					}
				}
				w.settle()
				wantSignedBy(t, w, v, ref, "")
				if verdict := w.verify(t, v, ref); len(verdict.Signatures) != 4 || w.bundlesOf(t, ref) != 2 {
					t.Errorf("%+v and %d bundles, want one signature by each key in each format", verdict, w.bundlesOf(t, ref))
				}
			})
		}
	}
}

// TestARotationThatAnotherWasFasterWith: the other attempt has added the active key's signature, and then a rule locks the tag.
// What Harbor refuses is there already.
func TestARotationThatAnotherWasFasterWith(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatLegacy)
	w.change(resign)
	w.receive(t, ref, "again")
	s, v := all.parts(t, w).service(t, w)
	twin, _ := all.parts(t, w).service(t, w)
	request := w.waiting[ref]
	w.before = func(name string) {
		if name == "push blob" {
			w.before = nil
			twin.Handle(t.Context(), &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()})
			w.waiting[ref] = request
			w.locked = []string{"rule 7: all tags"}
		}
	}
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the delivery ended %q, want done: %+v", d.ended, w.dead)
	}
	wantSignedBy(t, w, v, ref, artifact.Made)
}
