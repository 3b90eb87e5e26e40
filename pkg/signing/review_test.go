package signing_test

import (
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestReviewOfAnUnsupportedFormat: it is not signed, and no failure: the signer says why in the ledger.
func TestReviewOfAnUnsupportedFormat(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatBundle, policy.FormatBoth} {
		w := newWorld(t)
		w.enable(t, format, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); signed || err != nil || w.requests() != "" {
			t.Errorf("%s: Signed() = %t, %v with %q, want false without a request", format, signed, err, w.requests())
		}
	}
}

// TestReviewOfATagThatStaysAsItIs: what keeps a merge away for good does not change whether the digest is signed.
func TestReviewOfATagThatStaysAsItIs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world, ref artifact.Ref)
		want   bool
	}{
		{"locked with ours under it", func(w *world, _ artifact.Ref) { w.locked = []string{"rule 7"} }, true},
		{"locked with theirs under it", func(w *world, ref artifact.Ref) {
			tag := w.tagged["demo/app "+sigTag(ref.Digest())]
			w.manifests["demo/app "+sigTag(ref.Digest())] = tag[0]
			w.locked = []string{"rule 7"}
		}, false},
		{"garbage", func(w *world, ref artifact.Ref) {
			w.putGarbage(ref, garbage()["an index"].raw)
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			ref := w.push(t, "demo/app", ociImage, image)
			w.put(t, ref, w.foreign("demo/app", "theirs"))
			w.before = func(name string) { // another writer, whose signature ours overwrites
				if name == "put manifest" {
					w.before = nil
					w.put(t, ref, w.foreign("demo/app", "lost"))
				}
			}
			s, _ := newService(t, w)
			w.attempt(t, s, ref, 1)
			tt.change(w, ref)
			if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); signed != tt.want || err != nil {
				t.Errorf("signed = %t, %v, want %t", signed, err, tt.want)
			}
		})
	}
}

// TestReviewThatCannotTell: a failure that passes is neither yes nor no.
func TestReviewThatCannotTell(t *testing.T) {
	for _, broken := range []string{"get manifest", "list referrers", "put manifest"} {
		w := newWorld(t, "demo")
		ref := w.push(t, "demo/app", ociImage, image)
		s, _ := newService(t, w)
		w.attempt(t, s, ref, 1)
		w.put(t, ref, w.foreign("demo/app", "theirs"))
		listed := w.listed(t, ref)
		w.fail = failing(broken)
		if signed, err := w.review(t, newParts(t, w), listed); signed || fault.Of(err).Reason != fault.Unavailable {
			t.Errorf("%s fails: Signed() = %t, %v, want %s", broken, signed, err, fault.Unavailable)
		}
	}
}

// TestReviewOfBundlesMergesNothing: other people's signatures are not ours to look after where the tag is not asked for.
func TestReviewOfBundlesMergesNothing(t *testing.T) {
	w, ref := bundleWorld(t)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	w.put(t, ref, w.foreign("demo/app", "one"))
	w.put(t, ref, w.foreign("demo/app", "two"))
	if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); !signed || err != nil {
		t.Errorf("signed = %t, %v, want true", signed, err)
	}
	if want := "list referrers, get manifest, get blob"; w.requests() != want {
		t.Errorf("requests %s, want %s", w.requests(), want)
	}
}

// TestReviewOfOurOwn: the tag's manifest and our bundle are no others, so that a digest in both formats costs no merge.
func TestReviewOfOurOwn(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBoth, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	if signed, err := w.review(t, newParts(t, w), w.listed(t, ref)); !signed || err != nil {
		t.Errorf("signed = %t, %v, want true", signed, err)
	}
	if want := "get manifest, list referrers, get manifest, get blob"; w.requests() != want {
		t.Errorf("requests %s, want %s", w.requests(), want)
	}
}
