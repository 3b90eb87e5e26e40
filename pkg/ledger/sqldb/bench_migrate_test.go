package sqldb_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// BenchmarkMigrateMillion brings a view with 1,000,000 rows from the schema 4 to this one. Opening reads through the
// whole database, which is told apart.
func BenchmarkMigrateMillion(b *testing.B) {
	for range b.N {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "ledger.db")
		opened(b, path)
		db := raw(b, path)
		for _, statement := range append(undo(6), undo(5)...) {
			exec(b, db, statement)
		}
		exec(b, db, "DELETE FROM ledger_schema WHERE version_id > 4")
		exec(b, db, fillMillion)
		exec(b, db, "PRAGMA wal_checkpoint(TRUNCATE)")
		b.StartTimer()
		first := opened(b, path)
		again := opened(b, path)
		b.ReportMetric((first - again).Seconds(), "migration-s")
		b.ReportMetric(again.Seconds(), "open-s")
	}
}

// opened says how long it takes to open a view.
func opened(b *testing.B, path string) time.Duration {
	b.Helper()
	began := time.Now()
	store, err := sqldb.Open(b.Context(), sqldb.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}
