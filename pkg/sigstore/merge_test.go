package sigstore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// foreign is a layer as another program might have written it.
func foreign(n int, more map[string]string) map[string]any {
	annotations := map[string]any{annotation: fmt.Sprintf("c2lnbmF0dXJl%04d", n)}
	for k, v := range more {
		annotations[k] = v
	}
	return map[string]any{"mediaType": layerType, "size": 3, "digest": foreignDigest(n), "annotations": annotations}
}

func foreignDigest(n int) string { return artifact.DigestOf(fmt.Appendf(nil, "%d", n)) }

// signaturesIn lists the signatures of a manifest with all their annotations, by what makes them what they are.
func signaturesIn(tb testing.TB, m artifact.Manifest) map[string]map[string]string {
	tb.Helper()
	found := make(map[string]map[string]string)
	for _, raw := range parse(tb, m.Raw).Layers {
		if l := parseLayer(tb, raw); l.MediaType == layerType {
			found[l.Digest+" "+l.Annotations[annotation]] = l.Annotations
		}
	}
	return found
}

func TestMerge(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	a, b := manifestOf(t, foreign(1, nil)), manifestOf(t, foreign(2, nil), foreign(3, nil))
	both := manifestOf(t, foreign(3, nil), foreign(1, nil))
	certified := foreign(4, map[string]string{"dev.sigstore.cosign/certificate": "-----BEGIN…", "dev.sigstore.cosign/bundle": `{"x":"<&>"}`})
	recorded := recording(t)
	garbage := []artifact.Manifest{
		{},
		{Raw: []byte("<html>")},
		{Raw: a.Raw[:len(a.Raw)-1]},
		{Raw: append(bytes.Repeat([]byte(" "), artifact.MaxManifest), a.Raw...)},
		{Raw: []byte(`{"schemaVersion":2,"manifests":[]}`)},
		{Raw: bytes.Replace(a.Raw, []byte(`{`), []byte(`{"Layers":[],`), 1)},
		manifestOf(t),
		manifestOf(t, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1, "digest": other}),
		manifestOf(t, with(foreign(9, nil), "annotations", map[string]any{})),
		manifestOf(t, with(foreign(9, nil), "digest", "sha256:zz")),
		manifestOf(t, with(foreign(9, nil), "size", -1)),
		manifestOf(t, manyLayers(1001)...),
	}
	for name, tt := range map[string]struct {
		current *artifact.Manifest
		others  []artifact.Manifest
		want    int
		same    bool // the current one itself
	}{
		"nothing":                    {nil, nil, 0, false},
		"nothing but garbage":        {nil, garbage, 0, false},
		"garbage is passed over":     {&a, garbage, 1, true},
		"no others":                  {&a, nil, 1, true},
		"itself":                     {&a, []artifact.Manifest{a}, 1, true},
		"all there":                  {&both, []artifact.Manifest{a}, 2, true},
		"one lacks":                  {&a, []artifact.Manifest{both}, 2, false},
		"two lack":                   {&a, append(slices.Clone(garbage), b, both), 3, false},
		"no current one":             {nil, append(slices.Clone(garbage), b), 2, false},
		"no current one, two others": {nil, []artifact.Manifest{b, a}, 3, false},
		"annotations":                {&a, []artifact.Manifest{manifestOf(t, certified)}, 2, false},
		"cosign's, into ours":        {&a, []artifact.Manifest{recorded}, 2, false},
		"ours, into cosign's":        {&recorded, []artifact.Manifest{a, b}, 4, false},
		"a thousand":                 {&a, []artifact.Manifest{manifestOf(t, manyLayers(1000)...)}, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := l.Merge(tt.current, tt.others)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == 0 {
				if got.Raw != nil || got.Digest != "" {
					t.Errorf("Merge() = %+v, want the zero Manifest", got)
				}
				return
			}
			if n := len(signaturesIn(t, got)); n != tt.want || got.Digest != artifact.DigestOf(got.Raw) || got.MediaType != manifestType {
				t.Errorf("Merge() gives %d signatures as %s with type %q, want %d as %s:\n%.500s", n, got.Digest, got.MediaType, tt.want, artifact.DigestOf(got.Raw), got.Raw)
			}
			if same := tt.current != nil && got.Digest == tt.current.Digest && bytes.Equal(got.Raw, tt.current.Raw); same != tt.same {
				t.Errorf("Merge() equals the current one: %v, want %v", same, tt.same)
			}
		})
	}
	got, err := l.Merge(&a, []artifact.Manifest{manifestOf(t, certified)})
	if err != nil {
		t.Fatal(err)
	}
	layers := parse(t, got.Raw).Layers
	if want := mustJSON(t, certified); !bytes.Equal(layers[len(layers)-1], want) {
		t.Errorf("the merged layer is\n%s, want it as it was\n%s", layers[len(layers)-1], want)
	}
}

func manyLayers(n int) []any {
	layers := make([]any, n)
	for i := range layers {
		layers[i] = foreign(i+1, nil)
	}
	return layers
}

func TestMergeTakesTheFullerLayer(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	current := manifestOf(t, foreign(99, nil))
	// Some of the plain manifests come before their fuller ones, some behind them.
	for n := range 16 {
		plain, logged := manifestOf(t, foreign(n, nil)), manifestOf(t, foreign(n, map[string]string{"dev.sigstore.cosign/bundle": "{}"}))
		for _, others := range [][]artifact.Manifest{{plain, logged}, {logged, plain}} {
			got, err := l.Merge(&current, others)
			if err != nil {
				t.Fatal(err)
			}
			layers := parse(t, got.Raw).Layers
			if last := parseLayer(t, layers[len(layers)-1]); len(layers) != 2 || last.Annotations["dev.sigstore.cosign/bundle"] == "" {
				t.Errorf("Merge() gives %d layers, the last is %+v, want 2 and the one with its log entry", len(layers), last)
			}
		}
		if got, err := l.Merge(&plain, []artifact.Manifest{logged}); err != nil || !bytes.Equal(got.Raw, plain.Raw) {
			t.Errorf("Merge() = %s, %v, want the current manifest: it stays as it is", got.Raw, err)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	full := manifestOf(t, manyLayers(1000)...)
	more := manifestOf(t, foreign(2000, nil))
	wide := manifestOf(t, foreign(1, map[string]string{"x": strings.Repeat("x", artifact.MaxManifest-1000)}))
	for name, tt := range map[string]struct {
		current artifact.Manifest
		others  []artifact.Manifest
		want    fault.Reason
	}{
		"1,001 signatures":         {full, []artifact.Manifest{more}, fault.TooLarge},
		"more than 4 MiB":          {wide, []artifact.Manifest{manifestOf(t, foreign(2, map[string]string{"y": strings.Repeat("y", 1000)}))}, fault.TooLarge},
		"current is oversized":     {artifact.Manifest{Raw: append(bytes.Repeat([]byte(" "), artifact.MaxManifest), full.Raw...)}, nil, fault.TooLarge},
		"current is no JSON":       {artifact.Manifest{Raw: []byte("<html>")}, []artifact.Manifest{more}, fault.Malformed},
		"current is empty":         {artifact.Manifest{}, []artifact.Manifest{more}, fault.Malformed},
		"current is an index":      {artifact.Manifest{Raw: []byte(`{"schemaVersion":2,"manifests":[]}`)}, []artifact.Manifest{more}, fault.Malformed},
		"current is ambiguous":     {artifact.Manifest{Raw: []byte(`{"layers":[],"Layers":[]}`)}, []artifact.Manifest{more}, fault.Malformed},
		"malformed, nothing to do": {artifact.Manifest{Raw: []byte(`[]`)}, nil, fault.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := l.Merge(&tt.current, tt.others)
			if err == nil {
				t.Fatal("Merge() succeeded")
			}
			if f := fault.Of(err); f.Kind != fault.Permanent || f.Reason != tt.want {
				t.Errorf("Merge() = %s %s (%v), want %s %s", f.Kind, f.Reason, err, fault.Permanent, tt.want)
			}
		})
	}
	if got, err := l.Merge(&full, []artifact.Manifest{full}); err != nil || !bytes.Equal(got.Raw, full.Raw) {
		t.Errorf("Merge() of what is full, with nothing to add = %v, want itself", err)
	}
}

// Whatever the others are, merging them loses nothing, does not depend on their order, and is done after one time.
func TestMergeIsAUnion(t *testing.T) {
	t.Parallel()
	l := newLegacy(t, active("p256"))
	draw := func(rt *rapid.T, label string) artifact.Manifest {
		var layers []any
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 6), 1, 5).Draw(rt, label) {
			more := map[string]string{}
			if rapid.Bool().Draw(rt, "logged") {
				more["dev.sigstore.cosign/bundle"] = rapid.SampledFrom([]string{"{}", "[]"}).Draw(rt, "bundle")
			}
			layers = append(layers, foreign(n, more))
		}
		m := manifestOf(t, layers...)
		if rapid.Bool().Draw(rt, "indent") {
			var b bytes.Buffer
			if err := json.Indent(&b, m.Raw, "", "  "); err != nil {
				rt.Fatal(err)
			}
			m.Raw = b.Bytes()
			m.Digest = artifact.DigestOf(m.Raw)
		}
		return m
	}
	rapid.Check(t, func(rt *rapid.T) {
		var current *artifact.Manifest
		if rapid.Bool().Draw(rt, "there is one") {
			m := draw(rt, "current")
			current = &m
		}
		others := make([]artifact.Manifest, rapid.IntRange(1, 5).Draw(rt, "others"))
		for i := range others {
			others[i] = draw(rt, "other")
		}
		got, err := l.Merge(current, others)
		if err != nil {
			rt.Fatal(err)
		}
		want := make(map[string]map[string]string)
		for _, m := range others {
			maps.Copy(want, signaturesIn(t, m))
		}
		if current != nil {
			maps.Copy(want, signaturesIn(t, *current))
			prefix := current.Raw[:bytes.LastIndexByte(current.Raw, ']')]
			if trimmed := bytes.TrimSpace(prefix); !bytes.HasPrefix(got.Raw, trimmed) {
				rt.Errorf("what was there is\n%s, and now\n%s", current.Raw, got.Raw)
			}
		}
		have := signaturesIn(t, got)
		for id := range want {
			if have[id] == nil {
				rt.Errorf("%s is lost", id)
			}
		}
		if len(have) != len(want) {
			rt.Errorf("%d signatures, want %d", len(have), len(want))
		}
		again, err := l.Merge(&got, others)
		if err != nil || !bytes.Equal(again.Raw, got.Raw) {
			rt.Errorf("merging twice gives\n%s, then\n%s, %v", got.Raw, again.Raw, err)
		}
		shuffled := append(rapid.Permutation(others).Draw(rt, "order"), others[0])
		same, err := l.Merge(current, shuffled)
		if err != nil || !bytes.Equal(same.Raw, got.Raw) {
			rt.Errorf("in another order:\n%s, %v, want\n%s", same.Raw, err, got.Raw)
		}
	})
}

func FuzzMerge(f *testing.F) {
	l := newLegacy(f, active("p256"))
	base := manifestOf(f, foreign(1, nil))
	f.Add(base.Raw, manifestOf(f, foreign(2, nil)).Raw)
	f.Add(base.Raw, []byte(`{"layers":[{"mediaType":"`+layerType+`"}],"Layers":[]}`))
	f.Add([]byte(`{"layers": [ ], "x": {"layers":[1]}}`), manifestOf(f, foreign(2, map[string]string{"a": "<&>"})).Raw)
	f.Fuzz(func(t *testing.T, current, added []byte) {
		others := []artifact.Manifest{{Raw: added}, base}
		m, err := l.Merge(&artifact.Manifest{Raw: current}, others)
		if err != nil {
			if kind := fault.Of(err).Kind; kind != fault.Permanent {
				t.Errorf("Merge() = %s (%v), want a permanent fault", kind, err)
			}
			return
		}
		again, err := l.Merge(&m, others)
		if err != nil || !bytes.Equal(again.Raw, m.Raw) {
			t.Errorf("merging twice gives\n%s, then\n%s, %v", m.Raw, again.Raw, err)
		}
		if len(m.Raw) < len(current) || len(m.Raw) > artifact.MaxManifest {
			t.Errorf("%d bytes became %d", len(current), len(m.Raw))
		}
		if !bytes.Contains(m.Raw, []byte(foreignDigest(1))) {
			t.Errorf("a signature is lost in\n%s", m.Raw)
		}
	})
}
