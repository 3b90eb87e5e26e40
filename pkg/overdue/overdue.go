// Package overdue asks again for what the ledger has received and the queue knows nothing of.
//
// A receiver records that a push came in before it queues the request. If it ends between the two, or the queue fails, Harbor
// repeats the delivery. Where Harbor does not, because it was the third attempt, or because its jobservice was started anew, the
// report says "pending" and nobody works on it. This package finds such digests within about [After], and asks for them in the
// lane of bulk work; a full sweep of the project would find them too, within a day.
//
// It asks for what was received, has had no event since [After], and has no request in the queue. The signer decides about it as
// about any push. It needs no leader: the queue takes one request for a digest, however many receivers ask.
package overdue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
)

const (
	// After is how long there must have been no event about a digest. Whoever works on it has recorded something by then.
	After = 10 * time.Minute
	// Interval is the time between two looks.
	Interval = time.Minute
	// pageSize is how many digests are read at once, and maxPages bounds a look: the next one goes on behind it.
	pageSize = 100
	maxPages = 20
	// actor stands in requests that nobody asked for.
	actor = artifact.Self
)

// Place is where a page of the view ends. The zero value is the beginning.
type Place struct {
	FirstSeenAt time.Time
	FirstSeq    uint64
}

// IsZero says whether nothing comes before.
func (p Place) IsZero() bool { return p.FirstSeq == 0 }

// View is the report's view.
type View interface {
	// Overdue gives digests that were received, are pending, and have had no event above a sequence: those behind a place, the
	// oldest first. next is zero at the end. While the view has not come as far as the sequence there are none: what it calls
	// pending may have been signed.
	Overdue(ctx context.Context, upTo uint64, after Place, limit int) (refs []artifact.Ref, next Place, err error)
}

// Queue takes requests. Each method makes one attempt.
type Queue interface {
	// LedgerSeq is the sequence of the newest event of those that the view is made of.
	LedgerSeq(ctx context.Context) (uint64, error)
	// Waits says whether a request for a manifest is stored, in work or not.
	Waits(ctx context.Context, ref artifact.Ref) (bool, error)
	// Enqueue stores a request; one that is stored already is a duplicate, and a success.
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
}

// Config is what a Watch needs.
type Config struct {
	View       View
	Queue      Queue
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Watch looks now and then. It is for one goroutine.
type Watch struct {
	cfg   Config
	asked prometheus.Counter
	fails prometheus.Counter
	// marks are how far the ledger was at the last looks, oldest first.
	marks []mark
	after Place
}

type mark struct {
	at  time.Time
	seq uint64
}

// New validates the configuration.
func New(cfg Config) (*Watch, error) {
	if cfg.View == nil || cfg.Queue == nil {
		return nil, errors.New("overdue: view and queue are required")
	}
	w := &Watch{
		cfg: cfg,
		asked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_overdue_requests_total", Help: "Digests that were received, and asked for again because the queue knew nothing of them.",
		}),
		fails: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_overdue_errors_total", Help: "Looks for digests that were received and never queued that failed.",
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w.asked, w.fails)
	}
	return w, nil
}

// Run looks until ctx ends. What fails is looked at again.
func (w *Watch) Run(ctx context.Context) error {
	for {
		if err := w.Once(ctx); err != nil && ctx.Err() == nil {
			w.fails.Inc()
			w.cfg.Logger.Warn().Err(err).Msg("looking for pushes that were received and never queued failed: it is tried again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(Interval):
		}
	}
}

// Once looks once. It asks for nothing before it has run for [After]: until then it cannot tell how old the events are.
//
// A crash after a request was stored repeats nothing: the digest waits then.
func (w *Watch) Once(ctx context.Context) error {
	now := time.Now()
	seq, err := w.cfg.Queue.LedgerSeq(ctx)
	if err != nil {
		return fmt.Errorf("asking how far the ledger is: %w", err)
	}
	if n := len(w.marks); n > 0 && seq < w.marks[n-1].seq {
		w.marks, w.after = nil, Place{} // another ledger
	}
	w.marks = append(w.marks, mark{now, seq})
	for len(w.marks) > 1 && now.Sub(w.marks[1].at) >= After {
		w.marks = w.marks[1:]
	}
	oldest := w.marks[0]
	if now.Sub(oldest.at) < After || oldest.seq == 0 {
		return nil
	}
	for range maxPages {
		refs, next, err := w.cfg.View.Overdue(ctx, oldest.seq, w.after, pageSize)
		if err != nil {
			return fmt.Errorf("reading what is pending: %w", err)
		}
		for _, ref := range refs {
			if err := w.look(ctx, ref, now); err != nil {
				return err
			}
		}
		if w.after = next; next.IsZero() {
			return nil
		}
	}
	return nil
}

func (w *Watch) look(ctx context.Context, ref artifact.Ref, now time.Time) error {
	waits, err := w.cfg.Queue.Waits(ctx, ref)
	if err != nil {
		return fmt.Errorf("looking for the request for %s: %w", ref, err)
	}
	if waits {
		return nil
	}
	correlation := "overdue-" + artifact.EventID(artifact.Received, ref, now.UTC().Format(time.RFC3339Nano))
	duplicate, err := w.cfg.Queue.Enqueue(ctx, artifact.Request{
		Ref: ref, Lane: artifact.Bulk, Origin: artifact.OriginRequeue, Actor: actor, CorrelationID: correlation, RequestedAt: now.UTC(),
	})
	if err != nil {
		return fmt.Errorf("asking for %s: %w", ref, err)
	}
	if duplicate {
		return nil
	}
	w.asked.Inc()
	w.cfg.Logger.Warn().Str("project", ref.Project()).Str("repository", ref.Repository()).Str("digest", ref.Digest()).
		Str("correlation_id", correlation).Str("outcome", "requested").Msg("a push was received and never queued: it is asked for")
	return nil
}
