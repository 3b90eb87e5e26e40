package receiver

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/overdue"
	"github.com/harborseal/harborseal/pkg/queue"
)

// watchOverdue asks again for what was received and never queued.
func (a *App) watchOverdue(ctx context.Context) error {
	watch, err := overdue.New(overdue.Config{
		View: a.store, Queue: overdueQueue{a.queue, a.places}, Logger: a.logger, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	return watch.Run(ctx)
}

// overdueQueue is the queue as package overdue needs it.
type overdueQueue struct {
	*queue.Client

	places *queue.Places
}

// LedgerSeq implements overdue.Queue: of this harbor's events, because the view comes no further.
func (q overdueQueue) LedgerSeq(ctx context.Context) (uint64, error) {
	entry, _, err := q.NewestOf(ctx, "")
	return entry.Seq, err
}

// Waits implements overdue.Queue.
func (q overdueQueue) Waits(ctx context.Context, ref artifact.Ref) (bool, error) {
	place, err := q.places.Place(ctx, ref)
	return place.Lane != "", err
}
