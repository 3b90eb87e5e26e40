package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// ErrRebuilding says that a rebuild runs already.
var ErrRebuilding = errors.New("a rebuild runs already: ask for its status")

// Beside is a new view beside the one that is served. It is for one goroutine.
type Beside interface {
	view
	// Promote puts it in the place of the view that is served, if it has come as far: false if it has not. Afterwards the other one
	// cannot be written to, by anybody.
	Promote(ctx context.Context) (bool, error)
	// Close ends it. The view that is not served any more, or never was, is deleted once nobody reads it.
	Close(ctx context.Context) error
}

// shelf is where views are kept.
type shelf interface {
	// Beside makes an empty view. Only one is made at a time, by all programs together.
	Beside(ctx context.Context) (Beside, error)
}

// RebuildState is how a rebuild stands.
type RebuildState string

// The states.
const (
	RebuildNone    RebuildState = "none"    // there was none since this program started
	RebuildRunning RebuildState = "running" // the old view is served meanwhile
	RebuildDone    RebuildState = "done"
	RebuildFailed  RebuildState = "failed" // the old view is served as before
)

// RebuildStatus is how the last rebuild of this program stands.
type RebuildStatus struct {
	State     RebuildState `json:"state"`
	StartedAt *time.Time   `json:"started_at"` // null if there was none
	EndedAt   *time.Time   `json:"ended_at"`   // null while it runs
	// Position is the sequence up to which events are in the new view, Last the newest one of the ledger.
	Position uint64 `json:"position"`
	Last     uint64 `json:"last"`
	Events   uint64 `json:"events"`
	// EventsPerSecond is the mean since the start.
	EventsPerSecond float64 `json:"events_per_second"`
	Error           string  `json:"error"` // empty unless it failed
}

// RebuilderConfig is what a rebuilder needs. Source and Views are required.
type RebuilderConfig struct {
	Source source
	Views  shelf
	// Newest gives the sequence of the newest event that the source gives, 0 if there is none: the stream may hold those of other
	// harbors. nil means that it holds no others.
	Newest func(ctx context.Context) (uint64, error)
	Logger zerolog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Rebuilder fills a new view from the stream while the old one is served and kept up to date, and then puts it in its place. Digests
// whose events have all expired are not in the new one. It is safe for concurrent use.
type Rebuilder struct {
	source  source
	views   shelf
	newest  func(ctx context.Context) (uint64, error)
	logger  zerolog.Logger
	now     func() time.Time
	started chan struct{}

	mu     sync.Mutex
	status RebuildStatus // guarded by mu
}

// NewRebuilder makes a rebuilder. It starts nothing.
func NewRebuilder(cfg RebuilderConfig) (*Rebuilder, error) {
	if cfg.Source == nil || cfg.Views == nil {
		return nil, errors.New("making a rebuilder: Source and Views are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Rebuilder{
		source: cfg.Source, views: cfg.Views, newest: cfg.Newest, logger: cfg.Logger, now: cfg.Now, started: make(chan struct{}, 1),
		status: RebuildStatus{State: RebuildNone},
	}, nil
}

// Start has Run rebuild the view, and gives the status at once. [ErrRebuilding] if it does so already.
func (r *Rebuilder) Start() (RebuildStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State == RebuildRunning {
		return r.status, ErrRebuilding
	}
	at := r.now().UTC()
	r.status = RebuildStatus{State: RebuildRunning, StartedAt: &at}
	r.started <- struct{}{} // Run has taken the one before: the state says so
	return r.status, nil
}

// Status is how the last rebuild stands.
func (r *Rebuilder) Status() RebuildStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run does what Start asks for until ctx is done, and then returns nil. At most one Run at a time.
func (r *Rebuilder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.started:
		}
		r.logger.Info().Msg("rebuilding the ledger's view beside the one that is served")
		err := r.rebuild(ctx)
		status := r.ended(err)
		if err != nil {
			r.logger.Error().Err(err).Uint64("position", status.Position).Msg("the ledger's view was not rebuilt: the old one is served as before")
			continue
		}
		r.logger.Info().Uint64("events", status.Events).Float64("events_per_second", status.EventsPerSecond).
			Msg("the ledger's view was rebuilt and took the place of the old one")
	}
}

// ended writes down how it ended.
func (r *Rebuilder) ended(err error) RebuildStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now().UTC()
	r.status.EndedAt, r.status.State = &at, RebuildDone
	if err != nil {
		r.status.State, r.status.Error = RebuildFailed, err.Error()
	}
	return r.status
}

// errPromoted ends the reading of the stream.
var errPromoted = errors.New("the view is in its place")

// rebuild makes one attempt. A crash at any point leaves the old view or the new one, whole; what remains of the other is removed by
// the next rebuild.
func (r *Rebuilder) rebuild(ctx context.Context) (err error) {
	fresh, err := r.views.Beside(ctx)
	if err != nil {
		return fmt.Errorf("making a view beside the old one: %w", err)
	}
	defer func() {
		// Closing waits for whoever reads the old view, within limits of its own.
		if closed := fresh.Close(context.WithoutCancel(ctx)); closed != nil && err == nil {
			r.logger.Warn().Err(closed).Msg("what remains of the old view is removed by the next rebuild")
		}
	}()
	first, last, created, err := r.state(ctx)
	if err != nil {
		return err
	}
	basis, err := fresh.Position(ctx)
	if err != nil {
		return fmt.Errorf("asking for the new view's position: %w", err)
	}
	if basis, err = fresh.Reset(ctx, basis, created, Rules); err != nil {
		return fmt.Errorf("beginning the new view: %w", err)
	}
	r.progress(0, 0, last)
	if first > last || last == 0 { // there is nothing to read
		return r.promote(ctx, fresh)
	}
	err = r.source.Events(ctx, 0, func(ctx context.Context, batch []artifact.Entry) error {
		if err := fresh.Apply(ctx, basis.Basis, batch); err != nil {
			return fmt.Errorf("applying events %d to %d: %w", batch[0].Seq, batch[len(batch)-1].Seq, err)
		}
		seq := batch[len(batch)-1].Seq
		if r.progress(seq, len(batch), 0) {
			return nil
		}
		// What has come since is asked for only now that it matters.
		_, last, now, err := r.state(ctx)
		if err != nil {
			return err
		}
		if !now.Equal(created) {
			return errReplaced
		}
		r.progress(seq, 0, last)
		promoted, err := fresh.Promote(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("putting the new view in its place: %w", err)
		case promoted:
			return errPromoted
		default: // the old one is ahead: it goes on
			return nil
		}
	})
	switch {
	case errors.Is(err, errPromoted):
		return nil
	case err == nil:
		return errEnded
	default:
		return fmt.Errorf("reading the ledger: %w", err)
	}
}

// state gives the first sequence of the stream, the last one that will come, and when the stream was made.
func (r *Rebuilder) state(ctx context.Context) (first, last uint64, created time.Time, err error) {
	if first, last, created, err = r.source.LedgerState(ctx); err != nil {
		return 0, 0, time.Time{}, fmt.Errorf("asking for the ledger's state: %w", err)
	}
	if r.newest == nil {
		return first, last, created, nil
	}
	newest, err := r.newest(ctx)
	if err != nil {
		return 0, 0, time.Time{}, fmt.Errorf("asking for the newest event: %w", err)
	}
	return first, min(last, newest), created, nil
}

func (r *Rebuilder) promote(ctx context.Context, fresh Beside) error {
	promoted, err := fresh.Promote(ctx)
	if err == nil && !promoted {
		err = errReplaced
	}
	if err != nil {
		return fmt.Errorf("putting the new view in its place: %w", err)
	}
	return nil
}

// progress writes down how far the new view has come, and says whether there is more to read for sure.
func (r *Rebuilder) progress(seq uint64, events int, last uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Position = max(r.status.Position, seq)
	r.status.Last = max(r.status.Last, last)
	r.status.Events += uint64(events) //nolint:gosec // a number of events
	if took := r.now().Sub(*r.status.StartedAt).Seconds(); took > 0 {
		r.status.EventsPerSecond = float64(r.status.Events) / took
	}
	return r.status.Position < r.status.Last
}
