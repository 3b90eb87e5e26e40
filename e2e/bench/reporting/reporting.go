// Package reporting measures the signed-digest report on both databases: pages by filter, how deep pages cost, coverage, an export, and
// how fast events become rows. The yardsticks are measured in the same run, on the same rows.
package reporting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/postgrestest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

const (
	// batch is how many events the projector applies at once when it has fallen behind.
	batch = 1000
	// pageSize is that of all pages, and deep the number of the page that is held against the first.
	pageSize = 100
	deep     = 10_000
	// rounds is how often each thing is measured: the median counts.
	rounds = 15
)

// Options say what is measured.
type Options struct {
	// Dir is a folder for the databases.
	Dir      string
	Progress io.Writer
	// Digests is how many rows there are.
	Digests int
	// Quick sees that everything works, and judges no times.
	Quick bool
}

// run is the measuring of one database.
type run struct {
	Options
	name string
	// keyed is the condition by which a row is found, with the database's placeholders.
	keyed  string
	store  *sqldb.Store
	bare   bare
	checks *target.Checks
	byKey  time.Duration // 100 rows
}

// Run measures both databases. Without PostgreSQL's programs that half is an error.
func Run(ctx context.Context, o Options) (target.Checks, error) {
	var checks target.Checks
	sqlite := run{Options: o, name: "SQLite", keyed: "repository = ? AND digest = ?", checks: &checks}
	path := filepath.Join(o.Dir, "report.db")
	if err := sqlite.measure(ctx, sqldb.Config{Path: path}, openFile(path)); err != nil {
		return nil, fmt.Errorf("measuring SQLite: %w", err)
	}
	server, err := postgrestest.Start(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("measuring PostgreSQL: %w", err)
	}
	name, err := server.Create(ctx)
	if err == nil {
		postgres := run{Options: o, name: "PostgreSQL", keyed: "repository = $1 AND digest = $2", checks: &checks}
		cfg := sqldb.Config{Postgres: &sqldb.Postgres{Address: server.Address, Name: name, Username: postgrestest.User}}
		err = postgres.measure(ctx, cfg, openServer(server.URL(name)))
	}
	if err = errors.Join(err, server.Close()); err != nil {
		return nil, fmt.Errorf("measuring PostgreSQL: %w", err)
	}
	return checks, nil
}

func (r *run) measure(ctx context.Context, cfg sqldb.Config, connect func(ctx context.Context) (bare, error)) (err error) {
	if r.store, err = sqldb.Open(ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.store.Close()) }()
	if err := r.fill(ctx); err != nil {
		return err
	}
	if r.bare, err = connect(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.bare.Close()) }()
	if _, err := r.bare.ExecContext(ctx, "ANALYZE"); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.keys, r.filters, r.depth, r.coverage, r.export} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// add judges, unless it is a quick run.
func (r *run) add(name, want string, ok bool, value string, args ...any) {
	r.checks.Add(r.name+", "+name, want, ok || r.Quick, value, args...)
	_, _ = fmt.Fprintf(r.Progress, "%s, %s: %s\n", r.name, name, fmt.Sprintf(value, args...))
}

// fill applies the events of the population in batches of the projector's size.
func (r *run) fill(ctx context.Context) error {
	at, err := r.store.Reset(ctx, ledger.Position{}, ledgertest.Epoch(), ledger.Rules)
	if err != nil {
		return err
	}
	began, count := time.Now(), 0
	entries := make([]artifact.Entry, 0, batch)
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		err := r.store.Apply(ctx, at.Basis, entries)
		count += len(entries)
		entries = entries[:0]
		if count%(100*batch) == 0 {
			_, _ = fmt.Fprintf(r.Progress, "%s: %d events, %.0f/s\n", r.name, count, float64(count)/time.Since(began).Seconds())
		}
		return err
	}
	for entry := range ledgertest.Population(r.Digests) {
		if entries = append(entries, entry); len(entries) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	rate := float64(count) / time.Since(began).Seconds()
	r.add("projection", "at least 5000 events/s", rate >= 5000, "%.0f events/s of %d", rate, count)
	return nil
}

// median measures something so often, and gives the time in the middle.
func median(do func() error) (time.Duration, error) {
	times := make([]time.Duration, rounds)
	for i := range times {
		began := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[rounds/2], nil
}

// keys reads a hundred rows by their key: the yardstick of pages.
func (r *run) keys(ctx context.Context) error {
	page, err := r.store.Signatures(ctx, ledger.Query{Limit: pageSize})
	if err != nil {
		return err
	}
	r.byKey, err = median(func() error { return r.bare.byKey(ctx, page.Items, r.keyed) })
	r.add("100 rows by key", "yardstick", true, "%s", r.byKey.Round(10*time.Microsecond))
	return err
}

// filters reads the first page of each filter, alone and with others.
func (r *run) filters(ctx context.Context) error {
	day := ledgertest.Epoch().AddDate(1, 0, 0)
	for _, f := range []struct {
		name string
		q    ledger.Query
	}{
		{"all", ledger.Query{}},
		{"a frequent project", ledger.Query{Project: ledgertest.CommonProject}},
		{"a rare project", ledger.Query{Project: ledgertest.RareProject}},
		{"repositories by glob", ledger.Query{Project: ledgertest.CommonProject, Repository: "*"}},
		{"a rare state", ledger.Query{State: ledgertest.RareState}},
		{"a frequent tag", ledger.Query{Tag: ledgertest.CommonTag}},
		{"a rare tag", ledger.Query{Tag: ledgertest.RareTag}},
		{"a frequent key", ledger.Query{Key: ledgertest.CommonKey()}},
		{"a rare key", ledger.Query{Key: ledgertest.RareKey()}},
		{"a frequent pusher", ledger.Query{Pusher: ledgertest.CommonPusher}},
		{"a rare pusher", ledger.Query{Pusher: ledgertest.RarePusher}},
		{"a format", ledger.Query{Format: string(artifact.Legacy)}},
		{"pushed on a day", ledger.Query{PushedSince: day, PushedUntil: day.AddDate(0, 0, 1)}},
		{"signed on a day", ledger.Query{SignedSince: day, SignedUntil: day.AddDate(0, 0, 1)}},
		{"a project by signature", ledger.Query{Project: ledgertest.CommonProject, Sort: "-signed"}},
		{"a project and a state", ledger.Query{Project: ledgertest.CommonProject, State: ledger.Signed}},
		{"a project, a state and a key", ledger.Query{Project: ledgertest.CommonProject, State: ledger.Signed, Key: ledgertest.CommonKey()}},
	} {
		f.q.Limit = pageSize
		took, err := median(func() error {
			_, err := r.store.Signatures(ctx, f.q)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		ratio := took.Seconds() / r.byKey.Seconds()
		r.add("page of "+f.name, "at most 10 x by key", ratio <= 10, "%.2f x (%s)", ratio, took.Round(10*time.Microsecond))
	}
	return nil
}

// depth holds a page far behind against the first.
func (r *run) depth(ctx context.Context) error {
	q := ledger.Query{Limit: pageSize}
	last := min(deep, r.Digests/pageSize) - 1
	for range last {
		page, err := r.store.Signatures(ctx, q)
		if err != nil {
			return err
		}
		q.Cursor = page.NextCursor
	}
	first, err := median(func() error {
		_, err := r.store.Signatures(ctx, ledger.Query{Limit: pageSize})
		return err
	})
	if err != nil {
		return err
	}
	far, err := median(func() error {
		_, err := r.store.Signatures(ctx, q)
		return err
	})
	ratio := far.Seconds() / first.Seconds()
	r.add(fmt.Sprintf("page %d", last+1), "at most 1.3 x page 1", ratio <= 1.3, "%.2f x (%s)", ratio, far.Round(10*time.Microsecond))
	return err
}

// coverage reads that of the largest project.
func (r *run) coverage(ctx context.Context) error {
	took, err := median(func() error {
		_, err := r.store.CoverageReport(ctx, ledger.CoverageQuery{Project: ledgertest.CommonProject})
		return err
	})
	ok := took <= 5*time.Millisecond || took <= 3*r.byKey/pageSize
	r.add("coverage of a project", "at most 5 ms, or 3 x a row by key", ok, "%s", took.Round(10*time.Microsecond))
	return err
}
