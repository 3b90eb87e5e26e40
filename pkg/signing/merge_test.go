package signing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/signing"
)

// put stores a manifest under the signature tag of ref, as any client does.
func (w *world) put(t *testing.T, ref artifact.Ref, m artifact.Manifest) {
	t.Helper()
	if err := w.PutManifest(t.Context(), ref.Repository(), sigTag(ref.Digest()), m); err != nil {
		t.Fatal(err)
	}
}

// payloads gives the digests of what is signed under the tag of ref.
func (w *world) payloads(t *testing.T, ref artifact.Ref) map[string]int {
	t.Helper()
	var tag struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal(w.manifests[ref.Repository()+" "+sigTag(ref.Digest())].Raw, &tag); err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, layer := range tag.Layers {
		found[layer.Digest]++
	}
	return found
}

// TestOverwrittenSignaturesComeBack: of several writers that read the tag at once, each overwrites the others.
func TestOverwrittenSignaturesComeBack(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.put(t, ref, w.foreign("demo/app", "one"))
	w.put(t, ref, w.foreign("demo/app", "two"))
	w.before = func(name string) { // between our look at the tag and our put
		if name == "put manifest" {
			w.before = nil
			w.put(t, ref, w.foreign("demo/app", "three"))
		}
	}
	w.attempt(t, s, ref, 1)
	wantSigned(t, w, ref, artifact.Made)
	if got := len(w.payloads(t, ref)); got != 2 { // ours, and the one that was there when we looked
		t.Fatalf("%d signatures before the merge, want 2", got)
	}
	m := newParts(t, w).merger
	w.operations = nil
	changed, err := m.Merge(t.Context(), ref, "")
	if err != nil || !changed {
		t.Fatalf("Merge() = %t, %v, want true", changed, err)
	}
	got := w.payloads(t, ref)
	for _, payload := range []string{"one", "two", "three"} {
		if got[artifact.DigestOf([]byte(payload))] != 1 {
			t.Errorf("the signature of %q is there %d times, want once", payload, got[artifact.DigestOf([]byte(payload))])
		}
	}
	if len(got) != 4 || !w.verify(t, newParts(t, w).verifier, ref).Signed() {
		t.Errorf("%d signatures, want 4, ours among them", len(got))
	}

	// Merging again changes nothing, also by somebody who remembers nothing; what was read is not read again.
	for name, again := range map[string]*signing.Merger{"the same merger": m, "another": newParts(t, w).merger} {
		w.operations = nil
		if changed, err := again.Merge(t.Context(), ref, w.manifests["demo/app "+sigTag(ref.Digest())].Digest); err != nil || changed {
			t.Errorf("%s: Merge() = %t, %v, want false", name, changed, err)
		}
		if strings.Contains(w.requests(), "put") {
			t.Errorf("%s: %s, want no put", name, w.requests())
		}
		if want := "list referrers, get manifest"; again == m && w.requests() != want {
			t.Errorf("%s: %s, want %s", name, w.requests(), want)
		}
	}
}

// TestAMergeOfOneWriterCostsOneRequest: most digests have no other writer.
func TestAMergeOfOneWriterCostsOneRequest(t *testing.T) {
	w := newWorld(t, "demo")
	w.bundles = true
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	w.operations = nil
	changed, err := newParts(t, w).merger.Merge(t.Context(), ref, w.manifests["demo/app "+sigTag(ref.Digest())].Digest)
	if err != nil || changed || w.requests() != "list referrers" {
		t.Errorf("Merge() = %t, %v with %s, want false with one request", changed, err, w.requests())
	}
}

// TestTheTagIsMovedBack: somebody puts the manifest again that stood there before ours.
func TestTheTagIsMovedBack(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	before := w.foreign("demo/app", "one")
	w.put(t, ref, before)
	w.attempt(t, s, ref, 1)
	ours := w.manifests["demo/app "+sigTag(ref.Digest())]
	m := newParts(t, w).merger
	if changed, err := m.Merge(t.Context(), ref, ours.Digest); err != nil || changed {
		t.Fatalf("Merge() = %t, %v, want false", changed, err)
	}
	w.put(t, ref, before)
	if changed, err := m.Merge(t.Context(), ref, ours.Digest); err != nil || !changed {
		t.Fatalf("Merge() = %t, %v, want true", changed, err)
	}
	wantSigned(t, w, ref, artifact.Made)
}

// TestMergersMeet: several merge at once and come to the same end, without one signature twice.
func TestMergersMeet(t *testing.T) {
	for round := range 20 {
		w := newWorld(t, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		for i := range 8 {
			w.put(t, ref, w.foreign("demo/app", fmt.Sprint(i)))
		}
		var mergers sync.WaitGroup
		for range 4 {
			m := newParts(t, w).merger
			mergers.Go(func() {
				if _, err := m.Merge(t.Context(), ref, ""); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		mergers.Wait()
		got := w.payloads(t, ref)
		for payload, n := range got {
			if n != 1 {
				t.Errorf("round %d: %s is there %d times", round, payload, n)
			}
		}
		if len(got) != 8 {
			t.Errorf("round %d: %d signatures, want 8", round, len(got))
		}
	}
}

// TestWhatAMergeLeavesAlone: no tag is made of accessories that hold no signature, a locked tag is a fault, and so is a
// registry that cannot tell.
func TestWhatAMergeLeavesAlone(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	sbom := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/spdx+json","layers":[],"subject":{"digest":%q}}`, ociImage, ref.Digest())
	w.push(t, "demo/app", ociImage, sbom)
	m := newParts(t, w).merger
	if changed, err := m.Merge(t.Context(), ref, ""); err != nil || changed || len(w.tagged) > 0 {
		t.Errorf("Merge() = %t, %v, %d tags; want nothing", changed, err, len(w.tagged))
	}
	w.put(t, ref, w.foreign("demo/app", "one"))
	w.put(t, ref, w.foreign("demo/app", "two"))
	w.locked = []string{"rule 7"}
	if changed, err := m.Merge(t.Context(), ref, ""); fault.Of(err).Reason != fault.Immutable || changed {
		t.Errorf("Merge() of a locked tag = %t, %v, want %s", changed, err, fault.Immutable)
	}
	w.locked = nil
	for _, broken := range []string{"list referrers", "get manifest", "put manifest"} {
		w.fail = func(_ int, name string) mode {
			if name == broken {
				return fails
			}
			return works
		}
		if _, err := newParts(t, w).merger.Merge(t.Context(), ref, ""); fault.Of(err).Reason != fault.Unavailable {
			t.Errorf("%s fails: Merge() = %v, want %s", broken, err, fault.Unavailable)
		}
	}
}

// TestReview is what a sweep does: it merges what webhooks never told of, and decides.
func TestReview(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	p := newParts(t, w)
	review, err := signing.NewReview(p.verifier, p.merger)
	if err != nil {
		t.Fatal(err)
	}
	listed := func() artifact.Listed {
		l := artifact.Listed{Ref: ref}
		for _, m := range w.tagged["demo/app "+sigTag(ref.Digest())] {
			l.Signatures = append(l.Signatures, m.Digest)
		}
		return l
	}
	ask := func(want bool, requests string) {
		t.Helper()
		w.operations = nil
		_, _, got, err := review.Verify(t.Context(), w.policies["demo"], listed())
		if err != nil || got != want || w.requests() != requests {
			t.Errorf("Signed() = %t, %v with %s; want %t with %s", got, err, w.requests(), want, requests)
		}
	}
	ask(false, "get manifest")
	w.attempt(t, s, ref, 1)
	ask(true, "get manifest")
	w.put(t, ref, w.foreign("demo/app", "one")) // overwrites ours
	ask(true, "get manifest, list referrers, get manifest, get manifest, put manifest, list referrers, get manifest, get manifest")
	if len(w.payloads(t, ref)) != 2 {
		t.Errorf("%d signatures after the review, want both", len(w.payloads(t, ref)))
	}
}

// TestWatch: a tag that was written is looked at at once and after 30 s, by one request each.
func TestWatch(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	ours := w.foreign("demo/app", "ours")
	w.put(t, ref, ours)
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		watch, err := signing.NewWatch(newParts(t, w).merger, zerolog.Nop(), registry)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- watch.Run(ctx) }()
		looks := func() int {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return strings.Count(strings.Join(w.operations, " "), "list referrers")
		}
		watch.Add(ref, ours.Digest)
		if got := looks(); got != 1 {
			t.Errorf("%d looks right after the write, want 1", got)
		}
		w.put(t, ref, w.foreign("demo/app", "theirs")) // a slow cosign, 20 s later
		time.Sleep(29 * time.Second)
		if got := looks(); got != 1 {
			t.Errorf("%d looks after 29 s, want 1", got)
		}
		time.Sleep(time.Second)
		if got := looks(); got != 3 { // one that finds it, one that sees that nobody came in between
			t.Errorf("%d looks after 30 s, want 3", got)
		}
		if got := w.payloads(t, ref); len(got) != 2 {
			t.Errorf("%d signatures, want both", len(got))
		}
		time.Sleep(30 * time.Second) // where somebody else writes, it is looked at again
		if got := looks(); got != 4 {
			t.Errorf("%d looks after a minute, want 4", got)
		}
		time.Sleep(time.Hour)
		if got := looks(); got != 4 {
			t.Errorf("%d looks after an hour, want 4", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
		const name = "harborseal_signing_tag_looks_total"
		if got, err := testutil.GatherAndCount(registry, name); err != nil || got != 2 { // merged and unchanged
			t.Errorf("%s has %d results (%v), want 2", name, got, err)
		}
	})
}
