package signing_test

import (
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// overwritten signs ref, lets somebody overwrite the tag and the queue forget the signature, and pushes it again.
func (w *world) overwritten(t *testing.T, p parts) artifact.Ref {
	t.Helper()
	ref := w.push(t, "demo/app", ociImage, image)
	s, _ := p.service(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the first delivery ended %q, want done", d.ended)
	}
	w.put(t, ref, w.foreign("demo/app", "theirs"))
	clear(w.kept)
	w.ledger = w.ledger[:1]
	w.receive(t, ref, "again")
	return ref
}

// TestAnOverwrittenSignatureIsMergedBack: a key that signs differently each time would add a second signature, although the
// first one is only out of sight.
func TestAnOverwrittenSignatureIsMergedBack(t *testing.T) {
	random := newRandomKeys(t)
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
		t.Run(string(format), func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, format, "demo")
			ref := w.overwritten(t, random.parts(t, w))
			s, v := random.service(t, w)
			if d := w.attempt(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("the delivery ended %q, want done", d.ended)
			}
			wantSignedBy(t, w, v, ref, artifact.Found)
			w.wantBoth(t, ref)
			if strings.Contains(w.requests(), "push blob") {
				t.Errorf("requests %s, want no upload", w.requests())
			}
		})
	}
}

// wantBoth checks that two signatures stand under the tag of ref: ours and theirs, each once.
func (w *world) wantBoth(t *testing.T, ref artifact.Ref) {
	t.Helper()
	got := 0
	for _, n := range w.payloads(t, ref) {
		got += n
	}
	if got != 2 {
		t.Errorf("%d signatures stand under the tag, want 2", got)
	}
}

// TestAMergeThatFailsIsNoAbsence: the signature may be out of sight, so that none is made.
func TestAMergeThatFailsIsNoAbsence(t *testing.T) {
	random := newRandomKeys(t)
	w := newWorld(t, "demo")
	ref := w.overwritten(t, random.parts(t, w))
	s, v := random.service(t, w)
	w.fail = failing("list referrers")
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" || strings.Contains(w.requests(), "pu") {
		t.Fatalf("the delivery ended %q after %s, want retry and nothing written", d.ended, w.requests())
	}
	w.fail = nil
	w.attempt(t, s, ref, 2)
	wantSignedBy(t, w, v, ref, artifact.Found)
	w.wantBoth(t, ref)
}

// TestAKeyThatRepeatsItselfNeedsNoMerge: the same signature is made again, and the watch merges later.
func TestAKeyThatRepeatsItselfNeedsNoMerge(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.overwritten(t, newParts(t, w))
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	if want := "get manifest, get manifest, push blob, push blob, put manifest, get manifest"; w.requests() != want {
		t.Errorf("requests\n got %s\nwant %s", w.requests(), want)
	}
	wantSigned(t, w, ref, artifact.Made)
	w.wantBoth(t, ref)
}

// TestOnlyWhatIsOutOfSightIsLookedFor: a new digest, and one whose signature stands under the tag, cost a key that signs
// differently each time no request more.
func TestOnlyWhatIsOutOfSightIsLookedFor(t *testing.T) {
	random := newRandomKeys(t)
	w := newWorld(t, "demo")
	s, _ := random.service(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	for _, id := range []string{"first", "second"} {
		w.receive(t, ref, id)
		w.attempt(t, s, ref, 1)
		if strings.Contains(w.requests(), "list referrers") {
			t.Errorf("%s push: %s, want no listing", id, w.requests())
		}
	}
}
