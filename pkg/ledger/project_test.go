package ledger_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestProjectEventOf(t *testing.T) {
	e := ledgertest.ProjectEvent(artifact.PolicyChanged, "demo")
	e.Actor, e.Origin, e.Reason, e.Detail = "ann", artifact.OriginAPI, "reason", "detail"
	e.Time = ledgertest.Epoch().Add(1999 * time.Nanosecond).In(time.FixedZone("east", 3600))
	e.Change = &artifact.Change{Before: json.RawMessage(`{"a": 1}`), From: "192.0.2.1"}
	e.Sweep = &artifact.Sweep{StartedAt: e.Time, Population: 7, Digest: "d"}
	got, ok := ledger.ProjectEventOf(artifact.Entry{Seq: 9, Event: e})
	at := ledgertest.Epoch().Add(time.Microsecond)
	want := ledger.ProjectEvent{
		Seq: 9, Project: "demo", Kind: artifact.PolicyChanged, At: at, Actor: "ann", Origin: artifact.OriginAPI, Reason: "reason", Detail: "detail",
		Change: &artifact.Change{Before: json.RawMessage(`{"a":1}`), From: "192.0.2.1"},
		Sweep:  &artifact.Sweep{StartedAt: at, Population: 7, Digest: "d"},
	}
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("ProjectEventOf() = %+v, %t; want %+v", got, ok, want)
	}
	for _, kind := range ledgertest.ProjectKinds() {
		entry := artifact.Entry{Seq: 1, Event: ledgertest.ProjectEvent(kind, "")}
		if got, ok := ledger.ProjectEventOf(entry); !ok || got.Kind != kind || got.Project != "" || got.Change != nil || got.Sweep != nil {
			t.Errorf("ProjectEventOf(%s) = %+v, %t; want one about all projects", kind, got, ok)
		}
		if ledger.Projects(entry) {
			t.Errorf("Projects(%s) = true, want false: it changes no row", kind)
		}
	}
	for _, entry := range []artifact.Entry{
		{Seq: 1}, {Seq: 1, Event: received(1)}, {Seq: 1, Event: ledgertest.ProjectEvent("of_the_future", "demo")},
	} {
		if got, ok := ledger.ProjectEventOf(entry); ok {
			t.Errorf("ProjectEventOf(%+v) = %+v, want none", entry.Event, got)
		}
	}
}

// TestDeadLettersAreInTheHistory has what somebody did to the dead letter of a manifest stand in the history of its project.
func TestDeadLettersAreInTheHistory(t *testing.T) {
	ref := ledgertest.Ref("demo/team/app", 1)
	for _, kind := range []artifact.Kind{artifact.Replayed, artifact.Discarded} {
		e := ledgertest.Event(kind, ref)
		e.Actor, e.Detail, e.Project = "ann", "why", "not the word of the event"
		e.Change = &artifact.Change{Before: json.RawMessage(`{"id":7}`), From: "cli"}
		want := ledger.ProjectEvent{
			Seq: 9, Project: "demo", Kind: kind, Repository: "demo/team/app", Digest: ref.Digest(), At: ledgertest.Epoch(), Actor: "ann",
			Origin: e.Origin, Detail: "why", Change: &artifact.Change{Before: json.RawMessage(`{"id":7}`), From: "cli"},
		}
		if got, ok := ledger.ProjectEventOf(artifact.Entry{Seq: 9, Event: e}); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("ProjectEventOf(%s) = %+v, %t; want %+v", kind, got, ok, want)
		}
		e.Canary = true
		if got, ok := ledger.ProjectEventOf(artifact.Entry{Seq: 9, Event: e}); ok {
			t.Errorf("ProjectEventOf(%s) of a canary = %+v, want none", kind, got)
		}
	}
}

func TestChangesAreBounded(t *testing.T) {
	quoted := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, tt := range []struct {
		name, raw, want string
	}{
		{"nothing", "", ""},
		{"null", " null", ""},
		{"an object", "{ \"a\" : [ 1 , 2 ] }\n", `{"a":[1,2]}`},
		{"as much as is kept", quoted(64 << 10), quoted(64 << 10)},
		{"more", quoted(64<<10 + 1), `{"note":"left out: 65537 bytes are more than the 65536 that are kept"}`},
		{"more once it is storable", `"` + strings.Repeat("<", 11000) + `"`, `{"note":"left out: 66002 bytes are more than the 65536 that are kept"}`},
		{"no JSON", "{", `{"note":"left out: it is no JSON"}`},
		{"two values", "1 2", `{"note":"left out: it is no JSON"}`},
		{"NUL", "\x00", `{"note":"left out: it is no JSON"}`},
		{"invalid text", "\"\xff\"", `"` + "\uFFFD" + `"`},
		{"what breaks out of a page", `"</script>"`, `"\u003c/script\u003e"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := ledgertest.ProjectEvent(artifact.Paused, "demo")
			e.Change = &artifact.Change{Before: json.RawMessage(tt.raw), After: json.RawMessage(tt.raw)}
			got, _ := ledger.ProjectEventOf(artifact.Entry{Seq: 1, Event: e})
			if string(got.Change.Before) != tt.want || string(got.Change.After) != tt.want {
				t.Errorf("change = %.200s, %.200s; want %.200s", got.Change.Before, got.Change.After, tt.want)
			}
		})
	}
}

// FuzzChange: whatever stands in an event, it can be written as JSON, and reading that gives the same.
func FuzzChange(f *testing.F) {
	for _, seed := range []string{"", "null", `{"a":"<"}`, "\"\u2028\"", "\"\xff\"", "{", "1e999", strings.Repeat("[", 20000)} {
		f.Add(seed, int64(0))
	}
	f.Add("{}", int64(math.MaxInt64))
	f.Add("{}", int64(253402300800)) // the year 10000
	f.Add("{}", int64(-62135596801)) // the year 0
	f.Fuzz(func(t *testing.T, raw string, seconds int64) {
		e := ledgertest.ProjectEvent(artifact.Swept, "demo")
		e.Change = &artifact.Change{Before: json.RawMessage(raw), From: raw}
		e.Sweep = &artifact.Sweep{StartedAt: time.Unix(seconds, 0), Digest: raw}
		want, ok := ledger.ProjectEventOf(artifact.Entry{Seq: 1, Event: e})
		if !ok {
			t.Fatal("ProjectEventOf() gives nothing")
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatalf("Marshal(%+v): %v", want, err)
		}
		var got ledger.ProjectEvent
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s reads as %+v, %v; want %+v", text, got, err, want)
		}
	})
}

func TestEventFilterRefuses(t *testing.T) {
	cursor := ledger.EventFilter{Project: "demo"}.Cursor(7)
	f, err := ledger.EventQuery{Project: "demo", Limit: 3, Cursor: cursor}.Filter()
	if want := (ledger.EventFilter{Project: "demo", Limit: 3, Before: 7}); err != nil || f != want {
		t.Errorf("Filter() = %+v, %v; want %+v", f, err, want)
	}
	rows, err := ledger.Query{Project: "demo"}.Filter()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		q     ledger.EventQuery
		field string
	}{
		{"project", ledger.EventQuery{Project: "de mo"}, "project"},
		{"limit", ledger.EventQuery{Limit: 1001}, "limit"},
		{"cursor", ledger.EventQuery{Project: "demo", Cursor: cursor[1:]}, "cursor"},
		{"cursor of another project", ledger.EventQuery{Project: "other", Cursor: cursor}, "cursor"},
		{"cursor of all projects", ledger.EventQuery{Project: "demo", Cursor: ledger.EventFilter{}.Cursor(7)}, "cursor"},
		{"cursor of rows", ledger.EventQuery{Project: "demo", Cursor: rows.Cursor(ledger.Place{At: ledgertest.Epoch(), FirstSeq: 1})}, "cursor"},
		{"cursor without a place", ledger.EventQuery{Project: "demo", Cursor: ledger.EventFilter{Project: "demo"}.Cursor(0)}, "cursor"},
		{"cursor beyond a database", ledger.EventQuery{Project: "demo", Cursor: ledger.EventFilter{Project: "demo"}.Cursor(1 << 63)}, "cursor"},
	} {
		_, err := tt.q.Filter()
		if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("%s: error %v, want one about %s", tt.name, err, tt.field)
		}
	}
}

// TestCoverageInJSON holds the names that the API shows.
func TestCoverageInJSON(t *testing.T) {
	var c ledger.Coverage
	c.Count(ledger.Signed, 3, ledgertest.Epoch())
	c.Count(ledger.Dead, 2, ledgertest.Epoch().Add(time.Second))
	c.Count(ledger.Unsigned, 1, ledgertest.Epoch().Add(time.Hour))
	c.Count(ledger.Gone, 5, ledgertest.Epoch())
	c.Count(ledger.Pending, 0, ledgertest.Epoch())
	c.Owe(2, ledgertest.Epoch())
	c.Owe(1, ledgertest.Epoch().Add(time.Second))
	c.Owe(0, ledgertest.Epoch().Add(-time.Second))
	c.Swept(ledger.ProjectEvent{At: ledgertest.Epoch(), Sweep: &artifact.Sweep{StartedAt: ledgertest.Epoch(), Population: 7, HarborCount: 8}})
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"population": 6.0, "signed": 3.0, "pending": 0.0, "failed": 2.0, "excluded": 0.0, "blocked": 0.0, "unsigned": 1.0,
		"oldest_unsigned_at": "2026-01-31T12:00:01Z", "log_debt": 3.0, "oldest_log_debt_at": "2026-01-31T12:00:00Z",
		"last_sweep": map[string]any{
			"finished_at": "2026-01-31T12:00:00Z", "started_at": "2026-01-31T12:00:00Z", "population": 7.0, "harbor_count": 8.0,
			"pushed": 0.0, "deleted": 0.0, "signed": 0.0, "requested": 0.0, "pending": 0.0, "failed": 0.0, "excluded": 0.0, "blocked": 0.0,
			"unsigned": 0.0, "gone": 0.0, "removed": 0.0, "verified": 0.0, "retired": 0.0, "requests": 0.0,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("coverage = %s, want %v", text, want)
	}
}
