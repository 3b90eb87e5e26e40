package signing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// requests gives what the registry was asked since the last push.
func (w *world) requests() string {
	var requests []string
	for _, op := range w.operations {
		if strings.HasSuffix(op, "manifest") || strings.HasSuffix(op, "blob") || op == "list referrers" {
			requests = append(requests, op)
		}
	}
	return strings.Join(requests, ", ")
}

func formats(e artifact.Event) []artifact.Format {
	var formats []artifact.Format
	for _, s := range e.Signatures {
		formats = append(formats, s.Format)
	}
	return formats
}

func TestFormats(t *testing.T) {
	legacy, bundle := []artifact.Format{artifact.Legacy}, []artifact.Format{artifact.Bundle}
	both := []artifact.Format{artifact.Legacy, artifact.Bundle}
	const (
		legacyWarm = "get manifest, get manifest, push blob, put manifest, get manifest"
		bundleWarm = "get manifest, list referrers, push blob, put manifest, list referrers"
		bothWarm   = "get manifest, get manifest, list referrers, push blob, put manifest, get manifest, push blob, put manifest, list referrers"
	)
	tests := []struct {
		format  policy.Format
		bundles bool
		want    []artifact.Format
		warm    string
	}{
		{policy.FormatAuto, false, legacy, legacyWarm},
		{policy.FormatAuto, true, both, bothWarm},
		{policy.FormatLegacy, true, legacy, legacyWarm},
		{policy.FormatBundle, true, bundle, bundleWarm},
		{policy.FormatBoth, true, both, bothWarm},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s, Harbor takes bundles: %t", tt.format, tt.bundles), func(t *testing.T) {
			w := newWorld(t)
			w.bundles = tt.bundles
			w.enable(t, tt.format, "demo")
			s, _ := newService(t, w)
			for n := range 2 {
				ref := w.push(t, "demo/app", ociImage, fmt.Sprintf(`{"schemaVersion":2,"n":%d}`, n))
				if d := w.attempt(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("the delivery ended %q, want done; events %+v", d.ended, w.ledger)
				}
				want := tt.warm
				if n == 0 { // the constant configuration comes once
					want = strings.Replace(want, "push blob", "push blob, push blob", 1)
				}
				if got := w.requests(); got != want {
					t.Errorf("signature %d:\n got %s\nwant %s", n+1, got, want)
				}
				wantSigned(t, w, ref, artifact.Made)
				if got := formats(w.events(artifact.Signed, ref)[0]); !slices.Equal(got, tt.want) {
					t.Errorf("formats %v, want %v", got, tt.want)
				}

				w.receive(t, ref, "again")
				w.attempt(t, s, ref, 1)
				if strings.Contains(w.requests(), "pu") {
					t.Errorf("the second push of one digest causes %s", w.requests())
				}
			}
		})
	}
}

// TestAFormatThatThisHarborDoesNotTake: nothing is attached that the pull policy and other people's tools would not see.
func TestAFormatThatThisHarborDoesNotTake(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatBundle, policy.FormatBoth} {
		w := newWorld(t)
		w.enable(t, format, "demo")
		s, _ := newService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
			t.Fatalf("%s: the delivery ended %q, want buried", format, d.ended)
		}
		dead := w.dead[ref]
		if dead.Reason != string(fault.UnsupportedFormat) || !strings.Contains(dead.Detail, "2.15") || !strings.Contains(dead.Detail, "v0-test") {
			t.Errorf("%s: the dead letter says %q: %s; want %s with both versions", format, dead.Reason, dead.Detail, fault.UnsupportedFormat)
		}
		if strings.Contains(w.requests(), "pu") {
			t.Errorf("%s: requests %s, want none that writes", format, w.requests())
		}
	}
}

// TestANewFormatIsAdded: what a changed policy asks for comes to what is there, and nothing comes twice.
func TestANewFormatIsAdded(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatLegacy, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	w.ledger = w.ledger[:1]
	w.enable(t, policy.FormatBoth, "demo")
	w.receive(t, ref, "again")
	w.attempt(t, s, ref, 1)
	if want := "get manifest, get manifest, list referrers, push blob, put manifest, list referrers"; w.requests() != want {
		t.Errorf("requests\n got %s\nwant %s", w.requests(), want)
	}
	wantSigned(t, w, ref, artifact.Made)
}

// TestABundleIsReadOnce: it is immutable, so that from the second time on finding it listed is enough. A new signer reads
// it again.
func TestABundleIsReadOnce(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBundle, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	s, v := newService(t, w)
	w.receive(t, ref, "again")
	w.attempt(t, s, ref, 1)
	if want := "get manifest, list referrers, get manifest, get blob"; w.requests() != want {
		t.Errorf("the first time: %s, want %s", w.requests(), want)
	}
	w.operations = nil
	if !w.verify(t, v, ref).Signed() {
		t.Fatal("the digest is not signed")
	}
	if want := "list referrers"; w.requests() != want {
		t.Errorf("the second time: %s, want %s", w.requests(), want)
	}
	for name := range w.manifests { // somebody deletes the accessory
		if !strings.HasSuffix(name, ref.Digest()) {
			delete(w.manifests, name)
		}
	}
	if w.verify(t, v, ref).Signed() {
		t.Error("a bundle that is gone still counts")
	}
}

// lock puts a signature of somebody else's under the tag of ref and locks all tags.
func (w *world) lock(ref artifact.Ref) {
	m := w.foreign(ref.Repository(), "abc")
	w.manifests[ref.Repository()+" "+sigTag(ref.Digest())] = m
	w.manifests[ref.Repository()+" "+m.Digest] = m
	w.tagged[ref.Repository()+" "+sigTag(ref.Digest())] = []artifact.Manifest{m}
	w.locked = []string{"rule 7: all tags"}
}

// TestALockedTag: where an immutability rule keeps the tag as it is, a bundle stands in, in any format's place.
func TestALockedTag(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
		t.Run(string(format), func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, format, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.lock(ref)
			for n, how := range []artifact.How{artifact.Made, artifact.Found} {
				if n > 0 {
					w.receive(t, ref, "again")
					s, _ = newService(t, w) // one that remembers nothing
				}
				if d := w.attempt(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("attempt %d ended %q, want done", n+1, d.ended)
				}
				signed := w.events(artifact.Signed, ref)
				if len(signed) != n+1 {
					t.Fatalf("%d signed events, want %d", len(signed), n+1)
				}
				e := signed[n]
				if e.How != how || !slices.Equal(formats(e), []artifact.Format{artifact.Bundle}) || !strings.Contains(e.Detail, "rule 7") {
					t.Errorf("attempt %d is recorded as %s in %v with %q, want %s in one bundle with the rule", n+1, e.How, formats(e), e.Detail, how)
				}
			}
			if first, second := w.events(artifact.Signed, ref)[0], w.events(artifact.Signed, ref)[1]; first.SignatureDigest != second.SignatureDigest {
				t.Errorf("two bundles were made: %s and %s", first.SignatureDigest, second.SignatureDigest)
			}
		})
	}
	t.Run("Harbor takes no bundle", func(t *testing.T) {
		w := newWorld(t, "demo")
		s, _ := newService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		w.lock(ref)
		if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
			t.Fatalf("the delivery ended %q, want buried", d.ended)
		}
		if dead := w.dead[ref]; dead.Reason != string(fault.Immutable) || !strings.Contains(dead.Detail, "rule 7") || !dead.Unsigned {
			t.Errorf("the dead letter says %s: %s; want %s with the rule", dead.Reason, dead.Detail, fault.Immutable)
		}
	})
}

// TestTwinsUnderARule: Harbor refuses to put under an immutable tag even what stands there already. The attempt that comes
// second finds what the first one has put.
func TestTwinsUnderARule(t *testing.T) {
	w := newWorld(t, "demo")
	w.locked = []string{"rule 7: all tags"}
	s, _ := newService(t, w)
	twin, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.meanwhile(t, "push blob", twin, ref)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" {
		t.Fatalf("the delivery ended %q, want done: %+v", d.ended, w.dead)
	}
	wantSigned(t, w, ref, artifact.Made)
}
