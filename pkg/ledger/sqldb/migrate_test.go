package sqldb_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/policy"
)

// undo gives the statements that take a schema back to the version before.
func undo(version int) []string {
	drop := func(columns ...string) (statements []string) {
		for _, column := range columns {
			statements = append(statements, "ALTER TABLE units DROP COLUMN "+column)
		}
		return statements
	}
	switch version {
	case 6:
		return []string{"DROP TABLE notary_logs", "DROP TABLE notary_tiles"}
	case 5:
		return slices.Concat([]string{
			"DROP TABLE unit_keys", "DROP TABLE project_counts", "DROP TABLE day_counts", "DROP TABLE sign_times", "DROP INDEX tags_name",
			"DROP INDEX units_pushed", "DROP INDEX units_signed", "DROP INDEX units_project_pushed", "DROP INDEX units_project_signed",
			"DROP INDEX units_formats", "DROP INDEX units_pusher",
			"CREATE INDEX units_sole_key ON units (sole_key, first_seen_at, first_seq)",
			"CREATE INDEX units_repository_state ON units (repository, state, first_seen_at, first_seq)",
		}, drop("formats", "evidence", "signed_sort", "pushed_sort", "shown_pusher", "pusher_source", "confirmed_seq", "confirmed_pushed_at", "confirmed_pusher"))
	case 4:
		return slices.Concat([]string{
			"DROP TABLE outages", "DROP INDEX units_log_owed", "DROP INDEX units_log_debt",
			// It knew nothing of logs and timestamps.
			"UPDATE units SET signatures = (SELECT json_group_array(json_object('format', value ->> 'format', 'key_id', value ->> 'key_id', 'digest', value ->> 'digest')) " +
				"FROM json_each(signatures)) WHERE signatures <> '[]'",
		}, drop("owed", "owed_as_of", "debts", "paid_seq", "paid_reason", "paid_note", "paid_signatures_seq", "paid_at", "paid_signatures", "log_owed_since"))
	case 3:
		return slices.Concat([]string{
			"DROP TABLE project_events", "DROP INDEX units_sole_key", "DROP INDEX units_project_state",
			"CREATE INDEX units_project_state ON units (project, state, first_seen_at, first_seq)",
			// It took these for any other reason.
			"UPDATE units SET reason = substr(reason, 2) WHERE reason LIKE '!%'",
		}, drop("accessories_seq", "accessories", "key_set", "sole_key"))
	case 2:
		return drop("signatures_seq", "signatures", "note")
	default:
		return nil
	}
}

// older fills a database by a program whose schema has that version: 1 knows of one signature in each event, up to 2 nothing of
// projects, nor of what is observed, blocked or removed, up to 3 nothing of logs and outages, and up to 4 nothing of what Harbor says.
func older(t *testing.T, version int, path string, entries []artifact.Entry) ledger.Position {
	t.Helper()
	store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	entries = slices.Clone(entries)
	for i := range entries {
		switch e := &entries[i].Event; {
		case e.Kind == artifact.Confirmed:
			*e = artifact.Event{} // passed over
		case version > 3:
		case e.Kind == artifact.LogPaid, e.Kind == artifact.Outage:
			*e = artifact.Event{} // passed over
		case version > 2:
		case e.Kind == artifact.Removed, e.Kind == artifact.Blocked, e.Kind.OfProject():
			*e = artifact.Event{} // passed over
		case e.Kind == artifact.Skipped && (e.Reason == string(policy.Observed) || e.Reason == string(policy.Blocked)):
			e.Reason = "!" + e.Reason
		default:
		}
	}
	ledgertest.Apply(t, store, ledgertest.Begin(t, store), entries...)
	position, err := store.Position(t.Context())
	if err != nil {
		t.Fatalf("Position: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	db := raw(t, path)
	for v := 6; v > version; v-- {
		for _, statement := range undo(v) {
			exec(t, db, statement)
		}
	}
	exec(t, db, fmt.Sprintf("DELETE FROM ledger_schema WHERE version_id > %d", version))
	return position
}

// The rows of an older program keep what it knew, and hold what it did not know once the stream has been read again; those
// whose events have expired stay.
func TestMigrationLosesNothing(t *testing.T) {
	both := func(n int) artifact.Event {
		e := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", n))
		e.Format, e.KeyID, e.SignatureDigest, e.Detail = artifact.Legacy, "k", fmt.Sprint("s", n), "a note"
		e.Signatures = []artifact.Evidence{
			{Format: artifact.Legacy, KeyID: "k", Digest: e.SignatureDigest}, {Format: artifact.Bundle, KeyID: "k", Digest: fmt.Sprint("b", n)},
		}
		return e
	}
	entries := ledgertest.Entries(
		both(1), ledgertest.Event(artifact.Vanished, ledgertest.Ref("demo/app", 2)), both(2),
		ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 3)), ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", 4)),
	)
	path := filepath.Join(t.TempDir(), "ledger.db")
	before := older(t, 1, path, entries)
	store := open(t, path)
	position, err := store.Position(t.Context())
	if err != nil || position.Seq != 0 || !position.Basis.Equal(before.Basis) {
		t.Errorf("Position() = %+v, %v; want the beginning of what it was, %+v", position, err, before)
	}
	one := func(n int) []artifact.Evidence { return both(n).Signatures[:1] }
	type parts struct {
		signatures []artifact.Evidence
		format     string
		note       string
		state      ledger.State
	}
	check := func(when string, want map[int]parts) {
		t.Helper()
		rows := ledgertest.All(t, store, ledger.Query{})
		if len(rows) != len(want) {
			t.Fatalf("%s: %d rows, want %d", when, len(rows), len(want))
		}
		for n, w := range want {
			i := slices.IndexFunc(rows, func(r ledger.Row) bool { return r.Digest == ledgertest.Ref("demo/app", n).Digest() })
			got := parts{rows[i].Signatures, rows[i].Format, rows[i].Note, rows[i].State}
			if !reflect.DeepEqual(got, w) {
				t.Errorf("%s: row %d = %+v, want %+v", when, n, got, w)
			}
		}
	}
	none := []artifact.Evidence{}
	check("migrated", map[int]parts{
		1: {one(1), "legacy", "", ledger.Signed}, 2: {one(2), "legacy", "", ledger.Signed},
		3: {none, "", "", ledger.Pending}, 4: {none, "", "", ledger.Signed},
	})
	// The first event has expired.
	ledgertest.Apply(t, store, position.Basis, entries[1:]...)
	check("read again", map[int]parts{
		1: {one(1), "legacy", "", ledger.Signed}, 2: {both(2).Signatures, "both", "a note", ledger.Signed},
		3: {none, "", "", ledger.Pending}, 4: {none, "", "", ledger.Signed},
	})
}

// Rows whose events have all expired are found by what they say: by the key that signed them alone, and in the states that an
// older program did not know.
func TestMigrationDerivesWhatRowsSay(t *testing.T) {
	signed := func(n int, keys ...string) artifact.Event {
		e := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", n))
		for _, key := range keys {
			e.Signatures = append(e.Signatures, artifact.Evidence{Format: artifact.Legacy, KeyID: key, Digest: "s"})
		}
		return e
	}
	skipped := func(n int, reason policy.Reason) artifact.Event {
		e := ledgertest.Event(artifact.Skipped, ledgertest.Ref("demo/app", n))
		e.Reason = string(reason)
		return e
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	before := older(t, 2, path, ledgertest.Entries(
		signed(1, "k1", "k1"), signed(2, "k1", "k2"), signed(3), signed(4, "k1"),
		skipped(4, policy.Observed), signed(5, "k1"), skipped(5, policy.Blocked), skipped(6, policy.Observed), signed(6, "k1"),
		signed(7, "k1"), skipped(7, policy.Exempt),
	))
	store := open(t, path)
	if position, err := store.Position(t.Context()); err != nil || position.Seq != 0 || !position.Basis.Equal(before.Basis) {
		t.Errorf("Position() = %+v, %v; want the beginning of what it was, %+v", position, err, before)
	}
	digests := func(numbers ...int) (all []string) {
		for _, n := range numbers {
			all = append(all, ledgertest.Ref("demo/app", n).Digest())
		}
		slices.Sort(all)
		return all
	}
	for _, tt := range []struct {
		name string
		q    ledger.Query
		want []string
	}{
		{"signed by one key", ledger.Query{SignedOnlyBy: "k1"}, digests(1, 6, 7)},
		{"signed", ledger.Query{State: ledger.Signed}, digests(1, 2, 3, 6, 7)},
		{"observed", ledger.Query{State: ledger.Unsigned}, digests(4)},
		{"blocked", ledger.Query{State: ledger.Blocked}, digests(5)},
	} {
		var got []string
		for _, row := range ledgertest.All(t, store, tt.q) {
			got = append(got, row.Digest)
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s = %v, want %v", tt.name, got, tt.want)
		}
	}
	covered, err := store.Coverage(t.Context(), []string{"demo"})
	if got := covered["demo"]; err != nil || got.Signed != 5 || got.Unsigned != 1 || got.Blocked != 1 || got.Population != 7 {
		t.Errorf("Coverage() = %+v, %v; want 5 signed, 1 unsigned and 1 blocked of 7", got, err)
	}
}

// What a program passed over that knew nothing of logs is there once the stream has been read again.
func TestMigrationFindsWhatIsOwed(t *testing.T) {
	owing := func(n int) artifact.Event {
		e := ledgertest.Event(artifact.Signed, ledgertest.Ref("demo/app", n))
		e.Signatures = []artifact.Evidence{{Format: artifact.Bundle, KeyID: "k", Digest: "s", TimestampedAt: ledgertest.Epoch()}}
		e.LogOwed = []artifact.Format{artifact.Bundle}
		return e
	}
	paid := ledgertest.Event(artifact.LogPaid, ledgertest.Ref("demo/app", 2))
	paid.Signatures = []artifact.Evidence{{Format: artifact.Bundle, KeyID: "k", Digest: "s2", Log: "rekor", LogIndex: 7}}
	outage := ledgertest.ProjectEvent(artifact.Outage, "")
	outage.Outage = &artifact.OutageRecord{Dependency: "log/rekor", StartedAt: ledgertest.Epoch(), DetectedAt: ledgertest.Epoch()}
	entries := ledgertest.Entries(owing(1), owing(2), paid, outage)
	path := filepath.Join(t.TempDir(), "ledger.db")
	before := older(t, 3, path, entries)
	store := open(t, path)
	position, err := store.Position(t.Context())
	if err != nil || position.Seq != 0 || !position.Basis.Equal(before.Basis) {
		t.Errorf("Position() = %+v, %v; want the beginning of what it was, %+v", position, err, before)
	}
	if rows := ledgertest.All(t, store, ledger.Query{State: ledger.Signed}); len(rows) != 2 || rows[0].LogState != ledger.LogNone || rows[0].Signatures[0].KeyID != "k" {
		t.Errorf("rows of the older program = %+v, want two, signed, that owe nothing as far as it knew", rows)
	}
	ledgertest.Apply(t, store, position.Basis, entries...)
	rows := ledgertest.All(t, store, ledger.Query{})
	if len(rows) != 2 || !reflect.DeepEqual(rows[0].Signatures, paid.Signatures) || !reflect.DeepEqual(rows[1].Signatures, owing(1).Signatures) || rows[1].LogState != ledger.LogOwed {
		t.Errorf("rows = %+v, want one with what was paid and one that owes", rows)
	}
	if outages := ledgertest.AllOutages(t, store, ledger.OutageQuery{}); len(outages) != 1 || outages[0].Seq != 4 {
		t.Errorf("outages = %+v, want one", outages)
	}
}

// Whatever an older program has read, the rows are in the end those of the events.
func TestMigrationGivesTheRowsOfTheEvents(t *testing.T) {
	var history []artifact.Entry
	for seed := range 40 {
		for _, entry := range ledgertest.Histories().Example(seed) {
			history = append(history, artifact.Entry{Seq: uint64(len(history)) + 1, Event: entry.Event})
		}
	}
	model := &ledgertest.Memory{}
	ledgertest.Apply(t, model, ledgertest.Begin(t, model), history...)
	for _, version := range []int{1, 2, 3, 4} {
		for _, read := range []int{0, len(history) / 3, len(history) / 2, len(history)} {
			path := filepath.Join(t.TempDir(), "ledger.db")
			basis := older(t, version, path, history[:read]).Basis
			store := open(t, path)
			countsAgree(t, raw(t, path)) // of what the older program has read
			for batch := range slices.Chunk(history, 7) {
				ledgertest.Apply(t, store, basis, batch...)
			}
			want := ledgertest.All(t, model, ledger.Query{})
			if got := ledgertest.All(t, store, ledger.Query{}); len(want) < 10 || !reflect.DeepEqual(got, want) {
				t.Errorf("version %d has read %d of %d: rows = %+v, want %+v", version, read, len(history), got, want)
			}
			ledgertest.SameProjects(t, store, model)
			anew := sqliteDatabase(t)
			fresh := anew.open(t)
			ledgertest.Apply(t, fresh, ledgertest.Begin(t, fresh), history...)
			sameTables(t, fmt.Sprintf("version %d has read %d", version, read), dump(t, raw(t, path)), dump(t, anew.served(t)))
			countsAgree(t, raw(t, path))
		}
	}
}
