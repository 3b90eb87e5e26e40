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
	// maxWatched bounds what waits, in looks: some minutes of a Harbor that takes all that it can; and maxOfProject what one
	// project may have of it. What does not fit is left to the sweeps.
	maxWatched   = 8_000
	maxOfProject = maxWatched / 4
	// lookTimeout bounds one look.
	lookTimeout = 30 * time.Second
)

// Watch looks at the legacy tags that this program wrote, once right after the write and once 30 s later, and merges what
// concurrent writers have overwritten. It keeps no promise across a restart: sweeps merge as well. It is safe for
// concurrent use.
type Watch struct {
	merger  *Merger
	log     zerolog.Logger
	metrics watchMetrics
	wake    chan struct{} // holds one token if there is something new

	mu      sync.Mutex
	first   []watched      // guarded by mu, as all below; in the order in which they are due
	later   []watched      // in the order in which they are due
	waiting map[string]int // how many of both are of a project
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
	w := &Watch{merger: merger, log: log, wake: make(chan struct{}, 1), waiting: make(map[string]int), metrics: watchMetrics{
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
	fits := len(w.first)+len(w.later)+2 <= maxWatched && w.waiting[ref.Project()]+2 <= maxOfProject
	if fits {
		w.first = append(w.first, watched{ref: ref, carrier: carrier, due: now})
		w.later = append(w.later, watched{ref: ref, carrier: carrier, due: now.Add(watchDelay)})
		w.waiting[ref.Project()] += 2
	}
	w.mu.Unlock()
	if !fits {
		w.metrics.dropped.Add(2)
		return
	}
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

// take gives what is due, the oldest first, or how long to wait.
func (w *Watch) take() (watched, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := &w.first
	if len(w.first) == 0 || len(w.later) > 0 && w.later[0].due.Before(w.first[0].due) {
		from = &w.later
	}
	if len(*from) == 0 {
		return watched{}, time.Hour
	}
	next := (*from)[0]
	if wait := time.Until(next.due); wait > 0 {
		return watched{}, wait
	}
	*from = (*from)[1:]
	if w.waiting[next.ref.Project()]--; w.waiting[next.ref.Project()] == 0 {
		delete(w.waiting, next.ref.Project())
	}
	return next, 0
}

func (w *Watch) look(ctx context.Context, next watched) {
	log := w.log.With().Str("project", next.ref.Project()).Str("repository", next.ref.Repository()).Str("digest", next.ref.Digest()).Logger()
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	changed, err := w.merger.Merge(bounded, next.ref, next.carrier)
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
	w.waiting[next.ref.Project()]++
	w.mu.Unlock()
	w.signal()
}
