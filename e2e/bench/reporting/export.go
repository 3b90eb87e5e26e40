package reporting

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the yardstick
	_ "modernc.org/sqlite"             // as above

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/report"
)

// maxMemory is what an export may need.
const maxMemory = 128 << 20

// bare is the database without the store. joined gives the names of a unit in a table, in one text.
type bare struct {
	*sql.DB

	joined func(table string) string
}

func joinedBy(function string) func(table string) string {
	return func(table string) string {
		return "(SELECT " + function + "(name, ' ') FROM " + table + " WHERE unit_id = units.id)"
	}
}

func openFile(path string) func(context.Context) (bare, error) {
	return func(context.Context) (bare, error) {
		db, err := sql.Open("sqlite", path)
		return bare{db, joinedBy("group_concat")}, err
	}
}

func openServer(url string) func(context.Context) (bare, error) {
	return func(ctx context.Context) (bare, error) {
		admin, err := sql.Open("pgx", url)
		if err != nil {
			return bare{}, err
		}
		var schema string
		err = admin.QueryRowContext(ctx, "SELECT name FROM harborseal.served_view").Scan(&schema)
		if err = errors.Join(err, admin.Close()); err != nil {
			return bare{}, err
		}
		db, err := sql.Open("pgx", url+"&search_path="+schema)
		return bare{db, joinedBy("string_agg")}, err
	}
}

// selected are the columns of units that an export shows.
const selected = "project, repository, digest, media_type, state, reason, detail, pusher_source, shown_pusher, pushed_at, first_seen_at, " +
	"received_at, signed_at, verified_at, how, signatures, paid_signatures, note, owed, debts, paid_reason, attempts, policy_revision, last_seq"

// byKey reads rows by their keys, one after the other.
func (b bare) byKey(ctx context.Context, rows []ledger.Row, placeholders string) (err error) {
	stmt, err := b.PrepareContext(ctx, "SELECT "+selected+", "+b.joined("tags")+", "+b.joined("parents")+" FROM units WHERE "+placeholders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for _, row := range rows {
		found, err := stmt.QueryContext(ctx, row.Repository, row.Digest)
		if err != nil {
			return err
		}
		if !found.Next() {
			err = fmt.Errorf("there is no %s@%s", row.Repository, row.Digest)
		}
		if err = errors.Join(err, found.Err(), found.Close()); err != nil {
			return err
		}
	}
	return nil
}

// read reads all rows with the columns of an export, in its order.
func (b bare) read(ctx context.Context) (rows int, err error) {
	found, err := b.QueryContext(ctx, "SELECT "+selected+", "+b.joined("tags")+", "+b.joined("parents")+
		" FROM units ORDER BY first_seen_at DESC, first_seq DESC")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	names, err := found.Columns()
	if err != nil {
		return 0, err
	}
	values := make([]sql.RawBytes, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	for found.Next() {
		if err := found.Scan(into...); err != nil {
			return rows, err
		}
		rows++
	}
	return rows, found.Err()
}

// export holds an export in CSV against a bare SELECT of the same columns. What Go's heap grows by meanwhile is what it needs.
func (r *run) export(ctx context.Context) error {
	began := time.Now()
	rows, err := r.bare.read(ctx)
	if err != nil {
		return fmt.Errorf("reading the rows: %w", err)
	}
	plain := float64(rows) / time.Since(began).Seconds()
	exporter, err := report.New(report.Config{View: r.store, Harbor: "bench", Registry: "harbor.example.com", Program: "bench"})
	if err != nil {
		return err
	}
	stop := watchHeap()
	began = time.Now()
	result, err := exporter.Export(ctx, io.Discard, report.Request{Query: ledger.Query{}, Format: report.CSV, Actor: "bench"})
	grown := stop()
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	rate := float64(result.Rows) / time.Since(began).Seconds()
	if result.Rows != uint64(rows) { //nolint:gosec // it counts
		return fmt.Errorf("the export has %d rows of %d", result.Rows, rows)
	}
	r.add("CSV", "at least 0.5 of a bare SELECT", rate >= plain/2, "%.2f (%.0f rows/s of %.0f)", rate/plain, rate, plain)
	r.add("memory of an export", "below 128 MiB", grown < maxMemory, "%.0f MiB", float64(grown)/(1<<20))
	return nil
}

// watchHeap measures by how much the heap grows until it is stopped.
func watchHeap() (stop func() uint64) {
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan struct{})
	var most uint64
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	return func() uint64 {
		close(done)
		watching.Wait()
		if most < before.HeapInuse {
			return 0
		}
		return most - before.HeapInuse
	}
}
