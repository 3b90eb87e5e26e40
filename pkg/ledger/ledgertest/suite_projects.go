package ledgertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// AllEvents gives all events that match, by turning the pages of q.
func AllEvents(t TB, view View, q ledger.EventQuery) []ledger.ProjectEvent {
	t.Helper()
	events := []ledger.ProjectEvent{}
	for {
		page, err := view.ProjectEvents(t.Context(), q)
		if err != nil || page.Items == nil || page.NextCursor != "" && len(page.Items) == 0 {
			t.Fatalf("ProjectEvents(%+v) = %+v, %v; want a page that is not nil, and not empty before the last", q, page, err)
		}
		events = append(events, page.Items...)
		if page.NextCursor == "" {
			return events
		}
		q.Cursor = page.NextCursor
	}
}

// SameProjects compares all that two views say beside rows.
func SameProjects(t TB, view, model View) {
	t.Helper()
	same := func(what string, ask func(View) any) {
		t.Helper()
		if got, want := ask(view), ask(model); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s differ:\n got %s\nwant %s", what, inJSON(got), inJSON(want))
		}
	}
	same("names", func(v View) any { return must(v.Names(t.Context()))(t) })
	same("counts of all projects", func(v View) any { return must(v.Coverage(t.Context(), nil))(t) })
	same("counts of some projects", func(v View) any { return must(v.Coverage(t.Context(), []string{"demo", "none", "quiet"}))(t) })
	same("totals", func(v View) any { return must(v.Totals(t.Context()))(t) })
	for _, q := range []ledger.OutageQuery{
		{Limit: 2}, {Dependency: "log/rekor", Limit: 1}, {Since: Epoch().Add(62 * time.Second), Until: Epoch().Add(2 * time.Minute), Limit: 2},
	} {
		same("outages", func(v View) any { return AllOutages(t, v, q) })
	}
	same("counts of no project", func(v View) any { return must(v.Coverage(t.Context(), []string{}))(t) })
	for _, project := range []string{"", "demo", "quiet", "none"} {
		same("events of "+project, func(v View) any { return AllEvents(t, v, ledger.EventQuery{Project: project, Limit: 2}) })
	}
	var refs []artifact.Ref
	for _, repository := range Repositories() {
		for n := range 5 {
			refs = append(refs, Ref(repository, n), Ref(repository, n))
		}
	}
	same("what is known", func(v View) any { return must(v.Known(t.Context(), refs))(t) })
	for _, project := range []string{"demo", "de.mo", "none"} {
		same("digests of "+project, func(v View) any { return AllUnits(t, v, project, 2) })
	}
}

func must[T any](value T, err error) func(TB) T {
	return func(t TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func inJSON(v any) string {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Sprintf("%+v (%v)", v, err)
	}
	return string(text)
}

// skipped gives an event of a manifest that is not signed for a reason.
func skipped(reason policy.Reason, n int) artifact.Event {
	e := Event(artifact.Skipped, Ref("demo/app", n))
	e.Reason = string(reason)
	return e
}

func testCoverage(t TB, view View) {
	of := func(kind artifact.Kind, n int) artifact.Event { return Event(kind, Ref("demo/app", n)) }
	sweep := func(population int) artifact.Event {
		e := ProjectEvent(artifact.Swept, "demo")
		e.Sweep = &artifact.Sweep{StartedAt: Epoch(), Population: population}
		return e
	}
	events := []artifact.Event{
		of(artifact.Received, 1), of(artifact.Signed, 1), // signed
		of(artifact.Received, 2),                     // pending
		of(artifact.Failed, 3), of(artifact.Dead, 4), // failed
		skipped(policy.Exempt, 5), skipped(policy.NotBackfilled, 6), // excluded
		of(artifact.Signed, 7), of(artifact.Blocked, 7), skipped(policy.Blocked, 8), // blocked
		of(artifact.Signed, 9), of(artifact.Removed, 9), skipped(policy.Observed, 10), // unsigned
		of(artifact.Vanished, 11), skipped(policy.IsAccessory, 12), // neither
		skipped(policy.OwnPush, 13), // excluded: whose push it was proves nothing
		sweep(7), sweep(9), ProjectEvent(artifact.Drifted, "demo"), ProjectEvent(artifact.Swept, ""),
		Event(artifact.Signed, Ref("demonstration/app", 1)), ProjectEvent(artifact.Drifted, "quiet"),
	}
	for i := range events {
		events[i].Time = Epoch().Add(time.Duration(i) * time.Second)
	}
	Apply(t, view, Begin(t, view), Entries(events...)...)
	oldest := events[2].Time
	want := map[string]ledger.Coverage{
		"demo": {
			Population: 11, Signed: 1, Pending: 1, Failed: 2, Excluded: 3, Blocked: 2, Unsigned: 2, OldestUnsignedAt: &oldest,
			LastSweep: &ledger.SweepRow{FinishedAt: events[17].Time, Sweep: *events[17].Sweep},
		},
		"demonstration": {Population: 1, Signed: 1},
		"quiet":         {},
	}
	if got, err := view.Coverage(t.Context(), nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Coverage(nil) = %s, %v; want %s", inJSON(got), err, inJSON(want))
	}
	want = map[string]ledger.Coverage{"demo": want["demo"], "none": {}}
	if got, err := view.Coverage(t.Context(), []string{"demo", "none", "demo"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Coverage(demo, none, demo) = %s, %v; want %s", inJSON(got), err, inJSON(want))
	}
	if got, err := view.Coverage(t.Context(), []string{}); err != nil || len(got) != 0 {
		t.Errorf("Coverage() = %v, %v; want nothing", got, err)
	}
	if got, err := view.Names(t.Context()); err != nil || !slices.Equal(got, []string{"demo", "demonstration", "quiet"}) {
		t.Errorf("Names() = %v, %v; want demo, demonstration and quiet", got, err)
	}
}

// testEventPaging turns pages while others write, and wants each event that was there at the first page exactly once.
func testEventPaging(t TB, view View) {
	const events = 20
	basis := Begin(t, view)
	kinds := ProjectKinds()
	at := func(seq uint64, project string) artifact.Entry {
		e := ProjectEvent(kinds[seq%uint64(len(kinds))], project)
		e.Time = e.Time.Add(-time.Duration(seq%60) * time.Second) // times do not follow the sequence
		return artifact.Entry{Seq: seq, Event: e}
	}
	var want []uint64
	for i := range uint64(events) {
		Apply(t, view, basis, at(3*i+1, "demo"), at(3*i+2, "other"), at(3*i+3, ""))
		want = append([]uint64{3*i + 1}, want...)
	}
	q := ledger.EventQuery{Project: "demo", Limit: 3}
	var got []uint64
	for seq := uint64(1000); ; seq++ {
		page, err := view.ProjectEvents(t.Context(), q)
		if err != nil {
			t.Fatalf("ProjectEvents(%+v): %v", q, err)
		}
		for _, e := range page.Items {
			got = append(got, e.Seq)
		}
		if page.NextCursor == "" {
			break
		}
		q.Cursor, q.Limit = page.NextCursor, 2+int(seq%3) // the limit may change
		Apply(t, view, basis, at(seq, "demo"), at(1, "demo"))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events = %v, want those that were there, newest first: %v", got, want)
	}
	q.Project = "other"
	_, err := view.ProjectEvents(t.Context(), q)
	if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != "cursor" {
		t.Errorf("a cursor of another project: error %v, want one about the cursor", err)
	}
	all := AllEvents(t, view, ledger.EventQuery{Limit: 7})
	if n := len(all); n < 3*events || all[0].Seq < all[n-1].Seq || all[n-1].Seq != 1 {
		t.Errorf("all events = %d from %d to %d, want at least %d, newest first", n, all[0].Seq, all[n-1].Seq, 3*events)
	}
}

func testHostileEvents(t TB, view View) {
	for _, text := range HostileTexts() {
		basis := Begin(t, view)
		e := ProjectEvent(artifact.PolicyChanged, "demo")
		e.Actor, e.Reason, e.Detail, e.Origin = text, text, text, artifact.Origin(text)
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		e.Change = &artifact.Change{Before: json.RawMessage(text), After: quoted, From: text}
		e.Sweep = &artifact.Sweep{Digest: text}
		Apply(t, view, basis, Entries(e)...)
		events := AllEvents(t, view, ledger.EventQuery{})
		if len(events) != 1 || events[0].Change == nil || events[0].Sweep == nil {
			t.Fatalf("%q: events = %s, want one with a change and a sweep", text, inJSON(events))
		}
		want := cleaned(text)
		for field, got := range map[string]string{
			"actor": events[0].Actor, "reason": events[0].Reason, "detail": events[0].Detail, "origin": string(events[0].Origin),
			"from": events[0].Change.From, "digest": events[0].Sweep.Digest,
		} {
			if !strings.HasPrefix(want, got) || got == "" || len(want) < 500 && got != want || len(got) > 2048 {
				t.Errorf("%s = %q, want %q", field, got, want)
			}
		}
		if _, err := json.Marshal(events); err != nil {
			t.Errorf("%q: the event cannot be shown: %v", text, err)
		}
		if got := events[0].Change.After; !sameJSON(t, got, quoted) {
			t.Errorf("after = %s, want what %s means", got, quoted)
		}
	}
}

func sameJSON(t TB, a, b json.RawMessage) bool {
	t.Helper()
	var values [2]any
	for i, raw := range []json.RawMessage{a, b} {
		if err := json.Unmarshal(raw, &values[i]); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

func testResetOfProjects(t TB, view View) {
	e := ProjectEvent(artifact.Swept, "demo")
	e.Sweep = &artifact.Sweep{StartedAt: Epoch()}
	Apply(t, view, Begin(t, view), Entries(e)...)
	if got := AllEvents(t, view, ledger.EventQuery{}); len(got) != 1 {
		t.Fatalf("events = %+v, want one", got)
	}
	o := ProjectEvent(artifact.Outage, "")
	o.Outage = &artifact.OutageRecord{Dependency: "log/rekor", StartedAt: Epoch(), DetectedAt: Epoch()}
	Apply(t, view, Begin(t, view), Entries(o)...)
	if got := AllOutages(t, view, ledger.OutageQuery{}); len(got) != 1 {
		t.Fatalf("outages = %+v, want one", got)
	}
	Begin(t, view)
	if got := AllOutages(t, view, ledger.OutageQuery{}); len(got) != 0 {
		t.Errorf("outages after a reset = %+v, want none", got)
	}
	if got := AllEvents(t, view, ledger.EventQuery{}); len(got) != 0 {
		t.Errorf("events after a reset = %+v, want none", got)
	}
	if got, err := view.Names(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Names() after a reset = %v, %v; want none", got, err)
	}
}
