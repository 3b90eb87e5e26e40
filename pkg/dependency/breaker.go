package dependency

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	defaultFailures = 5
	defaultPause    = 5 * time.Second
	// shortest is the least delay that a refusal asks for.
	shortest = time.Second
)

// BreakerConfig is what a Breaker needs.
type BreakerConfig struct {
	// Name is the dependency's, as in the metrics.
	Name string
	// Failures is how many in a row open the breaker; 0 stands for 5.
	Failures int
	// Pause is how long nobody is let through after a failure; 0 stands for 5 s.
	Pause time.Duration
	// Counts says whether an error tells that the dependency is down. Nil stands for [Counts].
	Counts func(err error) bool
	// CountsStatus says the same of an answer's HTTP status. Nil stands for [Gateway].
	CountsStatus func(status int) bool
	Registerer   prometheus.Registerer // nil for none
}

// Counts says that a failure is the dependency's and not that of what was asked: all that passes by itself, but no refusal of
// credentials or of what was sent, no request to come later, and nothing that was cancelled or never asked.
func Counts(err error) bool {
	f := fault.Of(err)
	if _, skewed := errors.AsType[*SkewError](err); skewed || f.Kind != fault.Transient || isCancelled(err) {
		return false
	}
	switch f.Reason {
	case fault.RateLimited, fault.Rejected, fault.Unauthorized, fault.Denied, fault.DependencyDown:
		return false
	default:
		return true
	}
}

// Gateway counts 502, 503 and 504: nobody is there who could answer. A 500 may be about one request alone.
func Gateway(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// ServerErrors counts every 5xx: for a server to which all requests are alike.
func ServerErrors(status int) bool { return status >= http.StatusInternalServerError }

// Breaker stops asking a dependency that fails again and again. While it is open nobody is let through; after each pause one is,
// whose success closes it. It is safe for concurrent use.
type Breaker struct {
	cfg     BreakerConfig
	refused prometheus.Counter

	mu sync.Mutex
	// inner is replaced when a probe has the last word; what the old one let through counts no more. Guarded by mu.
	inner *gobreaker.TwoStepCircuitBreaker[struct{}]

	// signal is taken while inner's own lock is held, and takes no other.
	signal  sync.Mutex
	until   time.Time     // when the pause ends; guarded by signal
	changed chan struct{} // closed at the next change; guarded by signal
}

// NewBreaker makes a closed breaker.
func NewBreaker(cfg BreakerConfig) (*Breaker, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("breaker: name is required")
	case cfg.Failures < 0 || cfg.Pause < 0:
		return nil, errors.New("breaker: failures and pause: want 0 or more")
	}
	if cfg.Failures == 0 {
		cfg.Failures = defaultFailures
	}
	if cfg.Pause == 0 {
		cfg.Pause = defaultPause
	}
	if cfg.Counts == nil {
		cfg.Counts = Counts
	}
	if cfg.CountsStatus == nil {
		cfg.CountsStatus = Gateway
	}
	b := &Breaker{cfg: cfg, changed: make(chan struct{})}
	b.inner = b.fresh()
	labels := prometheus.Labels{"dependency": cfg.Name}
	b.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "harborseal_breaker_refused_total", Help: "Calls that were not made because the dependency did not answer before.", ConstLabels: labels,
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "harborseal_breaker_open", Help: "1 while a dependency is not asked because it did not answer before.", ConstLabels: labels,
	}, func() float64 {
		if b.Open() {
			return 1
		}
		return 0
	})
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{open, b.refused} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("breaker of %s: registering its metrics: %w", cfg.Name, err)
			}
		}
	}
	return b, nil
}

// fresh gives a closed one.
func (b *Breaker) fresh() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: b.cfg.Name, MaxRequests: 1, Timeout: b.cfg.Pause,
		ReadyToTrip: func(c gobreaker.Counts) bool { return int64(c.ConsecutiveFailures) >= int64(b.cfg.Failures) },
		IsExcluded: func(err error) bool {
			return err != nil && (isCancelled(err) || fault.Of(err).Reason == fault.DependencyDown)
		},
		IsSuccessful: func(err error) bool { return err == nil || !b.counts(err) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.pause()
			}
			b.notify()
		},
	})
}

// Name is the dependency's.
func (b *Breaker) Name() string { return b.cfg.Name }

// Do calls fn, unless the breaker refuses: the error is then a transient fault, DependencyDown, that says when to come again, and
// nothing was called. Other errors are fn's.
func (b *Breaker) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if isProbe(ctx) {
		return fn(ctx)
	}
	done, err := b.allow()
	if err != nil {
		return err
	}
	err = context.Canceled // what a panic in fn is taken for: it says nothing of the dependency
	defer func() { done(err) }()
	err = fn(ctx)
	return err
}

// Ready says whether a call would be let through now.
func (b *Breaker) Ready() bool {
	inner := b.current()
	switch inner.State() {
	case gobreaker.StateClosed:
		return true
	case gobreaker.StateHalfOpen:
		c := inner.Counts()
		return c.Requests == c.TotalExclusions
	default:
		return false
	}
}

// Open says whether the dependency counts as down: also while one is let through to try it.
func (b *Breaker) Open() bool { return b.current().State() != gobreaker.StateClosed }

// Wait blocks until a call would be let through. The error is that of ctx.
func (b *Breaker) Wait(ctx context.Context) error {
	for {
		changed, left := b.pending()
		if b.Ready() {
			return nil
		}
		timer := time.NewTimer(max(left, time.Millisecond))
		if left <= 0 {
			timer.Reset(shortest) // somebody tries it: a change tells of the outcome, and this of nobody who does
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// observe is told how a probe went: a dependency that answers is asked again at once, and one that does not is left alone for
// another pause.
func (b *Breaker) observe(err error) {
	if err != nil && isCancelled(err) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	down := err != nil && b.counts(err)
	switch state := b.inner.State(); {
	case down && state == gobreaker.StateOpen:
		b.inner = b.fresh()
		for range b.cfg.Failures {
			report(b.inner, err)
		}
	case down || state == gobreaker.StateClosed:
		report(b.inner, err)
	default:
		b.inner = b.fresh()
		b.notify()
	}
}

// report lets a breaker know of one outcome.
func report(to *gobreaker.TwoStepCircuitBreaker[struct{}], outcome error) {
	if done, err := to.Allow(); err == nil {
		done(outcome)
	}
}

// allow lets one call through, whose outcome done is told, or gives the refusal.
func (b *Breaker) allow() (done func(error), err error) {
	if done, err = b.current().Allow(); err == nil {
		return done, nil
	}
	b.refused.Inc()
	_, left := b.pending()
	return nil, fault.After(max(left, shortest), fault.DependencyDown, fmt.Errorf("%s did not answer before, and was not asked: %w", b.cfg.Name, err))
}

func (b *Breaker) current() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inner
}

func (b *Breaker) pause() {
	b.signal.Lock()
	defer b.signal.Unlock()
	b.until = time.Now().Add(b.cfg.Pause)
}

// notify wakes those that wait.
func (b *Breaker) notify() {
	b.signal.Lock()
	defer b.signal.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// pending gives what the next change closes, and how long the pause lasts.
func (b *Breaker) pending() (changed <-chan struct{}, left time.Duration) {
	b.signal.Lock()
	defer b.signal.Unlock()
	return b.changed, time.Until(b.until)
}

// counts says whether an error counts against the dependency. Those that it met itself, on the way to an answer, always do.
func (b *Breaker) counts(err error) bool {
	if _, lost := errors.AsType[*lostError](err); lost {
		return !isCancelled(err)
	}
	return b.cfg.Counts(err)
}

func isCancelled(err error) bool { return errors.Is(err, context.Canceled) }

// probing marks the context of a probe.
type probing struct{}

// asProbe gives a context with which a breaker lets everything through: whoever wants to know whether a dependency is back has to
// ask it.
func asProbe(ctx context.Context) context.Context { return context.WithValue(ctx, probing{}, true) }

func isProbe(ctx context.Context) bool { return ctx.Value(probing{}) != nil }
