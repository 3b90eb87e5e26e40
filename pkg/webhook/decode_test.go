package webhook_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// broken gives a valid delivery in which one value is replaced, or removed if it is nil; keys are the steps of the path, as in "resources.0.digest".
func broken(t *testing.T, format webhook.Format, path string, value any) string {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal([]byte(payload{}.encode(t, format)), &document); err != nil {
		t.Fatal(err)
	}
	steps := strings.Split(path, ".")
	var at any = document
	for _, step := range steps[:len(steps)-1] {
		if list, ok := at.([]any); ok {
			at = list[0]
			continue
		}
		at = at.(map[string]any)[step] //nolint:errcheck // a test's own document
	}
	last := steps[len(steps)-1]
	switch container := at.(type) {
	case []any:
		container[0] = value
	case map[string]any:
		container[last] = value
		if value == nil {
			delete(container, last)
		}
	}
	raw, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestDecodeNamesTheWrongField(t *testing.T) {
	many := make([]any, 17)
	for i := range many {
		many[i] = map[string]any{"digest": digestA, "tag": "v1"}
	}
	common := []struct {
		name, path string // below the data object
		value      any
		field      string
	}{
		{"no resources", "resources", nil, "resources"},
		{"empty resources", "resources", []any{}, "resources"},
		{"too many resources", "resources", many, "resources"},
		{"resources of a wrong type", "resources", "x", "resources"},
		{"resource of a wrong type", "resources.0", "x", "resources[0]"},
		{"null resource", "resources", []any{nil}, "resources[0]"},
		{"no digest", "resources.0.digest", nil, "resources[0].digest"},
		{"digest of another algorithm", "resources.0.digest", "sha512:" + strings.Repeat("a", 128), "resources[0].digest"},
		{"upper-case digest", "resources.0.digest", strings.ToUpper(digestA), "resources[0].digest"},
		{"digest of a wrong type", "resources.0.digest", 7, "resources[0].digest"},
		{"tag of a wrong type", "resources.0.tag", true, "resources[0].tag"},
		{"tag that is none", "resources.0.tag", "a b", "resources[0].tag"},
		{"tag that is another digest", "resources.0.tag", digestB, "resources[0].tag"},
		{"tag that is too long", "resources.0.tag", strings.Repeat("a", 129), "resources[0].tag"},
		{"no repository", "repository", nil, "repository"},
		{"repository of a wrong type", "repository", 3, "repository"},
		{"no namespace", "repository.namespace", nil, "repository.namespace"},
		{"another namespace", "repository.namespace", "other", "repository.namespace"},
		{"no full name", "repository.repo_full_name", nil, "repository.repo_full_name"},
		{"full name without a project", "repository.repo_full_name", "app", "repository.repo_full_name"},
		{"full name that climbs", "repository.repo_full_name", "demo/../app", "repository.repo_full_name"},
		{"full name with an encoded slash", "repository.repo_full_name", "demo/a%2fb", "repository.repo_full_name"},
	}
	for format, prefix := range map[webhook.Format]string{webhook.Default: "event_data", webhook.CloudEvents: "data"} {
		for _, tt := range common {
			t.Run(string(format)+"/"+tt.name, func(t *testing.T) {
				wantField(t, format, broken(t, format, prefix+"."+tt.path, tt.value), prefix+"."+tt.field)
			})
		}
	}
	heads := []struct {
		name   string
		format webhook.Format
		path   string
		value  any
	}{
		{"no type", webhook.Default, "type", nil},
		{"type of a wrong type", webhook.Default, "type", 1},
		{"no time", webhook.Default, "occur_at", nil},
		{"time as text", webhook.Default, "occur_at", "1795321920"},
		{"time in milliseconds", webhook.Default, "occur_at", 1795321920000},
		{"time before Harbor was", webhook.Default, "occur_at", 0},
		{"half a second", webhook.Default, "occur_at", 1795321920.5},
		{"no operator", webhook.Default, "operator", nil},
		{"operator of a wrong type", webhook.Default, "operator", []any{}},
		{"no data", webhook.Default, "event_data", nil},
		{"data of a wrong type", webhook.Default, "event_data", "x"},
		{"no version", webhook.CloudEvents, "specversion", nil},
		{"another version", webhook.CloudEvents, "specversion", "2.0"},
		{"no type", webhook.CloudEvents, "type", nil},
		{"no time", webhook.CloudEvents, "time", nil},
		{"time that is none", webhook.CloudEvents, "time", "yesterday"},
		{"time too late", webhook.CloudEvents, "time", "2200-01-01T00:00:00Z"},
		{"no operator", webhook.CloudEvents, "operator", nil},
		{"no data", webhook.CloudEvents, "data", nil},
		{"null data", webhook.CloudEvents, "data", json.RawMessage("null")},
	}
	for _, tt := range heads {
		t.Run(string(tt.format)+"/"+tt.name, func(t *testing.T) {
			wantField(t, tt.format, broken(t, tt.format, tt.path, tt.value), tt.path)
		})
	}
	for _, body := range []string{"", "{", "[]", `"x"`, "{}{}", "\xff"} {
		t.Run("no document "+body, func(t *testing.T) {
			wantField(t, webhook.Default, body, "")
			wantField(t, webhook.CloudEvents, body, "")
		})
	}
}

func wantField(t *testing.T, format webhook.Format, body, field string) {
	t.Helper()
	got, err := webhook.Decode(format, []byte(body))
	var wrong *webhook.FieldError
	if !errors.As(err, &wrong) {
		t.Fatalf("Decode(%.300s) = %+v, error %v; want a FieldError of %q", body, got, err, field)
	}
	if wrong.Field != field {
		t.Errorf("Decode(%.300s) names field %q (%v), want %q", body, wrong.Field, err, field)
	}
}

func TestDecodeIgnoresWhatItDoesNotKnow(t *testing.T) {
	body := broken(t, webhook.Default, "event_data.repository.colour", map[string]any{"type": 7})
	if d, err := webhook.Decode(webhook.Default, []byte(body)); err != nil || len(d.Pushes) != 1 {
		t.Errorf("Decode() = %+v, %v; want one push", d, err)
	}
	// Nothing but the type of another event is looked at: their shapes differ.
	for format, kind := range map[webhook.Format]string{webhook.Default: "QUOTA_EXCEED", webhook.CloudEvents: "harbor.quota.exceeded"} {
		d, err := webhook.Decode(format, []byte(`{"specversion":"1.0","type":"`+kind+`","event_data":3,"data":3,"time":3}`))
		if err != nil || d.Type != kind || d.Pushes != nil {
			t.Errorf("Decode(%s) = %+v, %v; want type %s and no push", format, d, err, kind)
		}
	}
}

func TestDecodeTime(t *testing.T) {
	tests := []struct {
		name, path string
		format     webhook.Format
		value      any
	}{
		{"seconds", "occur_at", webhook.Default, 1795321920},
		{"UTC", "time", webhook.CloudEvents, "2026-11-22T04:32:00Z"},
		{"another zone", "time", webhook.CloudEvents, "2026-11-22T05:32:00+01:00"},
		{"a fraction, which the other format does not have", "time", webhook.CloudEvents, "2026-11-22T04:32:00.999Z"},
	}
	want := time.Date(2026, 11, 22, 4, 32, 0, 0, time.UTC)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := webhook.Decode(tt.format, []byte(broken(t, tt.format, tt.path, tt.value)))
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Pushes[0].PushedAt; got != want {
				t.Errorf("PushedAt = %s, want %s", got, want)
			}
		})
	}
}

func TestDecodePusher(t *testing.T) {
	tests := []struct{ name, operator, want string }{
		{"robot", "robot$demo+pusher", "robot$demo+pusher"},
		{"other alphabets", "Ülo Õun 北", "Ülo Õun 北"},
		{"control characters", "a\x00b\nc\x7fd\u0085e", "a�b�c�d�e"},
		{"cut between characters", strings.Repeat("é", 200), strings.Repeat("é", 127)},
		{"long", strings.Repeat("x", 300), strings.Repeat("x", 255)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := webhook.Decode(webhook.Default, []byte(payload{operator: tt.operator}.encode(t, webhook.Default)))
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Pushes[0].Pusher; got != tt.want {
				t.Errorf("Pusher = %q, want %q", got, tt.want)
			}
		})
	}
}

// generated draws a valid push. Operators are text that is kept as it is.
func generated(t *rapid.T) payload {
	const component = `[a-z0-9]{1,8}([._-][a-z0-9]{1,5})?`
	p := payload{
		operator:   rapid.StringMatching(`[a-zA-Z$+ äß北-]{1,40}`).Draw(t, "operator"),
		repository: rapid.StringMatching(component+`(/`+component+`){1,3}`).Draw(t, "repository"),
		digest:     "sha256:" + rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "digest"),
		tag:        rapid.StringMatching(`[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}`).Draw(t, "tag"),
		at:         time.Unix(rapid.Int64Range(946684800, 7258118399).Draw(t, "at"), 0).UTC(),
	}
	if rapid.Bool().Draw(t, "by digest") {
		p.tag = p.digest
	}
	return p
}

func TestDecodeOfEncode(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := generated(rt)
		ref, err := artifact.NewRef(p.repository, p.digest)
		if err != nil {
			rt.Fatal(err)
		}
		want := webhook.Push{Ref: ref, Tag: p.tag, Pusher: p.operator, PushedAt: p.at}
		if p.tag == p.digest {
			want.Tag = ""
		}
		for _, format := range []webhook.Format{webhook.Default, webhook.CloudEvents} {
			d, err := webhook.Decode(format, []byte(p.encode(t, format)))
			if err != nil {
				rt.Fatalf("%s: Decode() error = %v", format, err)
			}
			if len(d.Pushes) != 1 || d.Pushes[0] != want || d.Project != ref.Project() {
				rt.Errorf("%s: Decode() = %+v, want project %s and one push %+v", format, d, ref.Project(), want)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, d := range recordings(f) {
		f.Add(d.contentType == "application/cloudevents+json", d.body)
	}
	f.Add(true, []byte(`{"specversion":"1.0","type":"harbor.artifact.pushed","time":null,"data":{"resources":[null]}}`))
	f.Add(false, []byte(payload{operator: "\x1b[31m", tag: digestA}.encode(f, webhook.Default)))
	f.Fuzz(func(t *testing.T, cloudEvents bool, body []byte) {
		format := webhook.Default
		if cloudEvents {
			format = webhook.CloudEvents
		}
		d, err := webhook.Decode(format, body)
		if err != nil {
			var wrong *webhook.FieldError
			if !errors.As(err, &wrong) || len(err.Error()) > 1000 {
				t.Errorf("error is %T %.2000q, want a FieldError of at most 1000 bytes", err, err)
			}
			return
		}
		for _, p := range d.Pushes {
			if again, err := artifact.ParseRef(p.Ref.String()); err != nil || again != p.Ref || p.Ref.Project() != d.Project {
				t.Errorf("push of %q in project %q is not valid: %v", p.Ref, d.Project, err)
			}
			if p.Tag != "" && artifact.ValidateTag(p.Tag) != nil {
				t.Errorf("tag %q is not valid", p.Tag)
			}
			if len(p.Pusher) > 255 || !utf8.ValidString(p.Pusher) || strings.ContainsAny(p.Pusher, "\x00\n\x1b") {
				t.Errorf("pusher %q is not fit for a record", p.Pusher)
			}
			if p.PushedAt.Year() < 2000 || p.PushedAt.Year() >= 2200 || p.PushedAt.Location() != time.UTC {
				t.Errorf("time %s is not sane", p.PushedAt)
			}
		}
	})
}
