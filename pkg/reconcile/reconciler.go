package reconcile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// The kinds of ticks.
const (
	// Full compares the whole population of the project that is the tick's key.
	Full = "full"
	// Recent looks at what was pushed lately in the whole Harbor; its key is empty.
	Recent = "recent"
)

// actor is who the ledger names for what sweeps do.
const actor = "reconciler"

// Config is what a Reconciler needs.
type Config struct {
	Harbor   Harbor
	Queue    Queue
	Policies Policies
	Memory   Memory
	Verifier Verifier
	State    State
	// Budget is what Harbor's client waits for as well; nil for no limit.
	Budget *Budget
	// OwnAccounts are the accounts by which signers push, as Harbor names them, such as robot$signer: what they push by digest
	// are signatures.
	OwnAccounts []string
	// Interval is the time between the full sweeps of one project; 0 stands for 24 hours.
	Interval time.Duration
	// RecentInterval is the time between recent sweeps; 0 stands for 1 minute.
	RecentInterval time.Duration
	// DeadRetry is after how long a full sweep asks for a dead letter again; 0 stands for 1 hour, which is also the least. Ad
	// hoc sweeps always do.
	DeadRetry  time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Reconciler proposes ticks and sweeps. It is safe for concurrent use.
type Reconciler struct {
	cfg      Config
	calendar calendar
	metrics  *metrics
	// worker names this process in the states that it saves.
	worker string
	clock  harborClock
	pushes pushMemory
	listed listMemory

	mu      sync.Mutex
	passes  map[string]*pass     // sweeps that were begun here and are not finished, by project; guarded by mu
	retired map[string]rotation  // of the last sweeps, by project; guarded by mu
	latest  map[string]int64     // the last full slot that was proposed, by project; guarded by mu
	beganAt map[string]time.Time // of what is in work, by kind and key; guarded by mu
	since   map[string]time.Time // since when projects are known to be enabled; guarded by mu
	source  string               // where recent pushes were looked for last; guarded by mu
}

// rotation is how many manifests of a project no active key has signed, as a sweep found it.
type rotation struct {
	retired int
	at      time.Time
}

// New validates the configuration.
func New(cfg Config) (*Reconciler, error) {
	switch {
	case cfg.Harbor == nil, cfg.Queue == nil, cfg.Policies == nil, cfg.Memory == nil, cfg.Verifier == nil, cfg.State == nil:
		return nil, errors.New("reconcile: harbor, queue, policies, memory, verifier and state are required")
	case cfg.Interval < 0, cfg.RecentInterval < 0, cfg.DeadRetry < 0:
		return nil, errors.New("reconcile: intervals must not be negative")
	}
	cfg.Interval = orDefault(cfg.Interval, 24*time.Hour)
	cfg.RecentInterval = orDefault(cfg.RecentInterval, time.Minute)
	if cfg.Interval < time.Second || cfg.RecentInterval < time.Second {
		return nil, fmt.Errorf("reconcile: intervals %s and %s: want at least 1s", cfg.Interval, cfg.RecentInterval)
	}
	cfg.DeadRetry = max(cfg.DeadRetry, time.Hour)
	if cfg.Budget == nil {
		unlimited, err := NewBudget(0, nil)
		if err != nil {
			return nil, err
		}
		cfg.Budget = unlimited
	}
	r := &Reconciler{
		cfg: cfg, calendar: calendar{full: cfg.Interval, recent: cfg.RecentInterval}, worker: rand.Text(),
		passes: map[string]*pass{}, retired: map[string]rotation{}, latest: map[string]int64{}, beganAt: map[string]time.Time{},
	}
	r.metrics = newMetrics(cfg.Registerer, r)
	return r, nil
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Tick does the work of a tick. An error means that it is to be delivered again, after the delay of its fault: the work was
// interrupted, or nobody could do it now. What concerns one project alone is no error: the tick would stand in the way of the
// others, and the next slot is the next attempt.
//
// A crash during the work loses nothing: the tick is delivered again and goes on.
func (r *Reconciler) Tick(ctx context.Context, kind, key string, slot int64) error {
	switch kind {
	case Full:
		return r.full(ctx, key, slot)
	case Recent:
		return r.recent(ctx, slot)
	default:
		r.cfg.Logger.Error().Str("kind", kind).Msg("tick of an unknown kind dropped")
		return nil
	}
}

// enter notes what is in work until the function that it gives is called; free is false if it is in work already.
func (r *Reconciler) enter(kind, key string) (leave func(), free bool) {
	name := kind + " " + key
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, found := r.beganAt[name]; found {
		return nil, false
	}
	r.beganAt[name] = time.Now()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.beganAt, name)
	}, true
}

func (r *Reconciler) oldestUnfinished() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var oldest time.Time
	note := func(at time.Time) {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	for _, at := range r.beganAt {
		note(at)
	}
	for _, p := range r.passes {
		note(p.began)
	}
	if oldest.IsZero() {
		return 0
	}
	return float64(oldest.UnixMilli()) / 1000
}

// rotationPending forgets what is older than an interval: another replica has swept the project since.
func (r *Reconciler) rotationPending() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := 0
	for project, last := range r.retired {
		if time.Since(last.at) > r.cfg.Interval {
			delete(r.retired, project)
			continue
		}
		sum += last.retired
	}
	return float64(sum)
}

// harborClock tells the time by Harbor's clock, by which push times and the feed go. It asks now and then.
type harborClock struct {
	mu    sync.Mutex
	asked time.Time     // guarded by mu
	ahead time.Duration // guarded by mu
}

// clockAskedAfter is how long the difference of the clocks is used.
const clockAskedAfter = time.Hour

// now falls back to this machine's clock, which is good enough for counting.
func (c *harborClock) now(ctx context.Context, h Harbor) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.IsZero() || time.Since(c.asked) > clockAskedAfter {
		if info, err := h.System(ctx); err == nil {
			c.set(info)
		}
	}
	return time.Now().Add(c.ahead).UTC()
}

// learn takes an answer that somebody else asked for.
func (c *harborClock) learn(info artifact.SystemInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(info)
}

func (c *harborClock) set(info artifact.SystemInfo) {
	if !info.Now.IsZero() {
		c.asked, c.ahead = time.Now(), time.Until(info.Now)
	}
}
