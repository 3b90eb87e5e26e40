package sqldb_test

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// shared is a stream in which the newest events are another harbor's: they count, and are not given.
type shared struct{ *ledgertest.Stream }

func (s shared) LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error) {
	first, last, created, err = s.Stream.LedgerState(ctx)
	return max(first, 1), last + 10, created, err
}

// TestRebuildBesideOtherHarbors ends at the newest event of its own, and at once where there is none.
func TestRebuildBesideOtherHarbors(t *testing.T) {
	t.Parallel()
	for _, histories := range []int{0, 10} {
		stream, last := filled(t, histories)
		d := sqliteDatabase(t)
		store := d.open(t)
		projecting(t, stream, store)
		reached(t, store, last)
		r, err := ledger.NewRebuilder(ledger.RebuilderConfig{
			Source: shared{stream}, Views: store, Logger: zerolog.Nop(),
			Newest: func(context.Context) (uint64, error) { return last, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		background(t, r.Run)
		if _, err := r.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "rebuilt", func() bool { return r.Status().State != ledger.RebuildRunning })
		if s := r.Status(); s.State != ledger.RebuildDone || s.Position != last {
			t.Errorf("%d histories: %+v, want done at %d", histories, s, last)
		}
	}
}
