package artifact_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const digest = "sha256:" + hex64

func TestParseRef(t *testing.T) {
	tests := []struct {
		name, in string
		project  string
		path     string
		wantErr  string
	}{
		{"plain", "demo/app@" + digest, "demo", "app", ""},
		{"nested", "demo/team/app@" + digest, "demo", "team/app", ""},
		{"dots and digits", "0.9-a_b/x__y---z@" + digest, "0.9-a_b", "x__y---z", ""},
		{"all digits", "2024/app@" + digest, "2024", "app", ""},
		{"no digest", "demo/app:v1", "", "", "no @"},
		{"no repository", "demo@" + digest, "", "", "want project/name"},
		{"empty component", "demo//app@" + digest, "", "", "not valid"},
		{"path traversal", "demo/../app@" + digest, "", "", "not valid"},
		{"upper case", "Demo/app@" + digest, "", "", "only a-z"},
		{"three underscores", "demo/a___b@" + digest, "", "", "not valid"},
		{"trailing dash", "demo/a-@" + digest, "", "", "not valid"},
		{"mixed separators", "demo/a.-b@" + digest, "", "", "not valid"},
		{"percent", "demo/a%2fb@" + digest, "", "", "not valid"},
		{"sha512", "demo/app@sha512:" + hex64 + hex64, "", "", "want sha256"},
		{"short digest", "demo/app@sha256:abc", "", "", "want sha256"},
		{"upper-case digest", "demo/app@sha256:" + strings.ToUpper(hex64), "", "", "want sha256"},
		{"two digests", "demo/app@" + digest + "@" + digest, "", "", "want sha256"},
		{"long", "demo/" + strings.Repeat("a", 600) + "@" + digest, "", "", "at most 512"},
		{"newline", "demo/app\n@" + digest, "", "", "not valid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := artifact.ParseRef(tt.in)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("ParseRef(%q) error = %v, want one with %q", tt.in, err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseRef(%q): %v", tt.in, err)
			}
			if got.Project() != tt.project || got.Name() != tt.path || got.String() != tt.in || got.Digest() != digest {
				t.Errorf("ParseRef(%q) = project %q, name %q, digest %q, string %q", tt.in, got.Project(), got.Name(), got.Digest(), got)
			}
		})
	}
}

func TestAccessoryTags(t *testing.T) {
	for tag, want := range map[string]bool{
		"sha256-" + hex64 + ".sig": true, "sha256-" + hex64 + ".att": true, "sha256-" + hex64 + ".sbom": true,
		"sha256-" + hex64: false, "sha256-" + hex64 + ".signature": false, "sha256-abc.sig": false,
		"x-sha256-" + hex64 + ".sig": false, "sha256-" + strings.ToUpper(hex64) + ".sig": false, "v1": false, "": false,
	} {
		if got := artifact.IsAccessoryTag(tag); got != want {
			t.Errorf("IsAccessoryTag(%q) = %t, want %t", tag, got, want)
		}
	}
}

func TestValidateTag(t *testing.T) {
	for tag, want := range map[string]bool{
		"v1": true, "_x": true, "V1.0-rc_1": true, strings.Repeat("a", 128): true,
		"": false, ".x": false, "-x": false, "a b": false, "a/b": false, "a\nb": false, "ä": false, strings.Repeat("a", 129): false,
	} {
		if err := artifact.ValidateTag(tag); (err == nil) != want {
			t.Errorf("ValidateTag(%q) = %v, want valid: %t", tag, err, want)
		}
	}
}

func refs() *rapid.Generator[artifact.Ref] {
	component := rapid.StringMatching(`[a-z0-9]{1,6}([._-][a-z0-9]{1,4}){0,2}`)
	return rapid.Custom(func(t *rapid.T) artifact.Ref {
		name := component.Draw(t, "project")
		for range rapid.IntRange(1, 3).Draw(t, "depth") {
			name += "/" + component.Draw(t, "component")
		}
		ref, err := artifact.NewRef(name, "sha256:"+rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "hex"))
		if err != nil {
			t.Fatalf("NewRef(%q): %v", name, err)
		}
		return ref
	})
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := artifact.Request{
			Version: artifact.Version, Ref: refs().Draw(t, "ref"),
			Lane:   rapid.SampledFrom([]artifact.Lane{artifact.Live, artifact.Bulk}).Draw(t, "lane"),
			Origin: artifact.OriginWebhook, Actor: rapid.String().Draw(t, "actor"),
			CorrelationID: rapid.StringN(1, 20, 40).Draw(t, "correlation"),
			RequestedAt:   time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), 0).UTC(),
			ReceivedSeq:   rapid.Uint64().Draw(t, "seq"), Parent: digest, Depth: rapid.IntRange(0, 3).Draw(t, "depth"),
		}
		data, err := artifact.EncodeRequest(want)
		if err != nil {
			t.Fatalf("EncodeRequest: %v", err)
		}
		got, err := artifact.DecodeRequest(data)
		if err != nil {
			t.Fatalf("DecodeRequest(%s): %v", data, err)
		}
		if got != want {
			t.Errorf("round trip gives %+v, want %+v", got, want)
		}
	})
}

func TestEnvelopeVersions(t *testing.T) {
	ref, err := artifact.ParseRef("demo/app@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	request, err := artifact.EncodeRequest(artifact.Request{Ref: ref, Lane: artifact.Live, CorrelationID: "c", RequestedAt: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	event, err := artifact.EncodeEvent(artifact.Event{ID: "i", Kind: artifact.Signed, Ref: ref, Time: time.Unix(1, 0), CorrelationID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	decoders := map[string]struct {
		good   []byte
		decode func([]byte) error
	}{
		"request": {request, func(b []byte) error { _, err := artifact.DecodeRequest(b); return err }},
		"event":   {event, func(b []byte) error { _, err := artifact.DecodeEvent(b); return err }},
	}
	for name, d := range decoders {
		t.Run(name, func(t *testing.T) {
			if err := d.decode(d.good); err != nil {
				t.Errorf("this version: %v", err)
			}
			var fields map[string]any
			if err := json.Unmarshal(d.good, &fields); err != nil {
				t.Fatal(err)
			}
			fields["added_later"] = "x"
			if err := d.decode(encode(t, fields)); err != nil {
				t.Errorf("an unknown field: %v, want none", err)
			}
			// A newer envelope may differ in everything else.
			if err := d.decode([]byte(`{"v":2,"ref":{"changed":"shape"}}`)); !errors.Is(err, artifact.ErrNewerVersion) {
				t.Errorf("a newer version: %v, want ErrNewerVersion", err)
			}
			for missing := range fields {
				if slices.Contains([]string{"added_later", "origin", "actor", "result"}, missing) { // older programs leave some out
					continue
				}
				broken := map[string]any{}
				for k, v := range fields {
					if k != missing {
						broken[k] = v
					}
				}
				err := d.decode(encode(t, broken))
				if err == nil || errors.Is(err, artifact.ErrNewerVersion) || !strings.Contains(err.Error(), missing) {
					t.Errorf("without %s: %v, want an error that names it", missing, err)
				}
			}
		})
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEventIDs(t *testing.T) {
	ref, err := artifact.ParseRef("demo/app@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	id := artifact.EventID(artifact.Signed, ref, "a", "bc")
	if got := artifact.EventID(artifact.Signed, ref, "a", "bc"); got != id {
		t.Errorf("the same parts give %s and %s", id, got)
	}
	for name, other := range map[string]string{
		"other split": artifact.EventID(artifact.Signed, ref, "ab", "c"),
		"other kind":  artifact.EventID(artifact.Failed, ref, "a", "bc"),
		"other ref":   artifact.EventID(artifact.Signed, artifact.Ref{}, "a", "bc"),
		"more parts":  artifact.EventID(artifact.Signed, ref, "a", "bc", ""),
	} {
		if other == id {
			t.Errorf("%s gives the same id %s", name, id)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("demo/app@" + digest)
	f.Add("demo/team/app@sha256:00")
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := artifact.ParseRef(s)
		if err != nil {
			return
		}
		if ref.String() != s {
			t.Errorf("ParseRef(%q).String() = %q", s, ref)
		}
		if strings.ContainsAny(s, " %\n\\?#") || strings.Contains(s, "..") {
			t.Errorf("ParseRef(%q) lets through what does not belong into a path", s)
		}
	})
}
