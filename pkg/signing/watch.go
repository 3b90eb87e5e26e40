package signing

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// watchDelay is when a tag that was written is looked at for the second time: longer than any cosign takes between
	// reading a tag and writing it.
	watchDelay = 30 * time.Second
	// watchWorkers is how many tags are looked at at once. The referrers API costs Harbor more than other reads.
	watchWorkers = 2
	// maxWatched bounds what waits, in looks: some minutes of a Harbor that takes all that it can. What does not fit is left to
	// the sweeps.
	maxWatched = 8_000
)

// Watch looks at the legacy tags that this program wrote, once right after the write and once 30 s later, and merges what
// concurrent writers have overwritten. It keeps no promise across a restart: sweeps merge as well. It is safe for
// concurrent use.
type Watch struct {
	merger  *Merger
	log     zerolog.Logger
	metrics watchMetrics
	wake    chan struct{} // holds one token if there is something new

	mu    sync.Mutex
	first []watched // guarded by mu; due at once
	later []watched // guarded by mu; in the order in which they are due
}

type watched struct {
	ref     artifact.Ref
	carrier string // the manifest that was put
	due     time.Time
}

type watchMetrics struct {
	looks   *prometheus.CounterVec
	dropped prometheus.Counter
}

// NewWatch makes a Watch; Run lets it work. registerer may be nil.
func NewWatch(merger *Merger, log zerolog.Logger, registerer prometheus.Registerer) (*Watch, error) {
	if merger == nil {
		return nil, errors.New("watch: a merger is required")
	}
	w := &Watch{merger: merger, log: log, wake: make(chan struct{}, 1), metrics: watchMetrics{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_tag_looks_total",
			Help: "Looks at signature tags after they were written, by result (unchanged, merged, failed).",
		}, []string{"result"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_signing_tag_looks_dropped_total",
			Help: "Looks that were left to the sweeps because too many were waiting.",
		}),
	}}
	if registerer != nil {
		registerer.MustRegister(w.metrics.looks, w.metrics.dropped)
	}
	return w, nil
}

// Add asks for both looks at the tag of ref, under which this program has put the manifest with the digest carrier.
func (w *Watch) Add(ref artifact.Ref, carrier string) {
	now := time.Now()
	w.mu.Lock()
	if len(w.first)+len(w.later)+2 > maxWatched {
		w.mu.Unlock()
		w.metrics.dropped.Add(2)
		return
	}
	w.first = append(w.first, watched{ref: ref, carrier: carrier, due: now})
	w.later = append(w.later, watched{ref: ref, carrier: carrier, due: now.Add(watchDelay)})
	w.mu.Unlock()
	w.signal()
}

func (w *Watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends. What waits then is left to the sweeps.
func (w *Watch) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range watchWorkers {
		workers.Go(func() {
			for {
				next, ok := w.next(ctx)
				if !ok {
					return
				}
				w.look(ctx, next)
			}
		})
	}
	workers.Wait()
	return nil
}

// next waits for what is due; false if ctx has ended.
func (w *Watch) next(ctx context.Context) (watched, bool) {
	for {
		next, wait := w.take()
		if wait == 0 {
			w.signal() // there may be more for another worker
			return next, ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return watched{}, false
		case <-w.wake:
		case <-time.After(wait):
		}
	}
}

// take gives what is due, or how long to wait.
func (w *Watch) take() (watched, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.first) > 0 {
		next := w.first[0]
		w.first = w.first[1:]
		return next, 0
	}
	if len(w.later) == 0 {
		return watched{}, time.Hour
	}
	if wait := time.Until(w.later[0].due); wait > 0 {
		return watched{}, wait
	}
	next := w.later[0]
	w.later = w.later[1:]
	return next, 0
}

func (w *Watch) look(ctx context.Context, next watched) {
	log := w.log.With().Str("project", next.ref.Project()).Str("repository", next.ref.Repository()).Str("digest", next.ref.Digest()).Logger()
	changed, err := w.merger.Merge(ctx, next.ref, next.carrier)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.metrics.looks.WithLabelValues("failed").Inc()
		log.Warn().Err(err).Str("reason", string(fault.Of(err).Reason)).Msg("looking for overwritten signatures failed: a sweep will do it")
	case changed:
		w.metrics.looks.WithLabelValues("merged").Inc()
		log.Info().Msg("signatures that concurrent writers had overwritten are back")
	default:
		w.metrics.looks.WithLabelValues("unchanged").Inc()
	}
	if changed && ctx.Err() == nil {
		w.again(next)
	}
}

// again comes back to a tag that had other writers, because they may not be done.
func (w *Watch) again(next watched) {
	next.due = time.Now().Add(watchDelay)
	w.mu.Lock()
	w.later = append(w.later, next)
	w.mu.Unlock()
	w.signal()
}
