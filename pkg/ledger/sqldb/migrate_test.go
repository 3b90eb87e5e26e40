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
)

// withoutSignatures fills a database by a program whose schema has version 1: it knows of one signature in each event.
func withoutSignatures(t *testing.T, path string, entries []artifact.Entry) ledger.Position {
	t.Helper()
	store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path})
	if err != nil {
		t.Fatalf("Open: %v", err)
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
	for _, column := range []string{"signatures_seq", "signatures", "note"} {
		exec(t, db, "ALTER TABLE units DROP COLUMN "+column)
	}
	exec(t, db, "DELETE FROM ledger_schema WHERE version_id > 1")
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
	before := withoutSignatures(t, path, entries)
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
	want := ledgertest.All(t, model, ledger.Query{})
	for _, read := range []int{0, len(history) / 3, len(history) / 2, len(history)} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		basis := withoutSignatures(t, path, history[:read]).Basis
		store := open(t, path)
		for batch := range slices.Chunk(history, 7) {
			ledgertest.Apply(t, store, basis, batch...)
		}
		if got := ledgertest.All(t, store, ledger.Query{}); len(want) < 10 || !reflect.DeepEqual(got, want) {
			t.Errorf("the older program has read %d of %d: rows = %+v, want %+v", read, len(history), got, want)
		}
	}
}
