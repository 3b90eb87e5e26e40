package signing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// garbage is what may stand under a signature's tag, and the reason for which it stays.
func garbage() map[string]struct {
	raw    string
	reason fault.Reason
} {
	layers := func(n int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[%s]}`, strings.TrimSuffix(strings.Repeat("{},", n), ","))
	}
	return map[string]struct {
		raw    string
		reason fault.Reason
	}{
		"an index":        {`{"schemaVersion":2,"manifests":[]}`, fault.Malformed},
		"too many layers": {layers(1001), fault.TooLarge},
		"a full manifest": {layers(1000), fault.TooLarge},
		"an image":        {`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"}]}`, fault.Malformed},
		"no JSON":         {`{`, fault.Malformed},
	}
}

// TestGarbageUnderTheTag: it is not overwritten, and no reason to do without the other format. The request becomes a dead
// letter that says so; a replay finds the bundle.
func TestGarbageUnderTheTag(t *testing.T) {
	for name, tt := range garbage() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, policy.FormatBoth, "demo")
			ref := w.push(t, "demo/app", ociImage, image)
			w.putGarbage(ref, tt.raw)
			for _, id := range []string{"first", "second"} {
				s, _ := newService(t, w)
				w.receive(t, ref, id)
				if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
					t.Fatalf("%s attempt: the delivery ended %q, want buried", id, d.ended)
				}
				if dead := w.dead[ref]; dead.Reason != string(tt.reason) || !dead.Unsigned {
					t.Errorf("%s attempt: the dead letter says %s (%s), unsigned: %t; want %s, unsigned", id, dead.Reason, dead.Detail, dead.Unsigned, tt.reason)
				}
				if got := w.bundlesOf(t, ref); got != 1 {
					t.Errorf("%s attempt: %d bundles, want 1", id, got)
				}
			}
			if got := string(w.manifests["demo/app "+sigTag(ref.Digest())].Raw); got != tt.raw {
				t.Error("what stood under the tag was overwritten")
			}
			w.enable(t, policy.FormatBundle, "demo")
			if !w.verify(t, newParts(t, w).verifier, ref).Signed() {
				t.Error("the bundle does not count")
			}
		})
	}
}

// TestGarbageOverASignature: a key that signs differently each time would have its signature merged back, and cannot. The
// bundle is made all the same.
func TestGarbageOverASignature(t *testing.T) {
	random := newRandomKeys(t)
	for name, tt := range garbage() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, policy.FormatLegacy, "demo")
			ref := w.overwritten(t, random.parts(t, w))
			w.putGarbage(ref, tt.raw)
			w.enable(t, policy.FormatBoth, "demo")
			s, _ := random.service(t, w)
			if d := w.attempt(t, s, ref, 1); d.ended != "buried" || w.dead[ref].Reason != string(tt.reason) || !w.dead[ref].Unsigned {
				t.Errorf("the delivery ended %q with %+v, want a dead letter, %s, unsigned", d.ended, w.dead[ref], tt.reason)
			}
			if got := w.bundlesOf(t, ref); got != 1 {
				t.Errorf("%d bundles, want 1", got)
			}
		})
	}
}

// putGarbage lets it stand under the signature tag of ref.
func (w *world) putGarbage(ref artifact.Ref, raw string) {
	m := artifact.Manifest{MediaType: ociImage, Digest: artifact.DigestOf([]byte(raw)), Raw: []byte(raw)}
	w.manifests[ref.Repository()+" "+sigTag(ref.Digest())] = m
}

// TestAnOutageBehindGarbage: what keeps the bundle away passes. The request is not given up before there is one.
func TestAnOutageBehindGarbage(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBoth, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	w.putGarbage(ref, garbage()["an index"].raw)
	s, _ := newService(t, w)
	w.fail = failing("put manifest")
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Fatalf("the delivery ended %q, want retry", d.ended)
	}
	w.fail = nil
	if d := w.attempt(t, s, ref, 2); d.ended != "buried" || w.bundlesOf(t, ref) != 1 {
		t.Errorf("the delivery ended %q with %d bundles, want a dead letter and one bundle", d.ended, w.bundlesOf(t, ref))
	}
}

// TestAnOutageIsNotForOneFormat: a failure that passes ends the attempt; the other format waits for the next one.
func TestAnOutageIsNotForOneFormat(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBoth, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.fail = failing("put manifest")
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Fatalf("the delivery ended %q, want retry", d.ended)
	}
	if got := strings.Count(w.requests(), "put manifest"); got != 1 {
		t.Errorf("requests %s, want one put", w.requests())
	}
	w.fail = nil
	w.attempt(t, s, ref, 2)
	wantSigned(t, w, ref, artifact.Made)
}
