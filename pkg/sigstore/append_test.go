package sigstore_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

type testLayer struct {
	MediaType   string
	Size        int
	Digest      string
	Annotations map[string]string
}

func parseLayer(tb testing.TB, raw json.RawMessage) testLayer {
	tb.Helper()
	var l testLayer
	if err := json.Unmarshal(raw, &l); err != nil {
		tb.Fatalf("not a layer: %v\n%s", err, raw)
	}
	return l
}

type testManifest struct {
	Config json.RawMessage
	Layers []json.RawMessage
}

func parse(tb testing.TB, raw []byte) testManifest {
	tb.Helper()
	var m testManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		tb.Fatalf("the manifest is no JSON: %v\n%s", err, raw)
	}
	return m
}

// recording is a signature that cosign v2.6.5 attached to an image in a real Harbor.
func recording(tb testing.TB) artifact.Manifest {
	tb.Helper()
	raw, err := os.ReadFile("testdata/cosign-v2-legacy.json")
	if err != nil {
		tb.Fatal(err)
	}
	return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
}

func TestPayloadIsCosigns(t *testing.T) {
	t.Parallel()
	layer := parseLayer(t, parse(t, recording(t).Raw).Layers[0])
	s := sign(t, "p256", artifact.Legacy, artifact.Claim{Identity: "127.0.0.1:18080/demo/sig-v2-legacy", Digest: digest})
	if got := artifact.DigestOf(s.Payload); got != layer.Digest || len(s.Payload) != layer.Size {
		t.Errorf("payload has the digest %s and %d bytes, cosign's has %s and %d:\n%s", got, len(s.Payload), layer.Digest, layer.Size, s.Payload)
	}
	for _, annotations := range []map[string]string{nil, {}, {"team": "a"}, {"z": "<&>", "a": "\u2028 \"ä", "": ""}} {
		c := claim()
		c.Annotations = annotations
		s := sign(t, "p256", artifact.Legacy, c)
		if want := cosignPayload(t, identity, digest, annotations); !bytes.Equal(s.Payload, want) {
			t.Errorf("payload = %s, want cosign's %s", s.Payload, want)
		}
	}
}

func TestTag(t *testing.T) {
	t.Parallel()
	got := newLegacy(t, active("p256")).Tag(digest)
	if want := "sha256-" + strings.TrimPrefix(digest, "sha256:") + ".sig"; got != want || !artifact.IsAccessoryTag(got) {
		t.Errorf("Tag() = %q, want %q", got, want)
	}
}

func TestAppendToNothing(t *testing.T) {
	t.Parallel()
	m, pieces := attach(t, "p256", nil, claim())
	got := parse(t, m.Raw)
	const emptyConfig = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	if config := parseLayer(t, got.Config); config.Digest != emptyConfig || config.MediaType != "application/vnd.oci.image.config.v1+json" {
		t.Errorf("config = %+v, want the constant blob %s", config, emptyConfig)
	}
	if m.Digest != artifact.DigestOf(m.Raw) || m.MediaType != manifestType {
		t.Errorf("manifest says digest %s and type %s of itself", m.Digest, m.MediaType)
	}
	if len(pieces) != 2 || pieces[0].Digest != parseLayer(t, got.Layers[0]).Digest || pieces[1].Digest != emptyConfig {
		t.Errorf("blobs = %v, want the payload and the config", pieces)
	}
	for _, piece := range pieces {
		if piece.Digest != artifact.DigestOf(piece.Raw) {
			t.Errorf("blob %s hashes to %s", piece.Digest, artifact.DigestOf(piece.Raw))
		}
	}
	if d, err := artifact.Describe(m.Raw, m.MediaType); err != nil || !d.Accessory {
		t.Errorf("Describe() = %+v, %v, want an accessory: a signer that takes it for an image signs for ever", d, err)
	}
	again, _ := attach(t, "p256", nil, claim())
	if !bytes.Equal(m.Raw, again.Raw) {
		t.Errorf("the same input gives\n%s and\n%s", m.Raw, again.Raw)
	}
	same, pieces := attach(t, "p256", &m, claim())
	if same.Digest != m.Digest || !bytes.Equal(same.Raw, m.Raw) || pieces != nil {
		t.Errorf("appending what is there already gives\n%s and %d blobs, want\n%s and none", same.Raw, len(pieces), m.Raw)
	}
}

func TestAppendKeepsWhatItFinds(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"cosign's": string(recording(t).Raw),
		"unknown fields": `{"schemaVersion":2,"x":[{"layers":[1]}],"layers":[{"mediaType":"a","size":1,"digest":"` + other +
			`","urls":["u"],"annotations":{"b":"c","a":"<&>"}}],"annotations":{"z":"1"},"config":{}}`,
		"indented":       "{\n  \"config\": {},\n  \"layers\": [\n    {\"size\": 1.0e0}\n  ],\n  \"y\": \"\\u00e4]}\"\n}\n",
		"strange layers": `{"config":[],"layers":[1,"a",[],null,{"digest":7}]}`,
		"no layers":      `{"layers": [ ] }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := artifact.Manifest{MediaType: "some/type", Digest: artifact.DigestOf([]byte(raw)), Raw: []byte(raw)}
			after, pieces := attach(t, "p256", &before, claim())
			if len(pieces) != 1 {
				t.Errorf("%d blobs, want the payload alone: the configuration is somebody else's", len(pieces))
			}
			if after.MediaType != before.MediaType || after.Digest != artifact.DigestOf(after.Raw) {
				t.Errorf("manifest says digest %s and type %s of itself", after.Digest, after.MediaType)
			}
			checkInserted(t, before.Raw, after.Raw)
			again, pieces := attach(t, "p256", &after, claim())
			if !bytes.Equal(again.Raw, after.Raw) || pieces != nil {
				t.Errorf("appending twice gives\n%s\nwant\n%s", again.Raw, after.Raw)
			}
		})
	}
}

// checkInserted checks that after is before with one layer put in at one place, behind all the others.
func checkInserted(tb testing.TB, before, after []byte) {
	tb.Helper()
	common := 0
	for common < len(before) && before[common] == after[common] {
		common++
	}
	if tail := before[common:]; !bytes.HasSuffix(after, tail) {
		tb.Errorf("before:\n%s\nafter:\n%s\nwant an insertion at one place", before, after)
	}
	was, is := parse(tb, before).Layers, parse(tb, after).Layers
	if len(is) != len(was)+1 {
		tb.Fatalf("%d layers became %d, want one more", len(was), len(is))
	}
	if last := parseLayer(tb, is[len(is)-1]); last.MediaType != layerType || last.Annotations[annotation] == "" {
		tb.Errorf("%d layers became %d, want one more, our own at the end:\n%s", len(was), len(is), after)
	}
}

// A layer that only looks like our signature must not keep the real one out.
func TestAppendIsNotFooled(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	good := layerOf(t, loadedKeys()["p256"], cosignPayload(t, identity, digest, nil))
	for name, layer := range map[string]map[string]any{
		"another type": with(good, "mediaType", "application/octet-stream"),
		"wrong size":   with(good, "size", 3),
		"no size":      with(good, "size", -1),
	} {
		existing := manifestOf(t, layer)
		if got, err := l.Verify(t.Context(), existing, claim(), anyKey, noFetch(t)); err != nil || len(got) != 0 {
			t.Errorf("%s: Verify() = %d signatures, %v, want none", name, len(got), err)
		}
		m, _ := attach(t, "p256", &existing, claim())
		if got, err := l.Verify(t.Context(), m, claim(), anyKey, noFetch(t)); err != nil || len(got) != 1 {
			t.Errorf("%s: Verify() after Append = %d signatures, %v, want 1", name, len(got), err)
		}
		m, err := l.Merge(&existing, []artifact.Manifest{manifestOf(t, good)})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.Verify(t.Context(), m, claim(), anyKey, noFetch(t)); err != nil || len(got) != 1 {
			t.Errorf("%s: Verify() after Merge = %d signatures, %v, want 1", name, len(got), err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	s := sign(t, "p256", artifact.Legacy, claim())
	thousand := make([]any, 1000)
	for i := range thousand {
		thousand[i] = map[string]any{"digest": other}
	}
	valid := manifestOf(t).Raw
	for name, tt := range map[string]struct {
		raw  []byte
		want fault.Reason
	}{
		"1,000 layers":   {manifestOf(t, thousand...).Raw, fault.TooLarge},
		"full":           {bytes.Replace(valid, []byte("{"), append([]byte("{"), bytes.Repeat([]byte(" "), artifact.MaxManifest-len(valid))...), 1), fault.TooLarge},
		"oversized":      {append(bytes.Repeat([]byte(" "), artifact.MaxManifest), valid...), fault.TooLarge},
		"an image":       {manifestOf(t, map[string]any{"digest": other, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 9}).Raw, fault.Malformed},
		"Docker's image": {manifestOf(t, map[string]any{"digest": other, "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 9}).Raw, fault.Malformed},
		"no JSON":        {[]byte("<html>"), fault.Malformed},
		"empty":          {nil, fault.Malformed},
		"truncated":      {valid[:len(valid)-1], fault.Malformed},
		"an index":       {[]byte(`{"schemaVersion":2,"manifests":[]}`), fault.Malformed},
		"both":           {[]byte(`{"layers":[],"manifests":[]}`), fault.Malformed},
		"layers twice":   {[]byte(`{"layers":[],"layers":[]}`), fault.Malformed},
		"in two cases":   {[]byte(`{"layers":[],"Layers":[]}`), fault.Malformed},
		"in upper case":  {[]byte(`{"LAYERS":[]}`), fault.Malformed},
		"null layers":    {[]byte(`{"layers":null}`), fault.Malformed},
		"layers no list": {[]byte(`{"layers":{}}`), fault.Malformed},
		"a list":         {[]byte(`[]`), fault.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := l.Append(&artifact.Manifest{Raw: tt.raw}, s)
			if err == nil {
				t.Fatal("Append() succeeded")
			}
			if f := fault.Of(err); f.Kind != fault.Permanent || f.Reason != tt.want {
				t.Errorf("Append() = %s %s (%v), want %s %s", f.Kind, f.Reason, err, fault.Permanent, tt.want)
			}
		})
	}
}

// However signatures by several keys come together, and with whatever whitespace, nobody's is lost.
func TestAppendLosesNothing(t *testing.T) {
	t.Parallel()
	names := []string{"p256", "second", "p384", "ed25519", "rsa"}
	rapid.Check(t, func(rt *rapid.T) {
		order := rapid.SliceOfN(rapid.SampledFrom(names), 1, 12).Draw(rt, "order")
		var m *artifact.Manifest
		signers := make(map[string]bool)
		var trusted []sigstore.NamedKey
		for _, name := range order {
			if !signers[name] {
				trusted = append(trusted, verifyOnly(name))
			}
			signers[name] = true
			next, _ := attach(t, name, m, claim())
			if rapid.Bool().Draw(rt, "indent") {
				var b bytes.Buffer
				if err := json.Indent(&b, next.Raw, "", "  "); err != nil {
					rt.Fatal(err)
				}
				next.Raw = b.Bytes()
			}
			m = &next
		}
		got, err := newLegacy(t, trusted...).Verify(t.Context(), *m, claim(), anyKey, noFetch(t))
		if err != nil || len(got) != len(signers) {
			rt.Errorf("Verify() = %d signatures, %v, want one by each of %d keys", len(got), err, len(signers))
		}
	})
}
