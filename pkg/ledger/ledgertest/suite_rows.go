package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// sameTotal wants the first page to say how many rows there are.
func sameTotal(t TB, view View, q ledger.Query, rows int) {
	t.Helper()
	page, err := view.Signatures(t.Context(), q)
	if err != nil {
		t.Fatalf("Signatures(%+v): %v", q, err)
	}
	var want *ledger.Total
	if q.Total {
		want = &ledger.Total{Value: int64(rows), Relation: ledger.Exactly}
	}
	if !reflect.DeepEqual(page.Total, want) {
		t.Fatalf("total of Signatures(%+v) = %+v, want %+v", q, page.Total, want)
	}
}

// sameEach wants all rows to be those of the pages, and those of one digest.
func sameEach(t TB, view View, q ledger.Query, want []ledger.Row) {
	t.Helper()
	got := []ledger.Row{}
	if _, err := view.Each(t.Context(), q, func(row ledger.Row) error { got = append(got, row); return nil }); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("Each(%+v) = %s, %v; want %s", q, dump(got), err, dump(want))
	}
	for _, row := range want {
		ref, err := artifact.NewRef(row.Repository, row.Digest)
		if err != nil {
			t.Fatal(err)
		}
		one, found, err := view.One(t.Context(), ref)
		if err != nil || !found || !reflect.DeepEqual(one, row) {
			t.Fatalf("One(%s) = %+v, %t, %v; want %+v", ref, one, found, err, row)
		}
	}
}

// testStable turns pages of any sort and filter while anything is written, and wants each row exactly once that matched all along and kept
// its time.
func testStable(t TB, view View) {
	rapid.Check(t, func(t *rapid.T) {
		basis, model := Begin(t, view), &Memory{}
		modelBasis := Begin(t, model)
		seq := uint64(0)
		write := func(n int) {
			for range n {
				seq++
				entry := artifact.Entry{Seq: seq, Event: stableEvent(t, seq)}
				Apply(t, view, basis, entry)
				Apply(t, model, modelBasis, entry)
			}
		}
		write(rapid.IntRange(5, 30).Draw(t, "rows"))
		q := rapid.SampledFrom([]ledger.Query{
			{},
			{Project: "demo"},
			{Project: "demo", State: ledger.Signed},
			{State: ledger.Pending},
			{Tag: "v1"},
			{Key: "k1"},
			{Format: "legacy"},
			{Pusher: "ann"},
			{Repository: "d*/**"},
			{Projects: []string{"demo", "other"}},
			{PusherSource: ledger.PusherWebhook},
		}).Draw(t, "query")
		q.Sort = rapid.SampledFrom(ledger.Sorts()).Draw(t, "sort")
		if _, err := q.Filter(); err != nil {
			q.Sort = ""
		}
		q.Limit = rapid.IntRange(1, 4).Draw(t, "limit")
		f, err := q.Filter()
		if err != nil {
			t.Fatal(err)
		}
		all := func() map[string]time.Time {
			at := make(map[string]time.Time)
			model.mu.Lock()
			defer model.mu.Unlock()
			for _, r := range model.found(f) {
				at[r.Ref.String()] = f.Place(r).At
			}
			return at
		}
		steady, got := all(), make(map[string]int)
		for {
			page, err := view.Signatures(t.Context(), q)
			if err != nil {
				t.Fatalf("Signatures(%+v): %v", q, err)
			}
			for _, row := range page.Items {
				got[row.Repository+"@"+row.Digest]++
			}
			if q.Cursor = page.NextCursor; q.Cursor == "" {
				break
			}
			write(rapid.IntRange(0, 3).Draw(t, "written"))
			now := all()
			for ref, at := range steady {
				if then, ok := now[ref]; !ok || !then.Equal(at) {
					delete(steady, ref)
				}
			}
			if len(got) > 500 {
				t.Fatalf("Signatures(%+v): the pages do not end", q)
			}
		}
		for ref := range steady {
			if got[ref] != 1 {
				t.Fatalf("Signatures(%+v): %s came %d times, want once: it matched all along", q, ref, got[ref])
			}
		}
	})
}

// stableEvent draws an event as they come: times go on, and digests begin with their push.
func stableEvent(t *rapid.T, seq uint64) artifact.Event {
	ref := Ref(rapid.SampledFrom([]string{"demo/app", "demo/web", "other/app"}).Draw(t, "repository"), rapid.IntRange(0, 25).Draw(t, "n"))
	kinds := []artifact.Kind{artifact.Received, artifact.Received, artifact.Signed, artifact.Confirmed, artifact.Failed, artifact.Vanished}
	e := Event(rapid.SampledFrom(kinds).Draw(t, "kind"), ref)
	e.Time = e.Time.Add(time.Duration(seq/3) * time.Second) //nolint:gosec // few; some have the same time
	switch e.Kind {
	case artifact.Received, artifact.Confirmed:
		e.Pusher = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "pusher")
		e.Tag = rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "tag")
		pushed := e.Time.Add(-time.Second)
		e.PushedAt = &pushed
	case artifact.Signed:
		e.How, e.Format, e.KeyID, e.SignatureDigest = artifact.Made, artifact.Legacy, "k1", "s"
		e.Signatures = []artifact.Evidence{{Format: artifact.Legacy, KeyID: "k1", Digest: "s"}}
	default:
	}
	return e
}

// testEach ends it by its function and by its context, and goes on from a cursor.
func testEach(t TB, view View) {
	basis := Begin(t, view)
	const rows = 1100
	events := make([]artifact.Event, rows)
	for i := range events {
		events[i] = Event(artifact.Received, Ref("demo/app", i))
	}
	Apply(t, view, basis, Entries(events...)...)
	page, err := view.Signatures(t.Context(), ledger.Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	position, err := view.Each(t.Context(), ledger.Query{Cursor: page.NextCursor, Limit: 3}, func(ledger.Row) error { left++; return nil })
	if err != nil || left != rows-1000 || position.Seq != rows {
		t.Errorf("Each from a cursor = %d rows, %+v, %v; want %d at sequence %d", left, position, err, rows-1000, rows)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	_, err = view.Each(ctx, ledger.Query{}, func(ledger.Row) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 3 {
		t.Errorf("Each with a context that ends at the third row = %v after %d rows, want context.Canceled after 3", err, n)
	}
}

// testFilters pins what each filter and sort means.
func testFilters(t TB, view View) {
	at := func(minutes int) time.Time { return Epoch().Add(time.Duration(minutes) * time.Minute) }
	event := func(kind artifact.Kind, n, minutes int, change func(e *artifact.Event)) artifact.Event {
		e := Event(kind, Ref(fmt.Sprintf("demo/%c/app", 'a'+n), n))
		e.Time = at(minutes)
		if change != nil {
			change(&e)
		}
		return e
	}
	pushed := func(minutes int, pusher, tag string) func(e *artifact.Event) {
		return func(e *artifact.Event) {
			when := at(minutes)
			e.Pusher, e.Tag, e.PushedAt = pusher, tag, &when
		}
	}
	signed := func(evidence ...artifact.Evidence) func(e *artifact.Event) {
		return func(e *artifact.Event) {
			e.Signatures, e.KeyID, e.Format, e.How = evidence, evidence[0].KeyID, evidence[0].Format, artifact.Made
		}
	}
	legacy, bundle := artifact.Evidence{Format: artifact.Legacy, KeyID: "k1", Digest: "s"}, artifact.Evidence{Format: artifact.Bundle, KeyID: "k2", Digest: "b"}
	Apply(t, view, Begin(t, view), Entries(
		event(artifact.Received, 0, 10, pushed(9, "ann", "v1")),
		event(artifact.Received, 1, 11, pushed(5, "bob", "v1")),
		event(artifact.Received, 2, 12, nil),
		event(artifact.Signed, 3, 13, signed(legacy)),
		event(artifact.Signed, 0, 20, signed(legacy, bundle)),
		event(artifact.Confirmed, 1, 21, pushed(6, "eve", "v2")),
		event(artifact.Signed, 1, 22, signed(bundle)),
		event(artifact.Vanished, 1, 23, nil),
	)...)
	for _, tt := range []struct {
		q    ledger.Query
		want string
	}{
		{ledger.Query{}, "3210"},
		{ledger.Query{Sort: "first_seen"}, "0123"},
		{ledger.Query{Sort: "-pushed"}, "3201"}, // 13, 12, 9, 6
		{ledger.Query{Sort: "pushed"}, "1023"},
		{ledger.Query{Sort: "-signed"}, "103"},
		{ledger.Query{Sort: "signed"}, "301"},
		{ledger.Query{Sort: "signed", State: ledger.Gone}, "1"},
		{ledger.Query{Tag: "v1"}, "10"},
		{ledger.Query{Tag: "v2"}, "1"},
		{ledger.Query{Tag: "V1"}, ""},
		{ledger.Query{Key: "k1"}, "30"},
		{ledger.Query{Key: "k2"}, "10"},
		{ledger.Query{Key: "k2", State: ledger.Signed}, "0"},
		{ledger.Query{Format: "legacy"}, "30"},
		{ledger.Query{Format: "bundle"}, "10"},
		{ledger.Query{Format: ledger.Both}, "0"},
		{ledger.Query{Pusher: "ann"}, "0"},
		{ledger.Query{Pusher: "bob"}, ""}, // Harbor says otherwise
		{ledger.Query{Pusher: "eve", PusherSource: ledger.PusherHarbor}, "1"},
		{ledger.Query{Pusher: "eve", PusherSource: ledger.PusherWebhook}, ""},
		{ledger.Query{PusherSource: ledger.PusherWebhook}, "0"},
		{ledger.Query{PusherSource: ledger.PusherNone}, "32"},
		{ledger.Query{PushedSince: at(6), PushedUntil: at(12)}, "01"},
		{ledger.Query{PushedSince: at(6), Sort: "pushed"}, "1023"},
		{ledger.Query{SignedSince: at(13), SignedUntil: at(22)}, "03"},
		{ledger.Query{SignedUntil: at(14)}, "3"},
		{ledger.Query{PushedUntil: at(12), SignedUntil: at(21), Sort: "-pushed"}, "0"},
		{ledger.Query{Repository: "demo/[ab]/*"}, "10"},
		{ledger.Query{Repository: "**/{a,c}/app"}, "20"},
		{ledger.Query{Project: "demo", Repository: "?/app"}, "3210"},
		{ledger.Query{Repository: "demo/*"}, ""},
		{ledger.Query{Projects: []string{"other"}, Repository: "**"}, ""},
	} {
		var found []byte
		for _, row := range All(t, view, tt.q) {
			found = append(found, row.Repository[len("demo/")]-'a'+'0')
		}
		if got := string(found); got != tt.want {
			t.Errorf("Signatures(%+v) = %q, want %q", tt.q, got, tt.want)
		}
	}
	if want := []string{"-first_seen", "first_seen", "-pushed", "pushed", "-signed", "signed"}; !slices.Equal(ledger.Sorts(), want) {
		t.Errorf("Sorts() = %v, want %v", ledger.Sorts(), want)
	}
}
