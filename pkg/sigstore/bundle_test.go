package sigstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	predicateNote = "dev.sigstore.bundle.predicateType"
	statementType = "application/vnd.in-toto+json"
)

type object = map[string]any

// in gives the object at a path of names and indices, which must be there.
func in(o any, path ...any) object {
	for _, step := range path {
		switch at := step.(type) {
		case string:
			fields, _ := o.(object)
			o = fields[at]
		case int:
			items, _ := o.([]any)
			o = items[at]
		}
	}
	found, ok := o.(object)
	if !ok {
		panic(fmt.Sprintf("no object at %v", path))
	}
	return found
}

// statementOf is what a bundle's signature is over.
func statementOf() object {
	return object{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": signPredicate, "predicate": object{},
		"subject": []any{object{"digest": object{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
	}
}

// bundleOf is a bundle over a statement, signed by a key.
func bundleOf(tb testing.TB, key *keys.Key, statement []byte, payloadType string) object {
	tb.Helper()
	pae := append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(statement)), statement...)
	signature, err := key.Sign(tb.Context(), pae)
	if err != nil {
		tb.Fatal(err)
	}
	id, err := hex.DecodeString(key.ID())
	if err != nil {
		tb.Fatal(err)
	}
	return object{
		"mediaType":            bundleType,
		"verificationMaterial": object{"publicKey": object{"hint": base64.StdEncoding.EncodeToString(id)}},
		"dsseEnvelope":         object{"payload": statement, "payloadType": payloadType, "signatures": []any{object{"sig": signature}}},
	}
}

func mustMarshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// carrier is a manifest that carries a bundle.
func carrier(raw []byte) object {
	return object{
		"schemaVersion": 2, "mediaType": manifestType, "artifactType": bundleType,
		"config":  object{"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": artifact.DigestOf([]byte("{}"))},
		"layers":  []any{object{"mediaType": bundleType, "size": len(raw), "digest": artifact.DigestOf(raw)}},
		"subject": object{"mediaType": manifestType, "size": 418, "digest": digest},
	}
}

func manifestFrom(o object) artifact.Manifest {
	raw := mustMarshal(o)
	return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
}

func TestBundleSaysYes(t *testing.T) {
	t.Parallel()
	for name, key := range loadedKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := claim()
			c.Annotations = map[string]string{"team": "<a>", "b": "\u2028"}
			for _, c := range []artifact.Claim{claim(), c} {
				s := sign(t, name, artifact.Bundle, c)
				m, pieces := compose(t, s)
				for state, b := range map[string]*sigstore.Bundles{
					"active": newBundles(t, active(name)), "verify-only": newBundles(t, verifyOnly(name)),
					"one of many": newBundles(t, allBut(name, verifyOnly(name))...),
				} {
					// The annotations that are configured now are not those that were signed.
					got, err := b.Verify(t.Context(), m, claim(), fetchPieces(pieces))
					if err != nil || len(got) != 1 || got[0].KeyID != key.ID() || got[0].Format != artifact.Bundle ||
						!bytes.Equal(got[0].Payload, s.Payload) || !bytes.Equal(got[0].Bytes, s.Bytes) {
						t.Errorf("%s: Verify() = %+v, %v, want the signature", state, got, err)
					}
				}
				got, err := newBundles(t, allBut(name, revoked(name))...).Verify(t.Context(), m, claim(), fetchPieces(pieces))
				if err != nil || len(got) != 0 {
					t.Errorf("revoked: Verify() = %+v, %v, want none", got, err)
				}
			}
		})
	}
}

// allBut are all keys but one, and then that one in a state of its own.
func allBut(name string, k sigstore.NamedKey) []sigstore.NamedKey {
	var named []sigstore.NamedKey
	for other := range loadedKeys() {
		if other != name {
			named = append(named, verifyOnly(other))
		}
	}
	return append(named, k)
}

func TestBundleSaysNo(t *testing.T) {
	t.Parallel()
	key := loadedKeys()["p256"]
	ours := newBundles(t, active("p256"), verifyOnly("p384"), verifyOnly("ed25519"), revoked("second"))
	good := func() object { return bundleOf(t, key, mustMarshal(statementOf()), statementType) }
	stating := func(change func(object)) []byte {
		o := statementOf()
		change(o)
		return mustMarshal(bundleOf(t, key, mustMarshal(o), statementType))
	}
	bundled := func(change func(object)) []byte {
		o := good()
		change(o)
		return mustMarshal(o)
	}
	subject := func(o object) object { return in(o, "subject", 0) }
	envelope := func(o object) object { return in(o, "dsseEnvelope") }
	material := func(o object) object { return in(o, "verificationMaterial") }
	hex64 := strings.TrimPrefix(digest, "sha256:")

	for name, raw := range map[string][]byte{
		"garbage":                    []byte("hello"),
		"empty":                      {},
		"empty object":               []byte("{}"),
		"truncated":                  mustMarshal(good())[:400],
		"something behind it":        append(mustMarshal(good()), "{}"...),
		"another digest":             stating(func(o object) { subject(o)["digest"] = object{"sha256": strings.TrimPrefix(other, "sha256:")} }),
		"attestation by our own key": stating(func(o object) { o["predicateType"] = "https://slsa.dev/provenance/v1" }),
		"no predicate type":          stating(func(o object) { delete(o, "predicateType") }),
		"a predicate":                stating(func(o object) { o["predicate"] = object{"revoked": true} }),
		"another type of statement":  stating(func(o object) { o["_type"] = "https://in-toto.io/Statement/v0.1" }),
		"no subject":                 stating(func(o object) { o["subject"] = []any{} }),
		"two subjects": stating(func(o object) {
			o["subject"] = []any{subject(o), object{"digest": object{"sha256": strings.TrimPrefix(other, "sha256:")}}}
		}),
		"the same subject twice":         stating(func(o object) { o["subject"] = []any{subject(o), subject(o)} }),
		"no digest":                      stating(func(o object) { subject(o)["digest"] = object{} }),
		"digest of another algorithm":    stating(func(o object) { subject(o)["digest"] = object{"sha512": hex64} }),
		"two digests":                    stating(func(o object) { subject(o)["digest"] = object{"sha256": hex64, "sha512": hex64 + hex64} }),
		"digest in upper case":           stating(func(o object) { subject(o)["digest"] = object{"sha256": strings.ToUpper(hex64)} }),
		"unknown field of the statement": stating(func(o object) { o["not"] = true }),
		"unknown field of the subject":   stating(func(o object) { subject(o)["not"] = true }),
		"statement that is no JSON":      mustMarshal(bundleOf(t, key, []byte("hello"), statementType)),
		"empty statement":                mustMarshal(bundleOf(t, key, nil, statementType)),
		"legacy payload in an envelope":  mustMarshal(bundleOf(t, key, cosignPayload(t, identity, digest, nil), statementType)),
		"another payload type":           mustMarshal(bundleOf(t, key, mustMarshal(statementOf()), "application/json")),
		"payload type changed":           bundled(func(o object) { envelope(o)["payloadType"] = "application/json" }),
		"payload changed":                bundled(func(o object) { envelope(o)["payload"] = append(mustMarshal(statementOf()), ' ') }),
		"two signatures": bundled(func(o object) {
			envelope(o)["signatures"] = slices.Repeat([]any{in(o, "dsseEnvelope", "signatures", 0)}, 2)
		}),
		"no signature":         bundled(func(o object) { envelope(o)["signatures"] = []any{} }),
		"empty signature":      bundled(func(o object) { envelope(o)["signatures"] = []any{object{"sig": ""}} }),
		"signature of garbage": bundled(func(o object) { envelope(o)["signatures"] = []any{object{"sig": "aGVsbG8="}} }),
		"huge signature":       bundled(func(o object) { envelope(o)["signatures"] = []any{object{"sig": bytes.Repeat([]byte("a"), 1025)}} }),
		"null signature":       bundled(func(o object) { envelope(o)["signatures"] = []any{nil} }),
		"signed without DSSE":  bundled(func(o object) { envelope(o)["signatures"] = []any{object{"sig": bare(t, key)}} }),
		"wrong key":            mustMarshal(bundleOf(t, loadedKeys()["rsa"], mustMarshal(statementOf()), statementType)),
		"wrong key with our hint": bundled(func(o object) {
			o["dsseEnvelope"] = bundleOf(t, loadedKeys()["rsa"], mustMarshal(statementOf()), statementType)["dsseEnvelope"]
		}),
		"revoked key":                       mustMarshal(bundleOf(t, loadedKeys()["second"], mustMarshal(statementOf()), statementType)),
		"no envelope":                       bundled(func(o object) { delete(o, "dsseEnvelope") }),
		"a message signature":               bundled(func(o object) { delete(o, "dsseEnvelope"); o["messageSignature"] = object{"signature": "aGVsbG8="} }),
		"both contents":                     bundled(func(o object) { o["messageSignature"] = object{"signature": "aGVsbG8="} }),
		"no material":                       bundled(func(o object) { delete(o, "verificationMaterial") }),
		"a certificate instead of a key":    bundled(func(o object) { o["verificationMaterial"] = object{"certificate": object{"rawBytes": "aGVsbG8="}} }),
		"a log entry that cannot be read":   bundled(func(o object) { material(o)["tlogEntries"] = []any{object{}} }),
		"unknown field of the bundle":       bundled(func(o object) { o["not"] = true }),
		"unknown field of the material":     bundled(func(o object) { material(o)["not"] = true }),
		"unknown field of the envelope":     bundled(func(o object) { envelope(o)["not"] = true }),
		"another type of bundle":            bundled(func(o object) { o["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }),
		"an older type of bundle":           bundled(func(o object) { o["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }),
		"no type":                           bundled(func(o object) { delete(o, "mediaType") }),
		"envelope twice":                    bytes.Replace(mustMarshal(good()), []byte(`{"dsse`), []byte(`{"dsseEnvelope":{},"dsse`), 1),
		"oversized payload":                 stating(func(o object) { subject(o)["annotations"] = object{"a": strings.Repeat("x", 64<<10)} }),
		"oversized bundle":                  bundled(func(o object) { material(o)["publicKey"] = object{"hint": strings.Repeat("x", sigstore.MaxBundle)} }),
		"a legacy signature in its place":   cosignPayload(t, identity, digest, nil),
		"statement with a name given twice": mustMarshal(bundleOf(t, key, bytes.Replace(mustMarshal(statementOf()), []byte(`{"_type"`), []byte(`{"predicateType":"x","_type"`), 1), statementType)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ours.Verify(t.Context(), manifestFrom(carrier(raw)), claim(), blobs(raw))
			if err != nil || len(got) != 0 {
				t.Errorf("Verify() = %+v, %v, want neither signature nor error, of\n%.1000s", got, err, raw)
			}
		})
	}
	// What the table changes must be all that is wrong.
	for name, raw := range map[string][]byte{
		"as it is":           mustMarshal(good()),
		"indented":           indented(t, mustMarshal(good())),
		"no hint":            bundled(func(o object) { material(o)["publicKey"] = object{} }),
		"a hint of another":  bundled(func(o object) { material(o)["publicKey"] = object{"hint": "aGVsbG8="} }),
		"a hint that is odd": bundled(func(o object) { material(o)["publicKey"] = object{"hint": "%%%"} }),
		"a key id":           bundled(func(o object) { in(o, "dsseEnvelope", "signatures", 0)["keyid"] = "x" }),
		"no predicate":       stating(func(o object) { delete(o, "predicate") }),
		"a named subject":    stating(func(o object) { subject(o)["name"] = "demo/app" }),
		"annotations":        stating(func(o object) { subject(o)["annotations"] = object{"a": 1, "b": object{"c": nil}} }),
	} {
		if got, err := ours.Verify(t.Context(), manifestFrom(carrier(raw)), claim(), blobs(raw)); err != nil || len(got) != 1 {
			t.Errorf("%s: Verify() = %d signatures, %v, want 1", name, len(got), err)
		}
	}
}

// bare is a signature over the statement without the encoding that DSSE asks for.
func bare(tb testing.TB, key *keys.Key) []byte {
	tb.Helper()
	signature, err := key.Sign(tb.Context(), mustMarshal(statementOf()))
	if err != nil {
		tb.Fatal(err)
	}
	return signature
}

func indented(tb testing.TB, raw []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestBundleManifestSaysNo(t *testing.T) {
	t.Parallel()
	b := newBundles(t, active("p256"))
	raw := mustMarshal(bundleOf(t, loadedKeys()["p256"], mustMarshal(statementOf()), statementType))
	valid := manifestFrom(carrier(raw))
	changed := func(change func(object)) artifact.Manifest {
		o := carrier(raw)
		change(o)
		return manifestFrom(o)
	}
	layer := func(o object) object { return in(o, "layers", 0) }
	for name, m := range map[string]artifact.Manifest{
		"empty":                    {},
		"garbage accessory":        {Raw: []byte(`{"artifactType":"` + bundleType + `"}`)},
		"truncated":                {Raw: valid.Raw[:len(valid.Raw)-1]},
		"oversized":                {Raw: append(bytes.Repeat([]byte(" "), artifact.MaxManifest), valid.Raw...)},
		"an index":                 {Raw: []byte(`{"schemaVersion":2,"manifests":[],"artifactType":"` + bundleType + `"}`)},
		"no subject":               changed(func(o object) { delete(o, "subject") }),
		"another subject":          changed(func(o object) { in(o, "subject")["digest"] = other }),
		"subject that is none":     changed(func(o object) { o["subject"] = 7 }),
		"no artifact type":         changed(func(o object) { delete(o, "artifactType") }),
		"another artifact type":    changed(func(o object) { o["artifactType"] = "application/spdx+json" }),
		"artifact type is a list":  changed(func(o object) { o["artifactType"] = []any{bundleType} }),
		"no layer":                 changed(func(o object) { o["layers"] = []any{} }),
		"two layers":               changed(func(o object) { o["layers"] = []any{layer(o), layer(o)} }),
		"1,001 layers":             changed(func(o object) { o["layers"] = slices.Repeat([]any{layer(o)}, 1001) }),
		"layers twice":             {Raw: bytes.Replace(valid.Raw, []byte(`{`), []byte(`{"layers":[],`), 1)},
		"layer that is none":       changed(func(o object) { o["layers"] = []any{7} }),
		"layer of another type":    changed(func(o object) { layer(o)["mediaType"] = "application/octet-stream" }),
		"layer without digest":     changed(func(o object) { delete(layer(o), "digest") }),
		"layer's digest is none":   changed(func(o object) { layer(o)["digest"] = "sha256:zz" }),
		"layer of no size":         changed(func(o object) { delete(layer(o), "size") }),
		"layer of a negative size": changed(func(o object) { layer(o)["size"] = -1 }),
		"layer above the limit":    changed(func(o object) { layer(o)["size"] = sigstore.MaxBundle + 1 }),
		"a legacy signature":       manifestOf(t, layerOf(t, loadedKeys()["p256"], cosignPayload(t, identity, digest, nil))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := b.Verify(t.Context(), m, claim(), noFetch(t)); err != nil || len(got) != 0 {
				t.Errorf("Verify() = %d signatures, %v, want neither", len(got), err)
			}
		})
	}
	moved := claim()
	moved.Digest = other
	if got, err := b.Verify(t.Context(), valid, moved, noFetch(t)); err != nil || len(got) != 0 {
		t.Errorf("Verify() for another digest = %d signatures, %v, want neither", len(got), err)
	}
	wrongSize := changed(func(o object) { layer(o)["size"] = len(raw) + 1 })
	if got, err := b.Verify(t.Context(), wrongSize, claim(), blobs(raw)); err != nil || len(got) != 0 {
		t.Errorf("Verify() with a wrong size = %d signatures, %v, want neither", len(got), err)
	}
	swapped := func(context.Context, string) ([]byte, error) { return raw, nil }
	wrongDigest := changed(func(o object) { layer(o)["digest"] = other })
	if got, err := b.Verify(t.Context(), wrongDigest, claim(), swapped); err != nil || len(got) != 0 {
		t.Errorf("Verify() with a wrong digest = %d signatures, %v, want neither", len(got), err)
	}
	if got, err := b.Verify(t.Context(), valid, claim(), blobs(raw)); err != nil || len(got) != 1 {
		t.Errorf("Verify() of what the table starts from = %d signatures, %v, want 1", len(got), err)
	}
}

func TestBundleFetchFails(t *testing.T) {
	t.Parallel()
	b := newBundles(t, active("p256"))
	m, _ := compose(t, sign(t, "p256", artifact.Bundle, claim()))
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{fault.Newf(fault.Transient, fault.Unreachable, "no connection"), true},
		{fault.Newf(fault.Permanent, fault.Denied, "no right"), true},
		{errors.New("plain"), true},
		{fault.Newf(fault.Gone, fault.NotFound, "no blob"), false},
		{fault.Newf(fault.Permanent, fault.TooLarge, "too large"), false},
	} {
		got, err := b.Verify(t.Context(), m, claim(), func(context.Context, string) ([]byte, error) { return nil, tt.err })
		if len(got) != 0 || errors.Is(err, tt.err) != tt.want || (err != nil) != tt.want {
			t.Errorf("Verify() after %v = %d signatures, %v, want an error: %v", tt.err, len(got), err, tt.want)
		}
	}
}

// FuzzBundleVerify holds us to sigstore-go: what we count, it must accept too.
func FuzzBundleVerify(f *testing.F) {
	b := newBundles(f, active("p256"), verifyOnly("ed25519"))
	for _, name := range []string{"p256", "ed25519"} {
		_, pieces := compose(f, sign(f, name, artifact.Bundle, claim()))
		f.Add(pieces[0].Raw)
		f.Add(indented(f, pieces[0].Raw))
		f.Add(bytes.Replace(pieces[0].Raw, []byte(`{"publicKey"`), []byte(`{"tlogEntries":[],"timestampVerificationData":{},"publicKey"`), 1))
		f.Add(bytes.Replace(pieces[0].Raw, []byte(`"dsseEnvelope"`), []byte(`"dsse_envelope"`), 1))
	}
	f.Add([]byte(`{"mediaType":"` + bundleType + `"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 || len(raw) > sigstore.MaxBundle {
			return
		}
		got, err := b.Verify(t.Context(), manifestFrom(carrier(raw)), claim(), blobs(raw))
		if err != nil {
			t.Fatalf("Verify() = %v, want a signature or none", err)
		}
		for _, s := range got {
			name := "p256"
			if s.KeyID == loadedKeys()["ed25519"].ID() {
				name = "ed25519"
			}
			if err := sigstoreGoVerifies(t, raw, sha256Verifier(t, rawKeys()[name].Public()), digest); err != nil {
				t.Errorf("we count what sigstore-go refuses: %v\n%s", err, raw)
			}
			if !newRing(t, active("p256"), verifyOnly("ed25519")).Valid(s, claim()) {
				t.Errorf("Valid(%+v) = false, want what Verify() says", s)
			}
		}
	})
}
