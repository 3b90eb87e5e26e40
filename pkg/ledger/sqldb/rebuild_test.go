package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// until waits for a condition.
func until(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			tb.Fatalf("not within 30 s: %s", what)
		case <-tick.C:
		}
	}
}

// background runs something until the test ends.
func background(t *testing.T, run func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
	})
}

func projecting(t *testing.T, stream *ledgertest.Stream, store *sqldb.Store) {
	t.Helper()
	projector(t, stream, store)
}

func rebuilder(t *testing.T, stream *ledgertest.Stream, store *sqldb.Store) *ledger.Rebuilder {
	t.Helper()
	r, err := ledger.NewRebuilder(ledger.RebuilderConfig{Source: stream, Views: store, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatalf("NewRebuilder: %v", err)
	}
	background(t, r.Run)
	return r
}

func filled(tb testing.TB, histories int) (*ledgertest.Stream, uint64) {
	tb.Helper()
	stream := ledgertest.NewStream(ledgertest.Epoch())
	stream.BatchSize = 7
	last := uint64(0)
	for seed := range histories {
		for _, entry := range ledgertest.Histories().Example(seed) {
			last = stream.Append(entry.Event)
		}
	}
	return stream, last
}

func reached(tb testing.TB, store *sqldb.Store, seq uint64) {
	tb.Helper()
	until(tb, fmt.Sprintf("position %d", seq), func() bool {
		position, err := store.Position(tb.Context())
		return err == nil && position.Seq >= seq
	})
}

// TestRebuildBeside rebuilds a view that others read and write: two receivers on PostgreSQL. It must be the same in the end, go on
// after that, in both, and after opening again, and nothing must remain of the old one.
func TestRebuildBeside(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		stream, last := filled(t, 60)
		one := d.open(t)
		projecting(t, stream, one)
		two := one
		if d.name == "postgres" {
			two = d.open(t)
			projecting(t, stream, two)
		}
		reached(t, one, last)
		want := dump(t, d.served(t))
		before, err := one.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		r := rebuilder(t, stream, one)
		if got := r.Status(); got.State != ledger.RebuildNone {
			t.Errorf("Status() = %+v, want none", got)
		}
		for round := 1; round <= 2; round++ {
			exec(t, d.served(t), "UPDATE units SET note = 'wrong'") // what no event says
			if got, err := r.Start(); err != nil || got.State != ledger.RebuildRunning {
				t.Fatalf("Start() = %+v, %v; want that it runs", got, err)
			}
			until(t, "rebuilt", func() bool {
				if got := len(ledgertest.All(t, one, ledger.Query{})); got == 0 {
					t.Fatal("the view is empty while it is rebuilt")
				}
				return r.Status().State != ledger.RebuildRunning
			})
			got := r.Status()
			if got.State != ledger.RebuildDone || got.Position != last || got.Last != last || got.Events == 0 || got.EndedAt == nil || got.EventsPerSecond <= 0 {
				t.Errorf("Status() = %+v, want that it is done, at %d", got, last)
			}
			sameTables(t, "rebuilt", dump(t, d.served(t)), want)
		}
		after, err := one.Position(t.Context())
		if err != nil || after.Basis.Equal(before.Basis) || after.Seq != last {
			t.Errorf("Position() = %+v, %v; want %d and another basis than %+v", after, err, last, before)
		}

		last = stream.Append(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/new", 1)))
		reached(t, one, last)
		reached(t, two, last)
		for _, store := range []*sqldb.Store{one, two, d.open(t)} {
			if rows := ledgertest.All(t, store, ledger.Query{Repository: "demo/new"}); len(rows) != 1 {
				t.Errorf("rows of the new repository = %+v, want one", rows)
			}
		}
		left(t, d)
	})
}

// left looks for what remains of views that are not served.
func left(t *testing.T, d database) {
	t.Helper()
	if d.name == "sqlite" {
		if _, err := os.Stat(d.cfg.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file of the first view is still there: %v", err)
		}
		return
	}
	var schemas int
	err := d.served(t).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_namespace WHERE nspname LIKE 'harborseal%'").Scan(&schemas)
	if err != nil || schemas != 2 {
		t.Errorf("%d schemas, %v; want that of the service and that of the view", schemas, err)
	}
}

// TestRebuildThatFails leaves the old view as it was, and can be tried again.
func TestRebuildThatFails(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		stream, last := filled(t, 10)
		store := d.open(t)
		projecting(t, stream, store)
		reached(t, store, last)
		want := dump(t, d.served(t))
		r := rebuilder(t, stream, store)
		stream.Fail(errors.New("the stream is down"))
		if _, err := r.Start(); err != nil {
			t.Fatalf("Start: %v", err)
		}
		until(t, "failed", func() bool { return r.Status().State == ledger.RebuildFailed })
		if got := r.Status(); got.Error == "" || got.EndedAt == nil {
			t.Errorf("Status() = %+v, want an error", got)
		}
		sameTables(t, "not rebuilt", dump(t, d.served(t)), want)
		stream.Fail(nil)
		if _, err := r.Start(); err != nil {
			t.Fatalf("Start: %v", err)
		}
		if _, err := r.Start(); !errors.Is(err, ledger.ErrRebuilding) && r.Status().State == ledger.RebuildRunning {
			t.Errorf("Start twice: error %v, want ErrRebuilding", err)
		}
		until(t, "rebuilt", func() bool { return r.Status().State == ledger.RebuildDone })
		sameTables(t, "rebuilt", dump(t, d.served(t)), want)
	})
}
