package sigstore_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

func TestBundleCandidate(t *testing.T) {
	t.Parallel()
	b := newBundles(t, active("p256"))
	note := func(predicate string) map[string]string { return map[string]string{predicateNote: predicate} }
	for name, tt := range map[string]struct {
		d    artifact.Descriptor
		want bool
	}{
		"a signature":                    {artifact.Descriptor{ArtifactType: bundleType, Annotations: note(signPredicate)}, true},
		"without annotations":            {artifact.Descriptor{ArtifactType: bundleType}, true},
		"with others":                    {artifact.Descriptor{ArtifactType: bundleType, Annotations: map[string]string{"a": "b"}}, true},
		"listed by its configuration":    {artifact.Descriptor{ArtifactType: "application/vnd.oci.empty.v1+json", Annotations: note(signPredicate)}, true},
		"an attestation":                 {artifact.Descriptor{ArtifactType: bundleType, Annotations: note("https://slsa.dev/provenance/v1")}, false},
		"an attestation of no type":      {artifact.Descriptor{ArtifactType: bundleType, Annotations: note("")}, false},
		"a bill of materials":            {artifact.Descriptor{ArtifactType: "application/spdx+json"}, false},
		"a legacy signature":             {artifact.Descriptor{ArtifactType: "application/vnd.oci.image.config.v1+json"}, false},
		"another version of bundle":      {artifact.Descriptor{ArtifactType: "application/vnd.dev.sigstore.bundle.v0.4+json"}, false},
		"no type":                        {artifact.Descriptor{}, false},
		"the type as its media type":     {artifact.Descriptor{MediaType: bundleType}, false},
		"an attestation of another type": {artifact.Descriptor{ArtifactType: "x", Annotations: note("https://slsa.dev/provenance/v1")}, false},
	} {
		if got := b.Candidate(tt.d); got != tt.want {
			t.Errorf("%s: Candidate(%+v) = %v, want %v", name, tt.d, got, tt.want)
		}
	}
}

// The texts are what cosign v3.1.3 signed, without annotations and with `-a a<b=c&d`.
func TestStatementIsCosigns(t *testing.T) {
	t.Parallel()
	for text, annotations := range map[string]map[string]string{
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"efb11fa7e2dc9d0580d9f681f7d2f5ea9e4b22d24a54eb14774e98c115e76d9e"},` +
			`"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`: nil,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"efb11fa7e2dc9d0580d9f681f7d2f5ea9e4b22d24a54eb14774e98c115e76d9e"},` +
			`"annotations":{"a<b":"c&d"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`: {"a<b": "c&d"},
	} {
		c := artifact.Claim{Digest: "sha256:efb11fa7e2dc9d0580d9f681f7d2f5ea9e4b22d24a54eb14774e98c115e76d9e", Annotations: annotations}
		if got := string(sign(t, "p256", artifact.Bundle, c).Payload); got != text {
			t.Errorf("the statement is\n%s, want cosign's\n%s", got, text)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	b := newBundles(t, active("p256"))
	good, subject := sign(t, "p256", artifact.Bundle, claim()), artifact.Descriptor{MediaType: manifestType, Digest: digest, Size: 418}
	for name, change := range map[string]func(*artifact.Signature, *artifact.Descriptor){
		"a legacy signature": func(s *artifact.Signature, _ *artifact.Descriptor) { *s = sign(t, "p256", artifact.Legacy, claim()) },
		"no key id":          func(s *artifact.Signature, _ *artifact.Descriptor) { s.KeyID = "" },
		"a short key id":     func(s *artifact.Signature, _ *artifact.Descriptor) { s.KeyID = "00" },
		"another subject":    func(_ *artifact.Signature, d *artifact.Descriptor) { d.Digest = other },
		"no subject":         func(_ *artifact.Signature, d *artifact.Descriptor) { *d = artifact.Descriptor{} },
		"no type":            func(_ *artifact.Signature, d *artifact.Descriptor) { d.MediaType = "" },
		"no size":            func(_ *artifact.Signature, d *artifact.Descriptor) { d.Size = 0 },
	} {
		s, d := good, subject
		change(&s, &d)
		if _, _, err := b.Compose(s, d); !fault.Is(err, fault.Permanent) {
			t.Errorf("%s: Compose() = %v, want a permanent fault", name, err)
		}
	}
	m, pieces, err := b.Compose(good, subject)
	if err != nil || len(pieces) != 2 || pieces[1].Digest != artifact.DigestOf([]byte("{}")) || m.Digest != artifact.DigestOf(m.Raw) || m.MediaType != manifestType {
		t.Errorf("Compose() = %+v, %d blobs, %v, want a manifest, the bundle and the configuration", m, len(pieces), err)
	}
	if d, err := artifact.Describe(m.Raw, m.MediaType); err != nil || !d.Accessory || d.Subject != digest {
		t.Errorf("Describe() = %+v, %v, want an accessory of %s: a signer that takes it for an image signs for ever", d, err, digest)
	}
}

// Whatever is signed, by whichever key, verifies after composing, and composing twice gives the same bytes.
func TestComposeThenVerify(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(loadedKeys()))
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(names).Draw(rt, "key")
		c := artifact.Claim{
			Digest:      artifact.DigestOf(rapid.SliceOf(rapid.Byte()).Draw(rt, "content")),
			Annotations: rapid.MapOf(rapid.String(), rapid.String()).Draw(rt, "annotations"),
		}
		b := newBundles(t, active(name))
		s := sign(t, name, artifact.Bundle, c)
		d := artifact.Descriptor{
			MediaType: rapid.SampledFrom([]string{manifestType, "application/vnd.docker.distribution.manifest.list.v2+json"}).Draw(rt, "type"),
			Digest:    c.Digest, Size: rapid.Int64Range(1, artifact.MaxManifest).Draw(rt, "size"),
		}
		m, pieces, err := b.Compose(s, d)
		if err != nil {
			rt.Fatal(err)
		}
		again, _, err := b.Compose(s, d)
		if err != nil || !bytes.Equal(again.Raw, m.Raw) {
			rt.Errorf("Compose() gives\n%s, then\n%s, %v", m.Raw, again.Raw, err)
		}
		got, err := b.Verify(t.Context(), m, artifact.Claim{Digest: c.Digest}, fetchPieces(pieces))
		if err != nil || len(got) != 1 || got[0].KeyID != s.KeyID || !bytes.Equal(got[0].Payload, s.Payload) || !bytes.Equal(got[0].Bytes, s.Bytes) {
			rt.Errorf("Verify() = %+v, %v, want the signature", got, err)
		}
	})
}
