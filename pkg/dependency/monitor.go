package dependency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/redact"
)

const (
	defaultInterval = 15 * time.Second
	defaultTimeout  = 10 * time.Second
	// countTime bounds the counting of what waits.
	countTime = 2 * time.Second
	// maxDetail is how much of an error is repeated, in bytes.
	maxDetail = 400
)

// Config is what a Monitor needs.
type Config struct {
	// Program is "receiver" or "signer", and Instance tells those of one kind apart. Both stand in the records.
	Program, Instance string
	Probes            []Probe
	// Interval is the time from the beginning of one probe to the next; 0 stands for 15 s. Timeout bounds one probe; 0 stands for 10 s.
	Interval, Timeout time.Duration
	// Record puts an event into the ledger. It is called by one goroutine at a time; an event that it does not take comes again.
	// The same event may come twice: its id is the same.
	Record func(ctx context.Context, e artifact.Event) error
	// Counts says how many requests wait, and how many log entries are owed; 0 where that cannot be said. It MUST return soon after
	// its context has ended. Nil stands for 0.
	Counts     func(ctx context.Context) (waiting, deferred uint64)
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
	// Now is the clock that is compared with those of others, and stands in records; nil stands for time.Now.
	Now func() time.Time
}

// Monitor probes what a program depends on. Its methods are safe for concurrent use; Run is called once.
type Monitor struct {
	cfg     Config
	tries   []*tried
	metrics *metrics
	journal *journal
	states  []*state // in the order of the probes
}

// state is what is known of one dependency, for people.
type state struct {
	mu     sync.Mutex
	status Status // guarded by mu
}

// New validates the configuration; it starts nothing.
func New(cfg Config) (*Monitor, error) {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Counts == nil {
		cfg.Counts = func(context.Context) (waiting, deferred uint64) { return 0, 0 }
	}
	var errs []error
	switch {
	case cfg.Program == "" || cfg.Instance == "":
		errs = append(errs, errors.New("program and instance are required"))
	case cfg.Interval < 0 || cfg.Timeout < 0:
		errs = append(errs, errors.New("interval and timeout: want 0 or more"))
	case cfg.Record == nil:
		errs = append(errs, errors.New("record is required"))
	}
	m := &Monitor{cfg: cfg}
	names := make(map[string]bool, len(cfg.Probes))
	for _, p := range cfg.Probes {
		t, err := newTried(p, cfg.Now)
		if err == nil && names[p.Name] {
			err = fmt.Errorf("two probes of %s", p.Name)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		names[p.Name] = true
		m.tries = append(m.tries, t)
		m.states = append(m.states, &state{status: Status{Dependency: p.Name}})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	var err error
	if m.metrics, err = newMetrics(cfg.Registerer, cfg.Now); err != nil {
		return nil, err
	}
	m.journal = &journal{record: cfg.Record, logger: cfg.Logger, dropped: m.metrics.dropped, wake: make(chan struct{}, 1)}
	for _, t := range m.tries {
		for _, cause := range Causes() {
			m.metrics.failures.WithLabelValues(t.Name, string(cause)) // a series that begins with its first failure has no increase
		}
	}
	return m, nil
}

// Run probes until ctx ends, each dependency in a goroutine of its own, and then tells the ledger of what is still down. It returns
// nil when all of that is done: some seconds after ctx at most, if calls end with their context.
func (m *Monitor) Run(ctx context.Context) error {
	started := m.cfg.Now()
	var probes, records sync.WaitGroup
	recording, stop := context.WithCancel(ctx)
	defer stop()
	records.Go(func() { m.journal.run(recording) })
	for i, t := range m.tries {
		probes.Go(func() { m.watch(ctx, t, m.states[i], started) })
		for _, c := range t.Credentials {
			probes.Go(func() { m.expiry(ctx, c) })
		}
	}
	probes.Wait()
	<-ctx.Done() // without any probe, too
	stop()
	records.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	m.journal.flush(last)
	return nil
}

// each calls fn at once, but for a little jitter that keeps programs apart that were started together, and then at every interval,
// until ctx ends. A call that takes longer than the interval is followed by the next one at once.
func each(ctx context.Context, interval time.Duration, fn func()) {
	jitter := time.NewTimer(rand.N(min(interval/10, time.Second) + 1)) //nolint:gosec // spreads load, keeps no secret
	defer jitter.Stop()
	select {
	case <-ctx.Done():
		return
	case <-jitter.C:
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		fn()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// watch probes one dependency until ctx ends.
func (m *Monitor) watch(ctx context.Context, t *tried, s *state, started time.Time) {
	h := &history{program: m.cfg.Program, instance: m.cfg.Instance, dependency: t.Name, answered: started}
	each(ctx, m.cfg.Interval, func() {
		if f := t.run(ctx, m.cfg.Timeout); ctx.Err() == nil {
			m.judge(ctx, t, s, h, f)
		}
	})
	if closed := h.end(m.cfg.Now(), "the "+m.cfg.Program+" has stopped"); closed != nil {
		m.journal.add(eventOf(*closed))
	}
	t.hangs()
}

// forget is for a dependency of which there is nothing to ask for any more: what the last probe said would stand for ever.
func (m *Monitor) forget(t *tried, s *state, h *history, at time.Time) {
	m.metrics.up.DeleteLabelValues(t.Name)
	s.forget()
	if closed := h.end(at, "there is nothing to ask for any more"); closed != nil {
		m.journal.add(eventOf(*closed))
	}
}

// judge makes metrics, the breaker, the status and the ledger follow a finding.
func (m *Monitor) judge(ctx context.Context, t *tried, s *state, h *history, f finding) {
	at := m.cfg.Now()
	if !f.notAfter.IsZero() {
		m.metrics.expiries.set(t.Name+"/certificate", f.notAfter)
	}
	if f.dated {
		m.metrics.skew.WithLabelValues(t.Name).Set(f.skew.Seconds())
	}
	if f.skipped {
		m.forget(t, s, h, at)
		return
	}
	m.metrics.seconds.WithLabelValues(t.Name).Observe(f.latency.Seconds())
	if t.Breaker != nil {
		t.Breaker.observe(f.err)
	}
	var (
		cause  Cause
		detail string
	)
	if f.err != nil {
		cause, detail = CauseOf(f.err), detailOf(f.err)
		m.metrics.up.WithLabelValues(t.Name).Set(0)
		m.metrics.failures.WithLabelValues(t.Name, string(cause)).Inc()
	} else {
		m.metrics.up.WithLabelValues(t.Name).Set(1)
	}
	s.set(at, f, cause, detail)
	m.chronicle(ctx, h, at, f.err == nil, cause, detail)
}

// chronicle tells the log and the ledger of outages that begin and end.
func (m *Monitor) chronicle(ctx context.Context, h *history, at time.Time, up bool, cause Cause, detail string) {
	if !up {
		if opened := h.fail(at, cause, detail); opened != nil {
			m.cfg.Logger.Error().Str("dependency", h.dependency).Str("cause", string(cause)).Str("detail", detail).Msg("a dependency does not answer")
			m.count(ctx, opened)
			m.journal.add(eventOf(*opened))
		}
		return
	}
	returning, closed := h.succeed(at)
	if returning != nil {
		m.count(ctx, returning)
	}
	if closed != nil {
		m.cfg.Logger.Info().Str("dependency", h.dependency).Time("started_at", closed.StartedAt).Time("ended_at", *closed.EndedAt).
			Uint64("waiting", closed.Waiting).Uint64("deferred", closed.Deferred).Msg("a dependency answers again")
		m.journal.add(eventOf(*closed))
	}
}

func (m *Monitor) count(ctx context.Context, r *artifact.OutageRecord) {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	r.Waiting, r.Deferred = m.cfg.Counts(ctx)
}

// expiry asks again and again when a credential expires. What is known stays while the answer is an error.
func (m *Monitor) expiry(ctx context.Context, c Credential) {
	said := false
	every := c.Every
	if every <= 0 {
		every = m.cfg.Interval
	}
	each(ctx, every, func() {
		bounded, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		defer cancel()
		at, err := c.Expires(bounded)
		switch {
		case err == nil:
			m.metrics.expiries.set(c.Name, at)
			said = false
		case ctx.Err() == nil && !said:
			m.cfg.Logger.Warn().Str("credential", c.Name).Str("detail", detailOf(err)).Msg("it is not known when a credential expires")
			said = true
		}
	})
}

// detailOf gives an error's text, fit for a log and for the ledger. Errors keep secrets to themselves; credentials in addresses,
// which libraries repeat, are taken out here.
func detailOf(err error) string {
	return new(redact.Redactor).Text(withoutUserinfo(err.Error()), maxDetail)
}
