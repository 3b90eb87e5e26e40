package signing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// broken is a registry that fails to give some manifests, or to list any.
type broken struct {
	*world
	manifests map[string]error // by reference
	list      error
	extra     []artifact.Descriptor // listed beside what is there
	content   []byte                // of every manifest that the world does not have; nil for none
}

func (b *broken) Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error) {
	m, err := b.world.Manifest(ctx, repository, reference)
	if mine := b.manifests[reference]; mine != nil {
		return artifact.Manifest{}, mine
	}
	if fault.Is(err, fault.Gone) && b.content != nil && strings.HasPrefix(reference, "sha256:") {
		return artifact.Manifest{MediaType: ociImage, Digest: reference, Raw: b.content}, nil
	}
	return m, err
}

func (b *broken) Referrers(ctx context.Context, repository, digest string) ([]artifact.Descriptor, error) {
	listed, err := b.world.Referrers(ctx, repository, digest)
	if b.list != nil {
		return nil, b.list
	}
	return append(listed, b.extra...), err
}

// parts are those of a signer that sees this registry.
func (b *broken) parts(t *testing.T) parts {
	t.Helper()
	p := newParts(t, b.world)
	return partsOf(t, b.world, b, p.ring, p.ring)
}

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// foreignBundles puts n bundles by nobody that we know beside ref.
func (w *world) foreignBundles(ref artifact.Ref, n int) (digests []string) {
	blob := []byte(`{"mediaType":"` + bundleType + `"}`)
	w.blobs[ref.Repository()+" "+artifact.DigestOf(blob)] = blob
	for i := range n {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"layers":[{"mediaType":%[2]q,"size":%d,"digest":%q}],"subject":{"digest":%q},"annotations":{"n":"%d"}}`,
			ociImage, bundleType, len(blob), artifact.DigestOf(blob), ref.Digest(), i)
		m := artifact.Manifest{MediaType: ociImage, Digest: artifact.DigestOf(raw), Raw: raw}
		w.manifests[ref.Repository()+" "+m.Digest] = m
		digests = append(digests, m.Digest)
	}
	return digests
}

// bundleWorld has one digest of a project that is signed in bundles.
func bundleWorld(t *testing.T) (*world, artifact.Ref) {
	t.Helper()
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBundle, "demo")
	return w, w.push(t, "demo/app", ociImage, image)
}

// TestBundlesByOthers: a hundred that were not seen before are read, more are not.
func TestBundlesByOthers(t *testing.T) {
	for _, tt := range []struct {
		others int
		want   string
	}{{100, "done"}, {101, "buried"}} {
		w, ref := bundleWorld(t)
		w.foreignBundles(ref, tt.others)
		s, v := newService(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != tt.want {
			t.Errorf("%d bundles by others: the delivery ended %q, want %q", tt.others, d.ended, tt.want)
		}
		if got, want := strings.Count(w.requests(), "get manifest"), 101; got != want {
			t.Errorf("%d bundles by others: %d manifests were read, want %d, the subject among them", tt.others, got, want)
		}
		if tt.want == "done" {
			wantSignedBy(t, w, v, ref, artifact.Made) // one that remembers: ours is the 101st
		} else if dead := w.dead[ref]; dead.Reason != string(fault.TooLarge) || dead.Unsigned {
			t.Errorf("%d bundles by others: dead letter %s, unsigned: %t; want %s without an answer", tt.others, dead.Reason, dead.Unsigned, fault.TooLarge)
		}
	}
}

// TestOurBundleAmongMany is found without reading any: it was judged when it was made.
func TestOurBundleAmongMany(t *testing.T) {
	w, ref := bundleWorld(t)
	s, v := newService(t, w)
	w.attempt(t, s, ref, 1)
	w.foreignBundles(ref, 1000)
	w.operations = nil
	if !w.verify(t, v, ref).Signed() || w.requests() != "list referrers" {
		t.Errorf("requests %s, want one listing that tells that the digest is signed", w.requests())
	}
}

// TestOthersAreReadOnce: what they are is remembered, so that the next hundred can be read.
func TestOthersAreReadOnce(t *testing.T) {
	w, ref := bundleWorld(t)
	w.foreignBundles(ref, 100)
	_, v := newService(t, w)
	w.verify(t, v, ref)
	w.foreignBundles(ref, 150)
	w.operations = nil
	if w.verify(t, v, ref).Signed() {
		t.Error("a bundle by nobody counts")
	}
	if got := strings.Count(w.requests(), "get manifest"); got != 50 {
		t.Errorf("%d manifests were read, want the 50 new ones", got)
	}
}

// TestWhatWasReadInPartIsNotRemembered: a blob that is not there now may come back.
func TestWhatWasReadInPartIsNotRemembered(t *testing.T) {
	w, ref := bundleWorld(t)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	blobs := w.blobs
	w.blobs = map[string][]byte{}
	_, v := newService(t, w)
	if w.verify(t, v, ref).Signed() {
		t.Fatal("a bundle without its blob counts")
	}
	w.blobs = blobs
	if !w.verify(t, v, ref).Signed() {
		t.Error("the bundle does not count, although its blob is back")
	}
}

// TestBundlesThatCannotBeRead: those that are gone or too large are passed over; what leaves it open is an error.
func TestBundlesThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"gone", notFound("manifest"), true},
		{"too large", fault.New(fault.Permanent, fault.TooLarge, errInjected), true},
		{"no answer", fault.New(fault.Transient, fault.Timeout, errInjected), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, ref := bundleWorld(t)
			b := &broken{world: w, manifests: map[string]error{}}
			for _, digest := range w.foreignBundles(ref, 3) {
				b.manifests[digest] = tt.err
			}
			s, _ := b.parts(t).service(t, w)
			if d := w.attempt(t, s, ref, 1); (d.ended == "done") != tt.want || d.ended == "buried" {
				t.Errorf("the delivery ended %q, done: want %t", d.ended, tt.want)
			}
			clear(b.manifests)
			if w.verify(t, b.parts(t).verifier, ref).Signed() != tt.want {
				t.Errorf("signed: want %t", tt.want)
			}
		})
	}
}

// TestABundleThatIsBack: what could not be read is read the next time.
func TestABundleThatIsBack(t *testing.T) {
	for _, err := range []error{notFound("manifest"), fault.New(fault.Permanent, fault.TooLarge, errInjected)} {
		w, ref := bundleWorld(t)
		s, _ := newService(t, w)
		w.attempt(t, s, ref, 1)
		b := &broken{world: w, manifests: map[string]error{w.events(artifact.Signed, ref)[0].SignatureDigest: err}}
		v := b.parts(t).verifier
		if w.verify(t, v, ref).Signed() {
			t.Errorf("%v: the bundle counts", err)
		}
		clear(b.manifests)
		if !w.verify(t, v, ref).Signed() {
			t.Errorf("%v, and then it is back: the bundle does not count", err)
		}
	}
}

// TestAListingThatIsGone: a registry that knows the digest and nothing that refers to it has none.
func TestAListingThatIsGone(t *testing.T) {
	w, ref := bundleWorld(t)
	b := &broken{world: w, list: notFound("digest")}
	p := b.parts(t)
	if w.verify(t, p.verifier, ref).Signed() {
		t.Error("the digest counts as signed")
	}
	if changed, err := p.merger.Merge(t.Context(), ref, ""); changed || err != nil {
		t.Errorf("Merge() = %t, %v, want nothing", changed, err)
	}
	b.list = fault.New(fault.Transient, fault.Unavailable, errInjected)
	need := signing.Requirement{Key: "k", Formats: []artifact.Format{artifact.Bundle}}
	if _, err := p.verifier.Verify(t.Context(), ref, need); fault.Of(err).Reason != fault.Unavailable {
		t.Errorf("Verify() = %v, want %s", err, fault.Unavailable)
	}
}

// candidates are descriptors of manifests that may hold legacy signatures.
func candidates(n int) []artifact.Descriptor {
	listed := make([]artifact.Descriptor, n)
	for i := range listed {
		listed[i] = artifact.Descriptor{MediaType: ociImage, Digest: artifact.DigestOf(fmt.Append(nil, "other", i)), ArtifactType: "application/vnd.oci.image.config.v1+json"}
	}
	return listed
}

// TestLimitsOfAMerge: beyond them it is given up, before much is read.
func TestLimitsOfAMerge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		others int
		size   int
		read   int // manifests, the tag among them
		reason fault.Reason
	}{
		{"a thousand others", 1000, 100, 1001, ""},
		{"one more", 1001, 100, 0, fault.TooLarge},
		{"16 MiB", 4, 4 << 20, 5, ""},
		{"more", 1000, 4 << 20, 6, fault.TooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "demo")
			ref := w.push(t, "demo/app", ociImage, image)
			b := &broken{world: w, extra: candidates(tt.others), content: []byte("{" + strings.Repeat(" ", tt.size-2) + "}")}
			changed, err := b.parts(t).merger.Merge(t.Context(), ref, "")
			if changed || (err != nil) != (tt.reason != "") {
				t.Fatalf("Merge() = %t, %v; want the reason %q", changed, err, tt.reason)
			}
			if err != nil && (fault.Of(err).Reason != tt.reason || !fault.Is(err, fault.Permanent)) {
				t.Errorf("Merge() = %v, want a permanent fault, %s", err, tt.reason)
			}
			if got := strings.Count(w.requests(), "get manifest"); got != tt.read {
				t.Errorf("%d manifests were read, want %d", got, tt.read)
			}
		})
	}
}

// TestAMergePassesOver what is gone or too large, and reads nothing that is no signature.
func TestAMergePassesOver(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	w.put(t, ref, w.foreign("demo/app", "one"))
	w.put(t, ref, w.foreign("demo/app", "two"))
	extra := candidates(2)
	b := &broken{world: w, extra: extra, manifests: map[string]error{
		extra[0].Digest: notFound("manifest"),
		extra[1].Digest: fault.New(fault.Permanent, fault.TooLarge, errInjected),
	}}
	if changed, err := b.parts(t).merger.Merge(t.Context(), ref, ""); !changed || err != nil {
		t.Fatalf("Merge() = %t, %v, want true", changed, err)
	}
	w.wantBoth(t, ref)
}

// TestAMergeReadsSignaturesAlone: attestations and SBOMs beside a tag cost no request.
func TestAMergeReadsSignaturesAlone(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	b := &broken{world: w, content: []byte("{}")}
	for i, artifactType := range []string{"application/spdx+json", "application/vnd.dsse.envelope.v1+json", bundleType} {
		b.extra = append(b.extra, artifact.Descriptor{MediaType: ociImage, Digest: artifact.DigestOf(fmt.Append(nil, "attached", i)), ArtifactType: artifactType})
	}
	w.operations = nil
	changed, err := b.parts(t).merger.Merge(t.Context(), ref, w.manifests["demo/app "+sigTag(ref.Digest())].Digest)
	if changed || err != nil || w.requests() != "list referrers" {
		t.Errorf("Merge() = %t, %v with %s, want false with one request", changed, err, w.requests())
	}
}
