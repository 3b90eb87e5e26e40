package status

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// MaxWait is the longest that somebody may wait.
	MaxWait = time.Minute

	defaultMaxWaiting   = 10_000
	defaultMaxPerCaller = 1_000
	defaultTimeout      = 10 * time.Second
	// readAtOnce is how many rows are read in one statement for those who are woken, and readTimeout bounds it.
	readAtOnce  = 500
	readTimeout = 5 * time.Second
	// readAgainAfter is the pause after a reading that failed.
	readAgainAfter = time.Second
	// askedAge is for how long a manifest that was asked for by this door is not asked for again.
	askedAge = 10 * time.Second
)

// view is the ledger's. It is safe for concurrent use, makes one attempt and ends when ctx does. Its errors are faults.
type view interface {
	// Known gives what is known of each digest, in the order of refs; a Ref alone of what nothing is known of.
	Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error)
	// One gives the row of a digest, if there is one.
	One(ctx context.Context, ref artifact.Ref) (row ledger.Row, found bool, err error)
}

// policies are those in force, in memory. An error means that they are not loaded.
type policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// door asks for a manifest to be signed: see webhook.Door. It makes one attempt, and its errors are faults.
type door interface {
	Ask(ctx context.Context, ref artifact.Ref, tag, actor string) (outcome string, reason policy.Reason, correlationID string, err error)
}

// Config is what a Service needs. View, Policies, Door, Registry and Host are required.
type Config struct {
	View     view
	Policies policies
	Door     door
	Registry registry
	// Place tells where a request waits, and in which lane: an empty one if none waits. Nil leaves it out.
	Place func(ctx context.Context, ref artifact.Ref) (artifact.Lane, Place, error)
	// Host is the one that images are pulled from, with a port where it has one.
	Host string
	// MaxWaiting is how many may wait at once, and MaxPerCaller how many of one caller; 0 means 10,000 and 1,000.
	MaxWaiting, MaxPerCaller int
	// Timeout bounds what is asked of others for one answer, without the waiting; 0 means 10 s.
	Timeout time.Duration
	// Now is the clock. Default: time.Now.
	Now        func() time.Time
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Service answers. It is safe for concurrent use.
type Service struct {
	cfg     Config
	hub     *hub
	checks  *checks
	asked   *memory[artifact.Ref, policy.Reason]
	metrics *metrics

	draining chan struct{} // closed by Drain
	drain    sync.Once

	mu      sync.Mutex
	waiting int            // guarded by mu
	callers map[string]int // guarded by mu; how many of each wait
	first   time.Time      // guarded by mu; when the oldest of what is due happened; zero if nothing is
}

// New checks the configuration. It connects to nothing.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.View == nil, cfg.Policies == nil, cfg.Door == nil, cfg.Registry == nil, cfg.Host == "":
		return nil, errors.New("making the status: View, Policies, Door, Registry and Host are required")
	case cfg.MaxWaiting < 0, cfg.MaxPerCaller < 0, cfg.Timeout < 0:
		return nil, errors.New("making the status: a limit is negative")
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = defaultMaxWaiting
	}
	if cfg.MaxPerCaller == 0 {
		cfg.MaxPerCaller = defaultMaxPerCaller
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, hub: newHub(), checks: newChecks(cfg, m), asked: newMemory[artifact.Ref, policy.Reason](cfg.Now), metrics: m,
		draining: make(chan struct{}), callers: map[string]int{},
	}, nil
}

// Parse reads an image of this Harbor.
func (s *Service) Parse(image string) (Image, error) { return ParseImage(s.cfg.Host, image) }

// Observe is told of events after the view has them, by whomever they were brought there. No events mean that some were missed: then
// all that somebody waits for is read again. It never blocks.
func (s *Service) Observe(entries []artifact.Entry) {
	if len(entries) == 0 {
		s.hub.missed()
		return
	}
	wanted := s.hub.wanted(entries)
	if len(wanted) == 0 {
		return
	}
	// What the signers say first: who is woken looks at it.
	for _, e := range wanted {
		s.checks.verified(e)
	}
	s.mu.Lock()
	if s.first.IsZero() {
		s.first = s.cfg.Now()
	}
	s.mu.Unlock()
	s.hub.happened(wanted)
}

// Run wakes those who wait, until ctx ends. At most one Run at a time.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.hub.wake:
		}
		s.mu.Lock()
		since := s.first
		s.first = time.Time{}
		s.mu.Unlock()
		for refs := s.hub.take(readAtOnce); len(refs) > 0; refs = s.hub.take(readAtOnce) {
			if err := s.wake(ctx, refs); err == nil {
				s.metrics.observeWake(since, s.cfg.Now())
				continue
			} else if ctx.Err() == nil {
				s.metrics.failures.Inc()
				s.cfg.Logger.Warn().Err(err).Int("digests", len(refs)).Msg("the report's view cannot be read for those who wait, trying again")
			}
			s.hub.again(refs)
			if !pause(ctx, readAgainAfter) {
				return nil
			}
		}
	}
}

// wake reads rows and tells those who wait for them.
func (s *Service) wake(ctx context.Context, refs []artifact.Ref) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	known, err := s.cfg.View.Known(ctx, refs)
	if err == nil {
		s.hub.tell(known)
	}
	return err
}

// Drain answers all who wait at once, with what is known, and keeps nobody waiting from now on.
func (s *Service) Drain() { s.drain.Do(func() { close(s.draining) }) }

// CrowdedError says that nobody more can wait.
type CrowdedError struct {
	// Caller is whether it is the caller who has too many questions open: a 429. Otherwise too many wait in all: a 503.
	Caller bool
	// RetryAfter is when to come again.
	RetryAfter time.Duration
}

// Error implements error.
func (e *CrowdedError) Error() string {
	if e.Caller {
		return "too many questions of yours wait at the same time: wait for fewer images at once, or ask without wait"
	}
	return "too many wait at the same time: try again in a moment, or ask without wait"
}

// enter lets somebody wait.
func (s *Service) enter(caller string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.callers[caller] >= s.cfg.MaxPerCaller:
		s.metrics.refused.WithLabelValues("caller").Inc()
		return nil, &CrowdedError{Caller: true, RetryAfter: time.Second}
	case s.waiting >= s.cfg.MaxWaiting:
		s.metrics.refused.WithLabelValues("total").Inc()
		return nil, &CrowdedError{RetryAfter: time.Second}
	}
	s.waiting++
	s.callers[caller]++
	s.metrics.waiting.Inc()
	return func() { s.leave(caller) }, nil
}

func (s *Service) leave(caller string) {
	s.metrics.waiting.Dec()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if s.callers[caller]--; s.callers[caller] == 0 {
		delete(s.callers, caller)
	}
}

// pause gives false if ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Waiting is how many wait.
func (s *Service) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}
