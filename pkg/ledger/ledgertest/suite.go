package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// View is all that the ledger and the API ask of a view.
type View interface {
	Position(ctx context.Context) (ledger.Position, error)
	Reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error)
	Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error
	Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error)
	Each(ctx context.Context, q ledger.Query, fn func(ledger.Row) error) (ledger.Position, error)
	One(ctx context.Context, ref artifact.Ref) (row ledger.Row, found bool, err error)
	Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error)
	Units(ctx context.Context, project, after string, limit int) (refs []artifact.Ref, next string, err error)
	Names(ctx context.Context) ([]string, error)
	Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error)
	CoverageReport(ctx context.Context, q ledger.CoverageQuery) (ledger.CoverageReport, error)
	ProjectEvents(ctx context.Context, q ledger.EventQuery) (ledger.EventPage, error)
	Outages(ctx context.Context, q ledger.OutageQuery) (ledger.OutagePage, error)
	Totals(ctx context.Context) (ledger.Totals, error)
}

// TestView runs what every view must pass. open gives an empty one, and ends it with the test.
func TestView(t *testing.T, open func(t *testing.T) View) {
	t.Helper()
	for _, tt := range []struct {
		name string
		test func(t TB, view View)
	}{
		{"a view begins empty", testEmpty},
		{"a reset counts once", testReset},
		{"the position only goes forward", testPosition},
		{"an old basis is refused", testBasis},
		{"any order gives the same answers", testOrder},
		{"queries agree with the model", testQueries},
		{"pages are stable under writes", testPaging},
		{"pages of each sort are stable under any writes", testStable},
		{"all rows are of one state", testEach},
		{"filters and sorts", testFilters},
		{"a row shows the last tags", testNames},
		{"hostile text is storable", testHostile},
		{"coverage counts each digest once", testCoverage},
		{"coverage reports agree with the model", testCoverageReport},
		{"digests of a project in order", testUnits},
		{"what is known of digests", testKnown},
		{"digests that a key alone has signed", testSoleKey},
		{"what is owed to logs", testDebt},
		{"outages", testOutages},
		{"images of the service's own are nowhere", testCanaries},
		{"pages of events are stable under writes", testEventPaging},
		{"hostile events of projects are storable", testHostileEvents},
		{"a reset forgets what happened to projects", testResetOfProjects},
		{"a context that is done ends it", testCancelled},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// TB is what *testing.T, *testing.B and *rapid.T have in common here.
type TB interface {
	rapid.TB
	Context() context.Context
}

// Begin resets a view to an empty one on a stream of Epoch.
func Begin(t TB, view View) ledger.Basis {
	t.Helper()
	seen, err := view.Position(t.Context())
	if err != nil {
		t.Fatalf("Position: %v", err)
	}
	position, err := view.Reset(t.Context(), seen, Epoch(), ledger.Rules)
	if err != nil {
		t.Fatalf("Reset(%+v): %v", seen, err)
	}
	return position.Basis
}

// Apply applies entries and fails the test if that fails.
func Apply(t TB, view View, basis ledger.Basis, entries ...artifact.Entry) {
	t.Helper()
	if err := view.Apply(t.Context(), basis, entries); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// All gives all rows that match, by turning the pages of q.
func All(t TB, view View, q ledger.Query) []ledger.Row {
	t.Helper()
	rows := []ledger.Row{}
	for range 10_000 {
		page, err := view.Signatures(t.Context(), q)
		if err != nil {
			t.Fatalf("Signatures(%+v): %v", q, err)
		}
		rows = append(rows, page.Items...)
		if page.NextCursor == "" {
			return rows
		}
		if len(page.Items) == 0 {
			t.Fatalf("Signatures(%+v): an empty page has a next one", q)
		}
		q.Cursor = page.NextCursor
	}
	t.Fatalf("Signatures(%+v): the pages do not end", q)
	return nil
}

func testEmpty(t TB, view View) {
	got, err := view.Position(t.Context())
	if err != nil || !got.Equal(ledger.Position{}) {
		t.Errorf("Position() = %+v, %v; want the zero value", got, err)
	}
	page, err := view.Signatures(t.Context(), ledger.Query{})
	if err != nil || page.Items == nil || len(page.Items) != 0 || page.NextCursor != "" {
		t.Errorf("Signatures() = %+v, %v; want no rows, not nil, and no next page", page, err)
	}
}

func testReset(t TB, view View) {
	created := Epoch().Add(123456789 * time.Nanosecond)
	first, err := view.Reset(t.Context(), ledger.Position{}, created, ledger.Rules)
	if err != nil {
		t.Fatalf("Reset: %v", err)
	}
	if first.Seq != 0 || !first.Stream.Equal(created) || first.Rules != ledger.Rules {
		t.Errorf("Reset() = %+v, want sequence 0 of the stream of %s", first, created)
	}
	Apply(t, view, first.Basis, Entries(Event(artifact.Received, Ref("demo/app", 1)))...)

	// Another program saw the view before, and comes too late.
	if _, err := view.Reset(t.Context(), ledger.Position{}, created, ledger.Rules); !errors.Is(err, ledger.ErrOtherBasis) {
		t.Errorf("Reset of a position that has passed: error %v, want ErrOtherBasis", err)
	}
	if got := len(All(t, view, ledger.Query{})); got != 1 {
		t.Errorf("%d rows after a refused reset, want 1", got)
	}
	seen, err := view.Position(t.Context())
	if err != nil || seen.Seq != 1 || !seen.Basis.Equal(first.Basis) {
		t.Fatalf("Position() = %+v, %v; want sequence 1 of %+v", seen, err, first)
	}
	second, err := view.Reset(t.Context(), seen, created, ledger.Rules)
	if err != nil || second.Basis.Equal(first.Basis) {
		t.Errorf("Reset() = %+v, %v; want another basis than before", second, err)
	}
	if got := All(t, view, ledger.Query{}); len(got) != 0 {
		t.Errorf("rows after a reset = %+v, want none", got)
	}
}

func testPosition(t TB, view View) {
	basis := Begin(t, view)
	received := Event(artifact.Received, Ref("demo/app", 1))
	for _, step := range []struct {
		entries []artifact.Entry
		want    uint64
	}{
		{nil, 0},
		{[]artifact.Entry{{Seq: 5, Event: received}}, 5},
		{[]artifact.Entry{{Seq: 3, Event: received}}, 5},
		{[]artifact.Entry{{Seq: 9}}, 9}, // cannot be read
		{[]artifact.Entry{{Seq: 8, Event: received}, {Seq: 12, Event: Event("of_the_future", Ref("demo/app", 2))}}, 12},
	} {
		Apply(t, view, basis, step.entries...)
		got, err := view.Position(t.Context())
		if err != nil || got.Seq != step.want {
			t.Errorf("after %+v: Position() = %+v, %v; want sequence %d", step.entries, got, err, step.want)
		}
	}
	rows := All(t, view, ledger.Query{})
	if len(rows) != 1 || rows[0].LedgerSeq != 8 {
		t.Errorf("rows = %+v, want one, last changed by 8", rows)
	}
}

func testBasis(t TB, view View) {
	old := Begin(t, view)
	Begin(t, view)
	err := view.Apply(t.Context(), old, Entries(Event(artifact.Received, Ref("demo/app", 1))))
	if !errors.Is(err, ledger.ErrOtherBasis) {
		t.Errorf("Apply on an old basis: error %v, want ErrOtherBasis", err)
	}
	if got := All(t, view, ledger.Query{}); len(got) != 0 {
		t.Errorf("rows = %+v, want none of a refused batch", got)
	}
}

func testOrder(t TB, view View) {
	rapid.Check(t, func(t *rapid.T) {
		history := Histories().Draw(t, "history")
		model := &Memory{}
		Apply(t, model, Begin(t, model), history...)
		want := All(t, model, ledger.Query{})

		basis := Begin(t, view)
		for _, batch := range Batches(t, Shuffled(t, history)) {
			Apply(t, view, basis, batch...)
		}
		if got := All(t, view, ledger.Query{}); !reflect.DeepEqual(got, want) {
			t.Fatalf("rows differ from those of the history in order:\n got %s\nwant %s", dump(got), dump(want))
		}
		SameProjects(t, view, model)
	})
}

func testQueries(t TB, view View) {
	rapid.Check(t, func(t *rapid.T) {
		history := Histories().Draw(t, "history")
		model := &Memory{}
		Apply(t, model, Begin(t, model), history...)
		basis := Begin(t, view)
		for _, batch := range Batches(t, history) {
			Apply(t, view, basis, batch...)
		}
		for range 5 {
			q := query(t)
			_, err := q.Filter()
			if err != nil {
				if _, got := view.Signatures(t.Context(), q); got == nil || got.Error() != err.Error() {
					t.Fatalf("Signatures(%+v): error %v, want %v", q, got, err)
				}
				continue
			}
			want := All(t, model, q)
			if got := All(t, view, q); !reflect.DeepEqual(got, want) {
				t.Fatalf("Signatures(%+v) = %s, want %s", q, dump(got), dump(want))
			}
			sameTotal(t, view, q, len(want))
			sameEach(t, view, q, want)
		}
	})
}

func query(t *rapid.T) ledger.Query {
	optional := func(label string, values ...string) string {
		return rapid.SampledFrom(append(values, "", "")).Draw(t, label)
	}
	instant := func(label string) time.Time {
		if rapid.Bool().Draw(t, label) {
			return time.Time{}
		}
		return Epoch().Add(time.Duration(rapid.Int64Range(-6e9, 6e9).Draw(t, label+" offset")))
	}
	digest := Ref("demo/app", rapid.IntRange(0, 3).Draw(t, "n")).Digest()
	states := make([]string, 0, len(ledger.States()))
	for _, s := range ledger.States() {
		states = append(states, string(s))
	}
	q := ledger.Query{
		Project: optional("project", "demo", "other", "de.mo", "none"),
		Projects: rapid.SampledFrom([][]string{
			nil, nil, {}, {"demo"}, {"other", "de.mo", "other"}, {"none", "demo"}, {"*"},
		}).Draw(t, "projects"),
		Repository:   optional("repository", append(Repositories(), "app", "team/app", "demo/*", "**/app", "{demo,other}/**", "d?mo/[!b]pp", "none/*")...),
		Digest:       optional("digest", digest, digest[7:], digest[:14], digest[7:20]),
		State:        ledger.State(optional("state", states...)),
		SignedOnlyBy: optional("signed_only_by", "k1", "k2", "k3", ""),
		LogOwed:      rapid.IntRange(0, 2).Draw(t, "log_owed") == 0,
		Since:        instant("since"),
		Until:        instant("until"),
		Limit:        rapid.IntRange(0, 4).Draw(t, "limit"),
		Total:        rapid.Bool().Draw(t, "total"),
	}
	// So many conditions at once hold for no row: one or two of the others.
	for range rapid.IntRange(0, 2).Draw(t, "others") {
		more(t, &q)
	}
	if rapid.Bool().Draw(t, "sorted") {
		q.Sort = rapid.SampledFrom(append(ledger.Sorts(), "signed_at")).Draw(t, "sort")
	}
	return q
}

// more adds a condition to a query, or takes the usual ones out of it.
func more(t *rapid.T, q *ledger.Query) {
	at := Epoch().Add(time.Duration(rapid.Int64Range(-6e9, 6e9).Draw(t, "at")))
	switch rapid.IntRange(0, 9).Draw(t, "condition") {
	case 0:
		q.Tag = rapid.SampledFrom([]string{"v1", "v2", "latest", "=HYPERLINK(\"http://x\")", "\x00nul\x00", "none"}).Draw(t, "tag")
	case 1:
		q.Key = rapid.SampledFrom([]string{"k1", "k2", "k3", "none"}).Draw(t, "key")
	case 2:
		q.Format = rapid.SampledFrom([]string{"legacy", "bundle", ledger.Both, "x"}).Draw(t, "format")
	case 3:
		q.Pusher = rapid.SampledFrom([]string{"v1", "v2", "latest", "'; DROP TABLE units; --", "none"}).Draw(t, "pusher")
	case 4:
		q.PusherSource = rapid.SampledFrom(append(ledger.PusherSources(), "x")).Draw(t, "pusher_source")
	case 5:
		q.PushedSince = at
	case 6:
		q.PushedUntil = at
	case 7:
		q.SignedSince = at
	case 8:
		q.SignedUntil = at
	default:
		*q = ledger.Query{Limit: q.Limit, Total: true}
	}
}

// testPaging turns pages while others write, and wants each row that was there all along exactly once.
func testPaging(t TB, view View) {
	const rows = 20
	basis := Begin(t, view)
	for i := range rows {
		e := Event(artifact.Received, Ref("demo/app", i))
		e.Time = e.Time.Add(time.Duration(i/5) * time.Second) // some have the same time
		Apply(t, view, basis, artifact.Entry{Seq: uint64(i) + 1, Event: e})
	}
	q := ledger.Query{Project: "demo", Limit: 3}
	var got []string
	for seq := uint64(rows + 1); ; seq += 2 {
		page, err := view.Signatures(t.Context(), q)
		if err != nil {
			t.Fatalf("Signatures(%+v): %v", q, err)
		}
		for _, row := range page.Items {
			got = append(got, row.Digest)
		}
		if page.NextCursor == "" {
			break
		}
		q.Cursor = page.NextCursor
		q.Limit = 3 + int(seq%3) // the limit may change
		pushed := Event(artifact.Received, Ref("demo/app", int(seq)))
		pushed.Time = pushed.Time.Add(time.Hour)
		signed := Event(artifact.Signed, Ref("demo/app", int(seq%rows)))
		signed.Time = signed.Time.Add(time.Hour)
		Apply(t, view, basis, artifact.Entry{Seq: seq, Event: pushed}, artifact.Entry{Seq: seq + 1, Event: signed})
	}
	var want []string
	for i := range rows {
		want = append(want, Ref("demo/app", rows-1-i).Digest())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d rows = %v, want the %d that were there, newest first: %v", len(got), got, len(want), want)
	}
	q.State = ledger.Signed
	_, err := view.Signatures(t.Context(), q)
	if invalid := new(ledger.InvalidQueryError); !errors.As(err, &invalid) || invalid.Field != "cursor" {
		t.Errorf("a cursor of other filters: error %v, want one about the cursor", err)
	}
}

func testNames(t TB, view View) {
	basis := Begin(t, view)
	ref := Ref("demo/app", 1)
	const tags = ledger.MaxNames + 7
	for i := range tags {
		e := Event(artifact.Received, ref)
		e.Tag = fmt.Sprintf("v%d", i)
		Apply(t, view, basis, artifact.Entry{Seq: uint64(i) + 1, Event: e})
	}
	again := Event(artifact.Received, ref)
	again.Tag = "v0"
	Apply(t, view, basis, artifact.Entry{Seq: tags + 1, Event: again})
	rows := All(t, view, ledger.Query{})
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	want := []string{"v0"}
	for i := tags - 1; len(want) < ledger.MaxNames; i-- {
		want = append(want, fmt.Sprintf("v%d", i))
	}
	if row := rows[0]; !slices.Equal(row.Tags, want) || row.TagsTotal != tags || row.ParentsTotal != 0 || row.Parents == nil {
		t.Errorf("tags = %v of %d, parents %v of %d; want %v of %d and no parents", row.Tags, row.TagsTotal, row.Parents, row.ParentsTotal, want, tags)
	}
}

func testHostile(t TB, view View) {
	for i, text := range HostileTexts() {
		basis := Begin(t, view)
		received := Event(artifact.Received, Ref("demo/app", i))
		received.Tag, received.Pusher = text, text
		e := Event(artifact.Vanished, received.Ref)
		e.Detail = text
		signed := Event(artifact.Signed, e.Ref)
		signed.Detail, signed.Signatures = text, []artifact.Evidence{{Format: artifact.Format(text), KeyID: text, Digest: text}}
		Apply(t, view, basis, Entries(received, signed, e)...)
		rows := All(t, view, ledger.Query{})
		if len(rows) != 1 || len(rows[0].Tags) != 1 || len(rows[0].Signatures) != 1 {
			t.Fatalf("%q: rows = %s, want one with one tag and one signature", text, dump(rows))
		}
		signature := rows[0].Signatures[0]
		want := cleaned(text)
		for field, got := range map[string]string{
			"pusher": rows[0].Pusher, "tag": rows[0].Tags[0], "detail": rows[0].Detail, "note": rows[0].Note,
			"format": string(signature.Format), "key_id": signature.KeyID, "digest of a signature": signature.Digest,
		} {
			if !strings.HasPrefix(want, got) || got == "" || len(want) < 500 && got != want || len(got) > 2048 || !utf8.ValidString(got) {
				t.Errorf("%s = %q, want %q", field, got, want)
			}
		}
	}
}

// cleaned gives a text as views store it, but for its length.
func cleaned(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

func testCancelled(t TB, view View) {
	basis := Begin(t, view)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errPosition := view.Position(ctx)
	_, errPage := view.Signatures(ctx, ledger.Query{})
	_, errEach := view.Each(ctx, ledger.Query{}, func(ledger.Row) error { return nil })
	_, _, errOne := view.One(ctx, Ref("demo/app", 1))
	_, errReset := view.Reset(ctx, ledger.Position{Basis: basis}, Epoch(), ledger.Rules)
	_, errKnown := view.Known(ctx, []artifact.Ref{Ref("demo/app", 1)})
	_, _, errUnits := view.Units(ctx, "demo", "", 0)
	_, errNames := view.Names(ctx)
	_, errCoverage := view.Coverage(ctx, nil)
	_, errEvents := view.ProjectEvents(ctx, ledger.EventQuery{})
	_, errOutages := view.Outages(ctx, ledger.OutageQuery{})
	_, errTotals := view.Totals(ctx)
	errApply := view.Apply(ctx, basis, Entries(Event(artifact.Received, Ref("demo/app", 1))))
	for method, err := range map[string]error{
		"Position": errPosition, "Signatures": errPage, "Each": errEach, "One": errOne, "Reset": errReset, "Apply": errApply, "Known": errKnown, "Units": errUnits,
		"Names": errNames, "Coverage": errCoverage, "ProjectEvents": errEvents, "Outages": errOutages, "Totals": errTotals,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want context.Canceled", method, err)
		}
	}
	if position, err := view.Position(t.Context()); err != nil || !position.Equal(ledger.Position{Basis: basis}) {
		t.Errorf("Position() = %+v, %v; want %+v, as before", position, err, basis)
	}
}

func dump(rows []ledger.Row) string {
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "\n\t%+v", row)
	}
	return b.String()
}
