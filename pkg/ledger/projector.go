package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// How a projector waits. After an error the delay doubles from the least to the most and is drawn at random below that,
// so that several receivers do not come back at once.
const (
	leastDelay    = 200 * time.Millisecond
	mostDelay     = 30 * time.Second
	watchInterval = 5 * time.Second
	askTimeout    = 5 * time.Second
)

var (
	// errEnded says that a source stopped giving events although nobody had asked it to.
	errEnded = errors.New("the source ended")
	// errReplaced says that the stream is no longer the one that is being followed.
	errReplaced = errors.New("the stream was replaced, or went back")
)

// source is the stream of events. It retries nothing: the projector asks again.
type source interface {
	// Events calls fn with the entries after a sequence, in the order of the stream, in batches of at least one entry, and
	// waits for more at its end. It returns when ctx is done, when fn returns an error, or when reading fails. An entry
	// whose event is zero stands for one that this program cannot read: it only moves the position. fn is called by one
	// goroutine at a time, and never after Events has returned. Events need not notice that the stream was replaced
	// beneath it: the projector looks for that.
	Events(ctx context.Context, after uint64, fn func(ctx context.Context, batch []artifact.Entry) error) error
	// LedgerState gives the first and last sequence that the stream holds and when it was created. A stream that is empty
	// has last = first - 1, or both 0.
	LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error)
}

// view is where the rows are. Each method is atomic and durable on its own, safe for concurrent use (by several programs
// too), and makes one attempt.
type view interface {
	// Position gives how far the view has come; the zero value for one that was never filled.
	Position(ctx context.Context) (Position, error)
	// Reset deletes all rows and begins anew on a stream and rules, at sequence 0, provided that the view still stands where
	// the caller saw it: two programs that see the same difference reset it once. Otherwise [ErrOtherBasis].
	Reset(ctx context.Context, seen Position, stream time.Time, rules int) (Position, error)
	// Apply brings rows and position forward in one transaction: after a crash both are there, or neither. Applying
	// entries again changes nothing. [ErrOtherBasis] if the view rests on something else by now.
	Apply(ctx context.Context, basis Basis, entries []artifact.Entry) error
}

// ProjectorConfig is what a projector needs. Source and View are required.
type ProjectorConfig struct {
	Source source
	View   view
	Logger zerolog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Observer is told what is in the view; nil means nobody.
	Observer Observer
}

// Observer is told of entries once they are in the view, by this receiver or by another one, in the order of the stream. Entries may
// come again. No entries mean that some have come into the view unseen: another receiver has brought them there while this one did not
// follow, or the answer to a commit was lost. It is called by one goroutine at a time, and must not block: the projection waits for it.
type Observer interface {
	Observe(entries []artifact.Entry)
}

// Projector keeps a view in step with the stream. It loses nothing and needs no shutdown: its only memory is the position
// in the view.
type Projector struct {
	source   source
	view     view
	logger   zerolog.Logger
	metrics  *metrics
	observer Observer
	health   health
	// applied is the sequence that this projector knows to be in the view.
	applied atomic.Uint64
	// observed is up to where the observer was told; of the goroutine of Run.
	observed uint64
}

// NewProjector makes a projector. It starts nothing.
func NewProjector(cfg ProjectorConfig) (*Projector, error) {
	if cfg.Source == nil || cfg.View == nil {
		return nil, errors.New("making a projector: Source and View are required")
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("making a projector: %w", err)
	}
	return &Projector{source: cfg.Source, view: cfg.View, logger: cfg.Logger, metrics: m, observer: cfg.Observer}, nil
}

// Run projects until ctx is done, and then returns nil. It outlives every error: whatever fails, the view falls behind,
// which the metrics tell, and catches up once it is possible again. At most one Run of a projector at a time.
func (p *Projector) Run(ctx context.Context) error {
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { p.watchLag(ctx) })

	for failures := 0; ; failures++ {
		progressed, err := p.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if progressed {
			failures = 0
		}
		delay := backoff(failures)
		p.health.stopped(err)
		p.metrics.errors.Inc()
		p.logger.Warn().Err(err).Int("failures", failures+1).Dur("retry_in", delay).Msg("ledger projection stopped and will be tried again")
		if !wait(ctx, delay) {
			return nil
		}
	}
}

// follow brings the view to the end of the stream and keeps it there. It returns only with an error; progressed says
// whether anything was applied before.
func (p *Projector) follow(ctx context.Context) (progressed bool, err error) {
	position, err := p.prepare(ctx)
	if err != nil {
		return false, fmt.Errorf("following the ledger: %w", err)
	}
	if p.observer != nil && position.Seq > p.observed {
		p.observer.Observe(nil)
	}
	p.observed = position.Seq
	p.reached(position.Seq)
	p.health.started()

	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel(nil)
	watcher.Go(func() {
		cancel(p.untilReplaced(ctx, position.Basis))
	})

	err = p.source.Events(ctx, position.Seq, func(ctx context.Context, batch []artifact.Entry) error {
		if len(batch) == 0 {
			return nil
		}
		// A crash before the commit in Apply leaves the view as it was, and the batch is read again; one after it goes on
		// behind the batch. Nothing is acknowledged to the stream, so there is nothing in between.
		began := time.Now()
		if err := p.view.Apply(ctx, position.Basis, batch); err != nil {
			return fmt.Errorf("applying events %d to %d: %w", batch[0].Seq, batch[len(batch)-1].Seq, err)
		}
		progressed = true
		p.health.going()
		p.reached(batch[len(batch)-1].Seq)
		p.metrics.applied(batch, time.Since(began))
		if p.observer != nil {
			p.observer.Observe(batch)
		}
		p.observed = batch[len(batch)-1].Seq
		return nil
	})
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case err == nil:
		err = errEnded
	default:
	}
	return progressed, fmt.Errorf("following the ledger: %w", err)
}

func (p *Projector) reached(seq uint64) {
	p.applied.Store(seq)
	p.metrics.position.Set(float64(seq))
}

// prepare makes sure that the view rests on the stream as it is now, and gives the position from which to go on.
func (p *Projector) prepare(ctx context.Context) (Position, error) {
	// The position first: asked for second, it could have been brought beyond the answer by another receiver, and look as
	// if the stream had gone back.
	position, err := p.view.Position(ctx)
	if err != nil {
		return Position{}, fmt.Errorf("asking for the view's position: %w", err)
	}
	first, last, created, err := p.state(ctx)
	if err != nil {
		return Position{}, err
	}
	if position.Rules > Rules {
		return Position{}, fmt.Errorf("the view was made by rules of version %d, this program knows up to %d: upgrade it", position.Rules, Rules)
	}
	why := rebuildReason(position, created, last)
	if why == "" {
		if position.Seq > 0 && first > position.Seq+1 {
			// Older events have expired before they were projected: their rows stay as they are, and nobody can tell more.
			p.logger.Error().Uint64("position", position.Seq).Uint64("first", first).Msg("ledger events have expired before they were projected")
		}
		return position, nil
	}
	level := zerolog.WarnLevel
	if why == firstFilling {
		level = zerolog.InfoLevel
	}
	p.logger.WithLevel(level).Str("reason", why).Uint64("position", position.Seq).Uint64("last", last).Msg("rebuilding the ledger's view from the stream")
	// A crash before the reset finds the same difference again; one after it finds an empty view on the right basis.
	position, err = p.view.Reset(ctx, position, created, Rules)
	if err != nil {
		return Position{}, fmt.Errorf("resetting the view: %w", err)
	}
	p.metrics.rebuilds.Inc()
	return position, nil
}

// firstFilling is the reason that is nothing unusual.
const firstFilling = "empty"

// rebuildReason says why the view cannot be continued; empty if it can.
func rebuildReason(position Position, stream time.Time, last uint64) string {
	switch {
	case position.Equal(Position{}):
		return firstFilling
	case !position.Stream.Equal(stream):
		return "other_stream"
	case position.Rules != Rules:
		return "other_rules"
	case position.Seq > last:
		return "stream_went_back"
	default:
		return ""
	}
}

// untilReplaced looks again and again whether the stream is still the one that was created then, and the view on the same basis,
// and says what has changed; nil once ctx is done. A source that reconnects by itself would go on in the new stream at the sequence where
// it left the old one, and a view that was lost, or replaced by another receiver, may be noticed only when the next event comes.
func (p *Projector) untilReplaced(ctx context.Context, basis Basis) error {
	for wait(ctx, watchInterval) {
		applied := p.applied.Load() // before the state, which only grows
		_, last, now, err := p.state(ctx)
		if err == nil && (!now.Equal(basis.Stream) || last < applied) {
			return errReplaced
		}
		position, err := p.view.Position(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // nobody asks any more
		case err != nil:
			return fmt.Errorf("asking for the view's position: %w", err)
		case !position.Basis.Equal(basis) || position.Seq < applied:
			return ErrOtherBasis
		case last <= applied:
			p.health.going()
		default:
		}
	}
	return nil
}

// watchLag measures how far the view is behind, also while nothing can be applied.
func (p *Projector) watchLag(ctx context.Context) {
	for wait(ctx, watchInterval) {
		_, last, _, err := p.state(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.logger.Debug().Err(err).Msg("ledger lag not measured")
			}
			continue
		}
		p.metrics.setLag(last, p.applied.Load())
	}
}

func (p *Projector) state(ctx context.Context) (first, last uint64, created time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if first, last, created, err = p.source.LedgerState(ctx); err != nil {
		return 0, 0, time.Time{}, fmt.Errorf("asking for the ledger's state: %w", err)
	}
	return first, last, created, nil
}

// backoff gives the delay before the next attempt, after so many failures without progress before this one.
func backoff(failures int) time.Duration {
	ceiling := mostDelay
	if failures < 8 {
		ceiling = min(mostDelay, leastDelay<<failures)
	}
	return ceiling/2 + rand.N(ceiling/2) //nolint:gosec // jitter is no secret
}

// wait gives false if ctx is done first.
func wait(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
