package signing_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// listed is ref with all that Harbor lists as its signatures.
func (w *world) listed(t *testing.T, ref artifact.Ref) artifact.Listed {
	t.Helper()
	referrers, err := w.Referrers(t.Context(), ref.Repository(), ref.Digest())
	if err != nil {
		t.Fatal(err)
	}
	l := artifact.Listed{Ref: ref}
	for _, d := range referrers {
		l.Signatures = append(l.Signatures, d.Digest)
	}
	w.operations = nil
	return l
}

// review asks as a sweep does.
func (w *world) review(t *testing.T, p parts, l artifact.Listed) (bool, error) {
	t.Helper()
	r, err := signing.NewReview(p.verifier, p.merger)
	if err != nil {
		t.Fatal(err)
	}
	_, _, signed, err := r.Verify(t.Context(), w.policies[l.Ref.Project()], l)
	return signed, err
}

// bundlesOf counts the bundles that refer to ref.
func (w *world) bundlesOf(t *testing.T, ref artifact.Ref) int {
	t.Helper()
	listed, err := w.Referrers(t.Context(), ref.Repository(), ref.Digest())
	if err != nil {
		t.Fatal(err)
	}
	candidate := newParts(t, w).bundles.Candidate
	return len(slices.DeleteFunc(listed, func(d artifact.Descriptor) bool { return !candidate(d) }))
}

// lockedWorld has one digest whose tag a rule locks, with somebody else's signature under it.
func lockedWorld(t *testing.T, format policy.Format) (*world, artifact.Ref) {
	t.Helper()
	w := newWorld(t)
	w.bundles = true
	w.enable(t, format, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	w.lock(ref)
	return w, ref
}

// TestAStandInIsEnough: once a bundle stands in for a locked tag, sweeps have nothing to ask for, and what is asked for all
// the same writes nothing.
func TestAStandInIsEnough(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth, policy.FormatAuto} {
		t.Run(string(format), func(t *testing.T) {
			w, ref := lockedWorld(t, format)
			if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); signed || err != nil {
				t.Errorf("a sweep sees signed = %t, %v before the signature", signed, err)
			}
			s, _ := newService(t, w)
			w.attempt(t, s, ref, 1)
			wantSigned(t, w, ref, artifact.Made)
			lost := w.foreign("demo/app", "lost") // overwritten, and the rule keeps it from being merged back
			w.tagged["demo/app "+sigTag(ref.Digest())] = append(w.tagged["demo/app "+sigTag(ref.Digest())], lost)
			w.manifests["demo/app "+lost.Digest] = lost
			if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); !signed || err != nil {
				t.Errorf("a sweep sees signed = %t, %v, want true", signed, err)
			}
			if strings.Contains(w.requests(), "pu") {
				t.Errorf("the sweep causes %s", w.requests())
			}
			for name, s := range map[string]*signing.Service{"the same signer": s, "another": first(newService(t, w))} {
				w.receive(t, ref, name)
				if d := w.attempt(t, s, ref, 1); d.ended != "done" || strings.Contains(w.requests(), "pu") {
					t.Errorf("%s: the delivery ended %q after %s, want done and nothing written", name, d.ended, w.requests())
				}
			}
		})
	}
}

func first(s *signing.Service, _ *signing.Verifier) *signing.Service { return s }

// TestRulesThatMayNotBeListed: the refused put tells that the tag is locked, and a bundle stands in all the same.
func TestRulesThatMayNotBeListed(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
		t.Run(string(format), func(t *testing.T) {
			w, ref := lockedWorld(t, format)
			w.rulesErr = fault.New(fault.Permanent, fault.Denied, errInjected)
			for n, how := range []artifact.How{artifact.Made, artifact.Found} {
				s, _ := newService(t, w)
				if n > 0 {
					w.receive(t, ref, "again")
				}
				if d := w.attempt(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("attempt %d ended %q, want done: %+v", n+1, d.ended, w.dead)
				}
				signed := w.events(artifact.Signed, ref)
				if len(signed) != n+1 || signed[n].How != how || !strings.Contains(signed[n].Detail, "an immutability rule of the project") {
					t.Errorf("attempt %d: signed events %+v, want a last one that says %s and names a rule", n+1, signed, how)
				}
				if got := w.bundlesOf(t, ref); got != 1 {
					t.Errorf("attempt %d: %d bundles, want 1", n+1, got)
				}
			}
		})
	}
}

// TestALockOverASignature: a key that signs differently each time would have its overwritten signature merged back, and the
// rule refuses that too.
func TestALockOverASignature(t *testing.T) {
	random := newRandomKeys(t)
	for _, rulesErr := range []error{nil, errInjected} {
		w := newWorld(t)
		w.bundles = true
		w.enable(t, policy.FormatLegacy, "demo")
		ref := w.overwritten(t, random.parts(t, w))
		w.locked, w.rulesErr = []string{"rule 7: all tags"}, rulesErr
		s, _ := random.service(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != "done" || w.bundlesOf(t, ref) != 1 {
			t.Errorf("rules %v: the delivery ended %q with %d bundles, want done with one", rulesErr, d.ended, w.bundlesOf(t, ref))
		}
	}
}

// TestARuleThatShowsLate: at the first look the rules did not answer. The bundle that stands in already is found, and the
// record says what it is for.
func TestARuleThatShowsLate(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
		w, ref := lockedWorld(t, format)
		s, _ := newService(t, w)
		w.attempt(t, s, ref, 1)
		w.receive(t, ref, "again")
		w.rulesErr = errInjected
		w.before = func(name string) {
			if name == "put manifest" {
				w.rulesErr = nil
			}
		}
		if d := w.attempt(t, s, ref, 1); d.ended != "done" {
			t.Fatalf("%s: the delivery ended %q, want done", format, d.ended)
		}
		signed := w.events(artifact.Signed, ref)
		if e := signed[len(signed)-1]; len(signed) != 2 || e.How != artifact.Found || !strings.Contains(e.Detail, "rule 7") || len(e.Signatures) != 1 {
			t.Errorf("%s: the last event is %+v, want a second one that says found, in one bundle, with the rule", format, e)
		}
	}
}

// TestRulesThatMayNotBeListedOfAnOldHarbor: without a bundle there is no way around the rule, whether it has a name or not.
func TestRulesThatMayNotBeListedOfAnOldHarbor(t *testing.T) {
	w, ref := lockedWorld(t, policy.FormatAuto)
	w.bundles = false
	w.rulesErr = fault.New(fault.Permanent, fault.Denied, errInjected)
	s, _ := newService(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
		t.Fatalf("the delivery ended %q, want buried", d.ended)
	}
	if dead := w.dead[ref]; dead.Reason != string(fault.Immutable) || !strings.Contains(dead.Detail, "v0-test") || !dead.Unsigned {
		t.Errorf("the dead letter says %s: %s; want %s with Harbor's version, and unsigned", dead.Reason, dead.Detail, fault.Immutable)
	}
	if got := w.bundlesOf(t, ref); got != 0 {
		t.Errorf("%d bundles on a Harbor that takes none for a signature", got)
	}
}

// TestTwinsBesideALockedTag: one digest is in work twice, with a key that signs differently each time, and the other attempt
// is done between our look and our put. One bundle stands in.
func TestTwinsBesideALockedTag(t *testing.T) {
	random := newRandomKeys(t)
	for _, rulesErr := range []error{nil, errInjected} {
		for _, at := range []string{"keep", "push blob", "put manifest"} {
			w, ref := lockedWorld(t, policy.FormatBoth)
			w.rulesErr = rulesErr
			s, v := random.service(t, w)
			twin, _ := random.service(t, w)
			w.meanwhile(t, at, twin, ref)
			if d := w.attempt(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("%s, rules %v: the delivery ended %q, want done: %+v", at, rulesErr, d.ended, w.dead)
			}
			need := signing.Requirement{Key: "k", Formats: []artifact.Format{artifact.Bundle}}
			verdict, err := v.Verify(t.Context(), ref, need)
			if got := w.bundlesOf(t, ref); err != nil || !verdict.Signed() || got != 1 {
				t.Errorf("%s, rules %v: %d bundles, signed: %t (%v), want one that counts", at, rulesErr, got, verdict.Signed(), err)
			}
			for _, e := range w.events(artifact.Signed, ref) {
				if !slices.Equal(e.Signatures, verdict.Signatures) {
					t.Errorf("%s, rules %v: recorded %+v, want %+v", at, rulesErr, e.Signatures, verdict.Signatures)
				}
			}
		}
	}
}
