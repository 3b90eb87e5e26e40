package ledgertest

import (
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// AllOutages gives all outages that match, by turning the pages of q.
func AllOutages(t TB, view View, q ledger.OutageQuery) []ledger.Outage {
	t.Helper()
	outages := []ledger.Outage{}
	for {
		page, err := view.Outages(t.Context(), q)
		if err != nil || page.Items == nil || page.NextCursor != "" && len(page.Items) == 0 {
			t.Fatalf("Outages(%+v) = %+v, %v; want a page that is not nil, and not empty before the last", q, page, err)
		}
		outages = append(outages, page.Items...)
		if page.NextCursor == "" {
			return outages
		}
		q.Cursor = page.NextCursor
	}
}

func testDebt(t TB, view View) {
	unlogged := artifact.Evidence{Format: artifact.Legacy, KeyID: "k", Digest: "s"}
	logged := unlogged
	logged.Log, logged.LogIndex, logged.TimestampedAt = "rekor", 42, Epoch().Add(time.Hour)
	owing := func(repository string, n int) artifact.Event {
		e := Event(artifact.Signed, Ref(repository, n))
		e.Signatures, e.LogOwed = []artifact.Evidence{unlogged}, []artifact.Format{artifact.Legacy}
		return e
	}
	paid := func(n int, signatures ...artifact.Evidence) artifact.Event {
		e := Event(artifact.LogPaid, Ref("demo/app", n))
		e.Signatures = signatures
		return e
	}
	events := []artifact.Event{
		owing("demo/app", 1), owing("demo/app", 2), owing("demo/app", 3), paid(2, logged), // 2 is paid
		owing("demo/app", 3),                                               // found once more
		owing("demo/app", 4), Event(artifact.Vanished, Ref("demo/app", 4)), // gone
		owing("other/app", 5), paid(6, logged), // the signed event of 6 has expired
	}
	for i := range events {
		events[i].Time = Epoch().Add(time.Duration(i) * time.Second)
		events[i].AsOf = uint64(i)
	}
	entries := Entries(events...)
	Apply(t, view, Begin(t, view), entries...)
	digests := func(q ledger.Query) (found []string) {
		for _, row := range All(t, view, q) {
			found = append(found, row.Digest)
		}
		slices.Sort(found)
		return found
	}
	of := func(numbers ...int) (all []string) {
		for _, n := range numbers {
			all = append(all, Ref("demo/app", n).Digest())
		}
		slices.Sort(all)
		return all
	}
	for _, tt := range []struct {
		q    ledger.Query
		want []string
	}{
		{ledger.Query{LogOwed: true}, of(1, 3, 5)},
		{ledger.Query{LogOwed: true, Limit: 1}, of(1, 3, 5)},
		{ledger.Query{LogOwed: true, Project: "demo"}, of(1, 3)},
		{ledger.Query{LogOwed: true, State: ledger.Gone}, nil},
		{ledger.Query{State: ledger.Signed}, of(1, 2, 3, 5, 6)},
	} {
		if got := digests(tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("Signatures(%+v) = %v, want %v", tt.q, got, tt.want)
		}
	}
	row := All(t, view, ledger.Query{Digest: Ref("demo/app", 2).Digest()})[0]
	if row.LogState != ledger.LogEntered || !slices.Equal(row.Signatures, []artifact.Evidence{logged}) || !row.VerifiedAt.Equal(events[3].Time) {
		t.Errorf("the row that was paid = %+v, want what the payment verified", row)
	}
	known, err := view.Known(t.Context(), []artifact.Ref{Ref("demo/app", 2)})
	if err != nil || len(known) != 1 || !slices.Equal(known[0].Signatures, []artifact.Evidence{logged}) {
		t.Errorf("Known() = %+v, %v; want what the payment verified", known, err)
	}
	covered, err := view.Coverage(t.Context(), []string{"demo", "other", "none"})
	if c := covered["demo"]; err != nil || c.LogDebt != 2 || c.OldestLogDebtAt == nil || !c.OldestLogDebtAt.Equal(events[0].Time) {
		t.Errorf("Coverage(demo) = %s, %v; want a debt of 2 since %s", inJSON(c), err, events[0].Time)
	}
	if c := covered["none"]; c.LogDebt != 0 || c.OldestLogDebtAt != nil {
		t.Errorf("Coverage(none) = %s, want no debt", inJSON(c))
	}
	want := ledger.Totals{LogDebt: 3, OldestLogDebt: events[0].Time}
	if got, err := view.Totals(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Totals() = %+v, %v; want %+v", got, err, want)
	}
}

func testOutages(t TB, view View) {
	basis := Begin(t, view)
	record := func(dependency string, minute int, ended bool) artifact.Event {
		e := ProjectEvent(artifact.Outage, "")
		started := Epoch().Add(time.Duration(minute) * time.Minute)
		e.Outage = &artifact.OutageRecord{
			Dependency: dependency, Program: "signer", Instance: "s1", StartedAt: started, DetectedAt: started.Add(15 * time.Second), Cause: "dns",
		}
		if ended {
			at := started.Add(30 * time.Second)
			e.Outage.EndedAt, e.Outage.Waiting, e.Outage.Deferred = &at, 7, 8
		}
		return e
	}
	entries := Entries(
		record("log/rekor", 0, false), record("registry", 1, false), record("log/rekor", 0, true), record("log/rekor", 5, false),
		record("log/rekor", 0, false), // recorded once more, after its end
	)
	Apply(t, view, basis, entries[3], entries[0])
	Apply(t, view, basis, entries...)
	outage := func(seq uint64, from artifact.Event) ledger.Outage {
		o, ok := ledger.OutageOf(artifact.Entry{Seq: seq, Event: from})
		if !ok {
			t.Fatalf("OutageOf(%+v) gives none", from)
		}
		return o
	}
	first, second, third := outage(1, entries[2].Event), outage(2, entries[1].Event), outage(4, entries[3].Event)
	first.LastSeq = 3
	for _, tt := range []struct {
		q    ledger.OutageQuery
		want []ledger.Outage
	}{
		{ledger.OutageQuery{}, []ledger.Outage{third, second, first}},
		{ledger.OutageQuery{Limit: 1}, []ledger.Outage{third, second, first}},
		{ledger.OutageQuery{Dependency: "log/rekor"}, []ledger.Outage{third, first}},
		{ledger.OutageQuery{Dependency: "log"}, []ledger.Outage{}},
		{ledger.OutageQuery{Since: *first.EndedAt, Until: third.StartedAt}, []ledger.Outage{second, first}},
		{ledger.OutageQuery{Since: first.EndedAt.Add(time.Second)}, []ledger.Outage{third, second}},
		{ledger.OutageQuery{Until: first.StartedAt}, []ledger.Outage{}},
	} {
		if got := AllOutages(t, view, tt.q); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Outages(%+v) = %s, want %s", tt.q, inJSON(got), inJSON(tt.want))
		}
	}
	if got := AllEvents(t, view, ledger.EventQuery{}); len(got) != len(entries) || got[0].Outage == nil || got[0].Outage.Cause != "dns" {
		t.Errorf("events = %s, want each record of an outage", inJSON(got))
	}
	if got := AllEvents(t, view, ledger.EventQuery{Project: "demo"}); len(got) != 0 {
		t.Errorf("events of a project = %s, want none", inJSON(got))
	}
	cursor := ledger.OutageFilter{Dependency: "registry"}.Cursor(1)
	_, err := view.Outages(t.Context(), ledger.OutageQuery{Cursor: cursor})
	if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != "cursor" {
		t.Errorf("a cursor of other filters: error %v, want one about the cursor", err)
	}
}

func testCanaries(t TB, view View) {
	basis := Begin(t, view)
	var events []artifact.Event
	for _, kind := range []artifact.Kind{artifact.Received, artifact.Signed, artifact.LogPaid, artifact.Failed, artifact.Vanished} {
		events = append(events, Event(kind, Ref("canary/app", 1)))
	}
	events = append(events, ProjectEvent(artifact.Swept, "canary"), ProjectEvent(artifact.Outage, "canary"))
	for i := range events {
		events[i].Canary, events[i].LogOwed = true, []artifact.Format{artifact.Legacy}
	}
	Apply(t, view, basis, Entries(events...)...)
	SameProjects(t, view, &Memory{})
	if rows := All(t, view, ledger.Query{}); len(rows) != 0 {
		t.Errorf("rows = %s, want none", dump(rows))
	}
	if position, err := view.Position(t.Context()); err != nil || position.Seq != uint64(len(events)) {
		t.Errorf("Position() = %+v, %v; want behind all of them", position, err)
	}
}
