package ledger_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func outageEvent(at time.Time, o artifact.OutageRecord) artifact.Event {
	e := ledgertest.ProjectEvent(artifact.Outage, "")
	e.Time, e.Outage = at, &o
	return e
}

func TestOutageOf(t *testing.T) {
	at := ledgertest.Epoch()
	east := time.FixedZone("east", 3600)
	ended := at.Add(time.Minute + 999).In(east)
	e := outageEvent(at.Add(time.Hour), artifact.OutageRecord{
		Dependency: "log/rekor", Program: "signer", Instance: "s1", StartedAt: at.In(east), DetectedAt: at.Add(15*time.Second + 1), EndedAt: &ended,
		Cause: "dns", Detail: "no such host\x00", Waiting: math.MaxUint64, Deferred: 3,
	})
	want := at.Add(time.Minute)
	got, ok := ledger.OutageOf(artifact.Entry{Seq: 7, Event: e})
	if w := (ledger.Outage{
		Seq: 7, LastSeq: 7, Dependency: "log/rekor", Program: "signer", Instance: "s1", StartedAt: at, DetectedAt: at.Add(15 * time.Second), EndedAt: &want,
		Cause: "dns", Detail: "no such host\uFFFD", Waiting: math.MaxInt64, Deferred: 3,
	}); !ok || !reflect.DeepEqual(got, w) {
		t.Errorf("OutageOf() = %+v, %t; want %+v", got, ok, w)
	}
	e.Outage = &artifact.OutageRecord{EndedAt: &time.Time{}}
	got, ok = ledger.OutageOf(artifact.Entry{Seq: 7, Event: e})
	if when := at.Add(time.Hour); !ok || got.StartedAt != when || got.DetectedAt != when || got.EndedAt == nil || *got.EndedAt != when {
		t.Errorf("OutageOf() without times = %+v, %t; want those of the event", got, ok)
	}
	e.Canary = true
	none := ledgertest.ProjectEvent(artifact.Outage, "")
	other := ledgertest.ProjectEvent(artifact.Drifted, "demo")
	other.Outage = &artifact.OutageRecord{Dependency: "x"}
	for _, event := range []artifact.Event{{}, received(1), none, e, other} {
		if got, ok := ledger.OutageOf(artifact.Entry{Seq: 1, Event: event}); ok {
			t.Errorf("OutageOf(%+v) = %+v, want none", event, got)
		}
	}
}

// TestOutagesMerge: the records of one outage say the same in any order.
func TestOutagesMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []ledger.Outage
		for i := range rapid.IntRange(1, 5).Draw(t, "records") {
			o := ledger.Outage{Seq: uint64(i) + 1, LastSeq: uint64(i) + 1, Waiting: rapid.Uint64().Draw(t, "waiting")}
			if rapid.Bool().Draw(t, "ended") {
				at := ledgertest.Epoch().Add(time.Duration(i) * time.Second)
				o.EndedAt = &at
			}
			records = append(records, o)
		}
		want := records[0]
		for _, o := range records { // the last one with an end, or else the last one
			if want.EndedAt == nil || o.EndedAt != nil {
				want = o
			}
		}
		want.Seq = 1
		order := rapid.Permutation(append(records, records...)).Draw(t, "order")
		got := order[0]
		for _, o := range order[1:] {
			got = got.Merge(o)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("merged = %+v, want %+v", got, want)
		}
	})
}

func TestOutageFilterRefuses(t *testing.T) {
	at := ledgertest.Epoch()
	cursor := ledger.OutageFilter{Dependency: "log/rekor"}.Cursor(7)
	f, err := ledger.OutageQuery{Dependency: "log/rekor", Limit: 3, Cursor: cursor}.Filter()
	if want := (ledger.OutageFilter{Dependency: "log/rekor", Limit: 3, Before: 7}); err != nil || f != want {
		t.Errorf("Filter() = %+v, %v; want %+v", f, err, want)
	}
	for _, tt := range []struct {
		name  string
		q     ledger.OutageQuery
		field string
	}{
		{"dependency", ledger.OutageQuery{Dependency: "a\nb"}, "dependency"},
		{"dependency that is no text", ledger.OutageQuery{Dependency: "\xff"}, "dependency"},
		{"long dependency", ledger.OutageQuery{Dependency: strings.Repeat("x", 513)}, "dependency"},
		{"no time between", ledger.OutageQuery{Since: at, Until: at}, "until"},
		{"limit", ledger.OutageQuery{Limit: 1001}, "limit"},
		{"cursor", ledger.OutageQuery{Cursor: cursor[1:]}, "cursor"},
		{"cursor of other filters", ledger.OutageQuery{Cursor: cursor}, "cursor"},
		{"cursor of another period", ledger.OutageQuery{Dependency: "log/rekor", Since: at, Cursor: cursor}, "cursor"},
		{"cursor of events", ledger.OutageQuery{Cursor: ledger.EventFilter{}.Cursor(7)}, "cursor"},
	} {
		_, err := tt.q.Filter()
		if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("%s: error %v, want one about %s", tt.name, err, tt.field)
		}
	}
}

// FuzzOutage: whatever stands in an event, it can be written as JSON, and reading that gives the same.
func FuzzOutage(f *testing.F) {
	for _, seconds := range []int64{0, math.MaxInt64, math.MinInt64, 253402300800, -62135596801, -1, 1769860800} {
		f.Add("log/rekor", seconds, uint64(1))
		f.Add("\xff\x00\u2028", seconds, uint64(math.MaxUint64))
	}
	f.Fuzz(func(t *testing.T, text string, seconds int64, count uint64) {
		when := time.Unix(seconds, 0)
		want, ok := ledger.OutageOf(artifact.Entry{Seq: 1, Event: outageEvent(ledgertest.Epoch(), artifact.OutageRecord{
			Dependency: text, Program: text, Instance: text, StartedAt: when, DetectedAt: when, EndedAt: &when, Cause: text, Detail: text, Waiting: count, Deferred: count,
		})})
		if !ok {
			t.Fatal("OutageOf() gives nothing")
		}
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatalf("Marshal(%+v): %v", want, err)
		}
		got := ledger.Outage{LastSeq: 1} // not in JSON
		if err := json.Unmarshal(raw, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s reads as %+v, %v; want %+v", raw, got, err, want)
		}
		if want.StartedAt.UnixMicro() < 0 || want.Waiting > math.MaxInt64 || len(want.Dependency) > 512 {
			t.Fatalf("%+v is beyond what a database holds", want)
		}
	})
}
