package sigstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	layerType    = "application/vnd.dev.cosign.simplesigning.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	annotation   = "dev.cosignproject.cosign/signature"
)

func mustJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// cosignPayload is what cosign signs, by cosign's own code.
func cosignPayload(tb testing.TB, identity, digest string, annotations map[string]string) []byte {
	tb.Helper()
	ref, err := name.NewDigest(identity + "@" + digest)
	if err != nil {
		tb.Fatal(err)
	}
	var optional map[string]any
	if len(annotations) > 0 {
		optional = make(map[string]any)
		for k, v := range annotations {
			optional[k] = v
		}
	}
	return mustJSON(tb, payload.Cosign{Image: ref, Annotations: optional})
}

func layerOf(tb testing.TB, key *keys.Key, body []byte) map[string]any {
	tb.Helper()
	signature, err := key.Sign(tb.Context(), body)
	if err != nil {
		tb.Fatal(err)
	}
	return map[string]any{
		"mediaType": layerType, "size": len(body), "digest": artifact.DigestOf(body),
		"annotations": map[string]any{annotation: base64.StdEncoding.EncodeToString(signature)},
	}
}

func manifestOf(tb testing.TB, layers ...any) artifact.Manifest {
	tb.Helper()
	if layers == nil {
		layers = []any{}
	}
	raw := mustJSON(tb, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "layers": layers,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": artifact.DigestOf([]byte("{}"))},
	})
	return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
}

func with(layer map[string]any, name string, value any) map[string]any {
	changed := maps.Clone(layer)
	changed[name] = value
	return changed
}

// blobs is a fetch from what is given.
func blobs(bodies ...[]byte) sigstore.Fetch {
	return func(_ context.Context, digest string) ([]byte, error) {
		for _, body := range bodies {
			if artifact.DigestOf(body) == digest {
				return body, nil
			}
		}
		return nil, fault.Newf(fault.Gone, fault.NotFound, "no blob %s", digest)
	}
}

func TestLegacySaysNo(t *testing.T) {
	t.Parallel()
	key, second := loadedKeys()["p256"], loadedKeys()["second"]
	ours := newLegacy(t, active("p256"))
	own := cosignPayload(t, identity, digest, nil)
	annotated := cosignPayload(t, identity, digest, map[string]string{"team": "a"})
	good := layerOf(t, key, own)
	garbage := make([]any, 1001)
	for i := range garbage {
		garbage[i] = map[string]any{"mediaType": layerType, "size": 3, "digest": other, "annotations": map[string]any{annotation: "AAAA"}}
	}
	garbage[0] = good
	huge := bytes.Replace(annotated, []byte(`"team"`), []byte(`"`+strings.Repeat("x", 65<<10)+`"`), 1)
	altered := func(old, new string) []byte { return bytes.Replace(annotated, []byte(old), []byte(new), 1) }
	wrongType := bytes.Replace(annotated, []byte("cosign container image signature"), []byte("atomic container signature"), 1)
	valid := manifestOf(t, good)

	for _, tt := range []struct {
		name     string
		manifest artifact.Manifest
		legacy   *sigstore.Legacy
		fetch    sigstore.Fetch
		body     []byte // signed by our key, in place of a manifest
	}{
		{name: "no layers", manifest: manifestOf(t)},
		{name: "garbage layer", manifest: manifestOf(t, map[string]any{"mediaType": "application/octet-stream", "size": 1, "digest": other})},
		{name: "layers that are none", manifest: manifestOf(t, 1, "a", nil, []any{}, with(good, "size", "1"), with(good, "digest", 7))},
		{name: "layer without signature", manifest: manifestOf(t, with(good, "annotations", map[string]any{}))},
		{name: "signature of garbage", manifest: manifestOf(t, with(good, "annotations", map[string]any{annotation: "aGVsbG8="}))},
		{name: "signature is no base64", manifest: manifestOf(t, with(good, "annotations", map[string]any{annotation: "%%%"}))},
		{name: "huge signature", manifest: manifestOf(t, with(good, "annotations", map[string]any{annotation: strings.Repeat("A", 1<<16)}))},
		{name: "layer of another type", manifest: manifestOf(t, with(good, "mediaType", "application/vnd.dsse.envelope.v1+json"))},
		{name: "digest is none", manifest: manifestOf(t, with(good, "digest", "sha256:zz"))},
		{name: "negative size", manifest: manifestOf(t, with(good, "size", -1))},
		{name: "another digest", manifest: manifestOf(t, layerOf(t, key, cosignPayload(t, identity, other, nil))), fetch: blobs(cosignPayload(t, identity, other, nil))},
		{name: "another repository", manifest: manifestOf(t, layerOf(t, key, cosignPayload(t, host+"/demo/copy", digest, nil))), fetch: blobs(cosignPayload(t, host+"/demo/copy", digest, nil))},
		{name: "another host", manifest: manifestOf(t, layerOf(t, key, cosignPayload(t, "other.example.com/demo/app", digest, nil))), fetch: blobs(cosignPayload(t, "other.example.com/demo/app", digest, nil))},
		{name: "another type of claim", manifest: manifestOf(t, layerOf(t, key, wrongType)), fetch: blobs(wrongType)},
		{name: "wrong key", manifest: manifestOf(t, layerOf(t, second, own))},
		{name: "wrong key, annotated", manifest: manifestOf(t, layerOf(t, second, annotated))},
		{
			name: "revoked key", manifest: manifestOf(t, layerOf(t, second, own)),
			legacy: newLegacy(t, active("p256"), revoked("second")),
		},
		{
			name: "revoked key, annotated", manifest: manifestOf(t, layerOf(t, second, annotated)),
			legacy: newLegacy(t, active("p256"), revoked("second")),
		},
		{name: "own payload, but the layer names another", manifest: manifestOf(t, with(good, "digest", other))},
		{
			name: "payload that does not match its layer", manifest: manifestOf(t, layerOf(t, key, annotated)),
			fetch: func(context.Context, string) ([]byte, error) { return own, nil },
		},
		{
			name: "signed payload under another digest", manifest: manifestOf(t, with(layerOf(t, loadedKeys()["ed25519"], annotated), "digest", other)),
			legacy: newLegacy(t, active("ed25519")),
			fetch:  func(context.Context, string) ([]byte, error) { return annotated, nil },
		},
		{
			name: "payload longer than its layer says", manifest: manifestOf(t, with(layerOf(t, key, annotated), "size", 1)),
			fetch: blobs(annotated),
		},
		{name: "payload that is gone", manifest: manifestOf(t, layerOf(t, key, annotated)), fetch: blobs()},
		{name: "payload above 64 KiB", manifest: manifestOf(t, layerOf(t, key, huge))},
		{
			name: "payload that the registry finds too large", manifest: manifestOf(t, layerOf(t, key, annotated)),
			fetch: func(context.Context, string) ([]byte, error) {
				return nil, fault.Newf(fault.Permanent, fault.TooLarge, "too large")
			},
		},
		{name: "another size than the payload's", manifest: manifestOf(t, with(good, "size", 3))},
		{name: "document in upper case", body: altered(`"critical"`, `"Critical"`)},
		{name: "member in upper case", body: altered(`"docker-reference"`, `"Docker-Reference"`)},
		{name: "unknown member of the document", body: altered(`"optional"`, `"not":true,"optional"`)},
		{name: "unknown member instead of optional", body: altered(`"optional"`, `"Optional"`)},
		{name: "no optional part", body: altered(`,"optional":{"team":"a"}`, ``)},
		{name: "critical part twice", body: altered(`"optional"`, `"critical":{},"optional"`)},
		{name: "digest twice", body: altered(`"docker-manifest-digest"`, `"docker-manifest-digest":"x","docker-manifest-digest"`)},
		{name: "type is a number", body: altered(`"cosign container image signature"`, `7`)},
		{name: "a list", body: []byte(`[]`)},
		{name: "unknown critical member", body: altered(`"type"`, `"not":true,"type"`)},
		{name: "unknown member of the image", body: altered(`"docker-manifest-digest"`, `"not":"x","docker-manifest-digest"`)},
		{name: "unknown member of the identity", body: altered(`"docker-reference"`, `"not":"x","docker-reference"`)},
		{name: "critical part is no object", body: altered(`"critical":{`, `"critical":7,"x":{`)},
		{name: "identity is no object", body: altered(`"identity":{`, `"identity":7,"x":{`)},
		{name: "something behind the document", body: append(bytes.Clone(annotated), "{}"...)},
		{name: "payload that is no JSON", manifest: manifestOf(t, layerOf(t, key, []byte("hello"))), fetch: blobs([]byte("hello"))},
		{name: "1,001 layers", manifest: manifestOf(t, garbage...)},
		{name: "truncated manifest", manifest: artifact.Manifest{Raw: valid.Raw[:len(valid.Raw)-1]}},
		{name: "oversized manifest", manifest: artifact.Manifest{Raw: append(bytes.Repeat([]byte(" "), artifact.MaxManifest), valid.Raw...)}},
		{name: "empty manifest", manifest: artifact.Manifest{}},
		{name: "an index", manifest: artifact.Manifest{Raw: []byte(`{"schemaVersion":2,"manifests":[]}`)}},
		{name: "an index with layers", manifest: artifact.Manifest{Raw: bytes.Replace(valid.Raw, []byte(`{`), []byte(`{"manifests":[],`), 1)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, fetch := tt.legacy, tt.fetch
			if l == nil {
				l = ours
			}
			if tt.body != nil {
				tt.manifest, fetch = manifestOf(t, layerOf(t, key, tt.body)), blobs(tt.body)
			}
			if fetch == nil {
				fetch = noFetch(t)
			}
			got, err := l.Verify(t.Context(), tt.manifest, claim(), anyKey, fetch)
			if err != nil || len(got) != 0 {
				t.Errorf("Verify() = %d signatures, error %v, want neither", len(got), err)
			}
		})
	}
	// What the table changes must be all that is wrong.
	if got, err := ours.Verify(t.Context(), valid, claim(), anyKey, noFetch(t)); err != nil || len(got) != 1 {
		t.Errorf("Verify() of the manifest that the table starts from = %d signatures, error %v, want 1", len(got), err)
	}
	if got, err := ours.Verify(t.Context(), manifestOf(t, 1, "a", good), claim(), anyKey, noFetch(t)); err != nil || len(got) != 1 {
		t.Errorf("Verify() beside garbage = %d signatures, error %v, want 1", len(got), err)
	}
	if got, err := ours.Verify(t.Context(), manifestOf(t, garbage[:1000]...), claim(), anyKey, noFetch(t)); err != nil || len(got) != 1 {
		t.Errorf("Verify() of 1,000 layers = %d signatures, error %v, want 1", len(got), err)
	}
}

func TestLegacySaysYes(t *testing.T) {
	t.Parallel()
	for name, key := range loadedKeys() {
		t.Run("own signature, "+name, func(t *testing.T) {
			t.Parallel()
			l := newLegacy(t, active(name))
			m, _ := attach(t, name, nil, claim())
			got, err := l.Verify(t.Context(), m, claim(), anyKey, noFetch(t))
			if err != nil || len(got) != 1 || got[0].KeyID != key.ID() || !bytes.Equal(got[0].Payload, cosignPayload(t, identity, digest, nil)) {
				t.Errorf("Verify() = %+v, %v, want one signature by %s", got, err, key.ID())
			}
		})
		t.Run("annotated payload, "+name, func(t *testing.T) {
			t.Parallel()
			body := cosignPayload(t, identity, digest, map[string]string{"commit": "abc"})
			l := newLegacy(t, verifyOnly(name))
			got, err := l.Verify(t.Context(), manifestOf(t, layerOf(t, key, body)), claim(), anyKey, blobs(body))
			if err != nil || len(got) != 1 || !bytes.Equal(got[0].Payload, body) {
				t.Errorf("Verify() = %+v, %v, want one signature", got, err)
			}
		})
	}
}

// Whatever is configured now, what was signed with it and without it needs no request.
func TestLegacyRecomputesPayloads(t *testing.T) {
	t.Parallel()
	annotated := claim()
	annotated.Annotations = map[string]string{"team": "a", "b": "<&>"}
	l := newLegacy(t, active("p256"), verifyOnly("ed25519"))
	m, _ := attach(t, "p256", nil, claim())
	m, _ = attach(t, "ed25519", &m, annotated)
	if got, err := l.Verify(t.Context(), m, annotated, anyKey, noFetch(t)); err != nil || len(got) != 2 {
		t.Errorf("Verify() = %d signatures, %v, want both", len(got), err)
	}
}

func TestLegacyFetchFails(t *testing.T) {
	t.Parallel()
	key := loadedKeys()["p256"]
	l := newLegacy(t, active("p256"))
	annotated := layerOf(t, key, cosignPayload(t, identity, digest, map[string]string{"a": "b"}))
	broken := fault.Newf(fault.Transient, fault.Unreachable, "no connection")
	fetch := func(context.Context, string) ([]byte, error) { return nil, broken }

	if got, err := l.Verify(t.Context(), manifestOf(t, annotated), claim(), anyKey, fetch); !errors.Is(err, broken) || len(got) != 0 {
		t.Errorf("Verify() = %d signatures, %v, want the failure of the fetch: cannot tell is not no", len(got), err)
	}
	valid := layerOf(t, key, cosignPayload(t, identity, digest, nil))
	for _, m := range []artifact.Manifest{manifestOf(t, annotated, valid), manifestOf(t, valid, annotated)} {
		if got, err := l.Verify(t.Context(), m, claim(), anyKey, fetch); err != nil || len(got) != 1 {
			t.Errorf("Verify() = %d signatures, %v, want the one that needs no fetch", len(got), err)
		}
	}
}

func TestLegacyFindsAllKeys(t *testing.T) {
	t.Parallel()
	key, second := loadedKeys()["p256"], loadedKeys()["second"]
	l := newLegacy(t, active("p256"), verifyOnly("second"))
	own := cosignPayload(t, identity, digest, nil)
	m := manifestOf(t, layerOf(t, second, own), layerOf(t, loadedKeys()["p384"], own), layerOf(t, key, own))
	got, err := l.Verify(t.Context(), m, claim(), anyKey, noFetch(t))
	if err != nil || len(got) != 2 || got[0].KeyID != second.ID() || got[1].KeyID != key.ID() {
		t.Errorf("Verify() = %+v, %v, want the signatures by %s and %s", got, err, second.ID(), key.ID())
	}
}

func FuzzLegacyVerify(f *testing.F) {
	key := loadedKeys()["p256"]
	l := newLegacy(f, active("p256"), verifyOnly("ed25519"))
	own := cosignPayload(f, identity, digest, nil)
	f.Add(manifestOf(f, layerOf(f, key, own)).Raw)
	f.Add(manifestOf(f, layerOf(f, loadedKeys()["ed25519"], own)).Raw)
	f.Add(manifestOf(f).Raw)
	f.Add([]byte(`{"layers":[{"mediaType":"` + layerType + `"}],"Layers":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := artifact.Manifest{Raw: raw}
		got, err := l.Verify(t.Context(), m, claim(), anyKey, blobs(own))
		if err != nil {
			t.Fatalf("Verify() = %v, want signatures or none", err)
		}
		for _, s := range got {
			if s.KeyID != key.ID() && s.KeyID != loadedKeys()["ed25519"].ID() || !bytes.Contains(s.Payload, []byte(digest)) {
				t.Errorf("Verify() gives a signature by %s over %q", s.KeyID, s.Payload)
			}
		}
		s := sign(t, "p256", artifact.Legacy, claim())
		appended, _, err := l.Append(&m, s)
		if err != nil {
			return
		}
		// Whatever could be appended to carries our signature afterwards, and those that it had.
		after, err := l.Verify(t.Context(), appended, claim(), anyKey, blobs(own))
		if err != nil || len(after) < max(1, len(got)) {
			t.Errorf("after Append, Verify() = %d signatures, %v, want at least %d\n%s", len(after), err, max(1, len(got)), appended.Raw)
		}
	})
}
