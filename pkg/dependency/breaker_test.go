package dependency_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
)

var errAway = fault.Newf(fault.Transient, fault.Unreachable, "nobody is there")

func newBreaker(t *testing.T, change func(*dependency.BreakerConfig)) *dependency.Breaker {
	t.Helper()
	cfg := dependency.BreakerConfig{Name: "log/rekor", Failures: 3, Pause: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	b, err := dependency.NewBreaker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do makes a call with an outcome, and says whether it was made.
func do(t *testing.T, b *dependency.Breaker, outcome error) bool {
	t.Helper()
	made := false
	err := b.Do(t.Context(), func(context.Context) error { made = true; return outcome })
	if made && !errors.Is(err, outcome) {
		t.Errorf("Do() = %v, want what the call gave, %v", err, outcome)
	}
	if !made {
		f := fault.Of(err)
		if f.Kind != fault.Transient || f.Reason != fault.DependencyDown || f.RetryAfter < time.Second || f.RetryAfter > 20*time.Second {
			t.Errorf("the refusal is %v, %+v; want a transient fault, dependency_down, that says when to come again", err, f)
		}
	}
	return made
}

func open(t *testing.T, b *dependency.Breaker) {
	t.Helper()
	for range 3 {
		if !do(t, b, errAway) {
			t.Fatal("refused before 3 failures in a row")
		}
	}
	if do(t, b, nil) || b.Ready() || !b.Open() {
		t.Fatal("not open after 3 failures in a row")
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		b := newBreaker(t, func(c *dependency.BreakerConfig) { c.Registerer = registry })
		value := func(name string) float64 {
			got, err := testutil.GatherAndCount(registry, name)
			if err != nil || got != 1 {
				t.Fatalf("%s: %d, %v; want one", name, got, err)
			}
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == name {
					return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
				}
			}
			return -1
		}
		for _, outcome := range []error{errAway, errAway, nil, errAway, errAway} { // never 3 in a row
			do(t, b, outcome)
		}
		if !b.Ready() || value("harborseal_breaker_open") != 0 {
			t.Fatal("open, want it closed after 2 failures in a row")
		}
		do(t, b, errAway)
		if value("harborseal_breaker_open") != 1 || do(t, b, nil) || value("harborseal_breaker_refused_total") != 1 {
			t.Error("closed, want it open after 3 failures in a row")
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		if b.Ready() || do(t, b, nil) {
			t.Error("lets somebody through within the pause")
		}
		time.Sleep(2 * time.Nanosecond)
		if !b.Ready() || !b.Open() || !do(t, b, errAway) { // one is let through, and fails
			t.Error("lets nobody through after the pause")
		}
		if b.Ready() || do(t, b, nil) {
			t.Error("lets somebody through after the trial has failed")
		}
		time.Sleep(5*time.Second + time.Nanosecond)
		if !do(t, b, nil) || !b.Ready() || b.Open() || value("harborseal_breaker_open") != 0 {
			t.Error("open after a trial that succeeded")
		}
	})
}

// TestOneAtATime tries a dependency that may be back.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, nil)
		open(t, b)
		time.Sleep(6 * time.Second)
		release, made := make(chan error), make(chan struct{})
		var trial sync.WaitGroup
		trial.Go(func() {
			_ = b.Do(t.Context(), func(context.Context) error { close(made); return <-release })
		})
		<-made
		for range 10 {
			if b.Ready() || do(t, b, nil) {
				t.Fatal("a second one is let through while the first one tries")
			}
		}
		release <- context.Canceled // which says nothing
		trial.Wait()
		if !b.Ready() || !do(t, b, nil) || b.Open() {
			t.Error("nobody is let through after a trial without an outcome")
		}
	})
}

// TestWhatCounts has outcomes that tell nothing bad of the dependency.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		open bool
	}{
		"unreachable":      {errAway, true},
		"late":             {context.DeadlineExceeded, true},
		"a wrong proof":    {fault.Newf(fault.Transient, fault.ProofInvalid, "x"), true},
		"anything":         {errors.New("x"), true},
		"cancelled":        {context.Canceled, false},
		"to come later":    {fault.After(time.Second, fault.RateLimited, errors.New("x")), false},
		"refused as it is": {fault.New(fault.Transient, fault.Rejected, errors.New("x")), false},
		"refused for good": {fault.Newf(fault.Permanent, fault.Rejected, "x"), false},
		"gone":             {fault.Newf(fault.Gone, fault.NotFound, "x"), false},
		"credentials":      {fault.Newf(fault.Transient, fault.Unauthorized, "x"), false},
		"another breaker":  {fault.Newf(fault.Transient, fault.DependencyDown, "x"), false},
		"clocks":           {&dependency.SkewError{By: time.Hour}, false},
	} {
		b := newBreaker(t, nil)
		for range 5 {
			do2(t, b, tt.err)
		}
		if got := !b.Ready(); got != tt.open {
			t.Errorf("%s: open %t, want %t", name, got, tt.open)
		}
	}
}

func do2(t *testing.T, b *dependency.Breaker, outcome error) {
	t.Helper()
	_ = b.Do(t.Context(), func(context.Context) error { return outcome })
}

// TestPanicSaysNothing lets a call panic, also as the trial.
func TestPanicSaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, nil)
		panics := func() (said any) {
			defer func() { said = recover() }()
			return b.Do(t.Context(), func(context.Context) error { panic("boom") })
		}
		for range 5 {
			if got := panics(); got != "boom" {
				t.Fatalf("got %v, want the panic", got)
			}
		}
		open(t, b)
		time.Sleep(6 * time.Second)
		if got := panics(); got != "boom" || !b.Ready() {
			t.Errorf("got %v, ready %t; want the panic, and the next one let through", got, b.Ready())
		}
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, nil)
		if err := b.Wait(t.Context()); err != nil {
			t.Errorf("closed: %v", err)
		}
		open(t, b)
		started := time.Now()
		if err := b.Wait(t.Context()); err != nil || time.Since(started) < 5*time.Second || time.Since(started) > 6*time.Second {
			t.Errorf("open: %v after %s, want the pause", err, time.Since(started))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		do(t, b, errAway)
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that ends: %v", err)
		}
		// While somebody tries, others wait for the outcome.
		time.Sleep(5 * time.Second)
		release, made := make(chan struct{}), make(chan struct{})
		var trial sync.WaitGroup
		trial.Go(func() {
			_ = b.Do(t.Context(), func(context.Context) error { close(made); <-release; return nil })
		})
		<-made
		started = time.Now()
		trial.Go(func() {
			if err := b.Wait(t.Context()); err != nil || time.Since(started) != 20*time.Second {
				t.Errorf("while another one tries: %v after %s, want 20s", err, time.Since(started))
			}
		})
		time.Sleep(20 * time.Second)
		close(release)
		trial.Wait()
	})
}

// TestProbesFeedTheBreaker has a monitor with a breaker, and nobody else who calls.
func TestProbesFeedTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, func(c *dependency.BreakerConfig) { c.Pause = 20 * time.Second })
		var mu sync.Mutex
		outcome := error(nil)
		set := func(err error) { mu.Lock(); defer mu.Unlock(); outcome = err }
		m := monitor(t, func(c *dependency.Config) { c.Interval = 10 * time.Second }, dependency.Probe{
			Name: "log/rekor", Breaker: b,
			// As an adapter's: behind the breaker, which lets probes through.
			Call: func(ctx context.Context) error {
				return b.Do(ctx, func(context.Context) error { mu.Lock(); defer mu.Unlock(); return outcome })
			},
		})
		stop := start(t, m)
		defer stop()
		time.Sleep(5 * time.Second) // between two probes from here on
		open(t, b)
		time.Sleep(10 * time.Second)
		if !b.Ready() {
			t.Error("open, want it closed early by a probe that succeeded")
		}
		set(errAway)
		time.Sleep(20 * time.Second)
		if !b.Ready() {
			t.Error("open after 2 failed probes, want 3 in a row")
		}
		for range 30 { // also beyond the pause
			time.Sleep(10 * time.Second)
			if b.Ready() {
				t.Error("lets somebody through while probes fail")
			}
		}
		set(&dependency.SkewError{By: time.Hour}) // it answers
		time.Sleep(10 * time.Second)
		if !b.Ready() {
			t.Error("open, want it closed by a probe that was answered")
		}
	})
}

// start runs a monitor until stop is called, or the test ends.
func start(t *testing.T, m *dependency.Monitor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// body says of an answer whether it was closed, and fails where it is told to.
type body struct {
	io.Reader

	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRoundTripper(t *testing.T) {
	t.Parallel()
	type answer struct {
		status int
		body   io.Reader // nil for none
		err    error
	}
	words := func() io.Reader { return strings.NewReader("x") }
	for _, tt := range []struct {
		name   string
		counts func(int) bool
		answer answer
		open   bool
	}{
		{"200", nil, answer{200, words(), nil}, false},
		{"404", nil, answer{404, words(), nil}, false},
		{"401", nil, answer{401, words(), nil}, false},
		{"429", nil, answer{429, words(), nil}, false},
		{"500", nil, answer{500, words(), nil}, false},
		{"500 where all requests are alike", dependency.ServerErrors, answer{500, words(), nil}, true},
		{"502", nil, answer{502, words(), nil}, true},
		{"503", nil, answer{503, words(), nil}, true},
		{"504", nil, answer{504, words(), nil}, true},
		{"no connection", nil, answer{0, nil, io.EOF}, true},
		{"late", nil, answer{0, nil, context.DeadlineExceeded}, true},
		{"cancelled", nil, answer{0, nil, context.Canceled}, false},
		{"a body that breaks off", nil, answer{200, broken{}, nil}, true},
		{"no body", nil, answer{200, nil, nil}, false},
	} {
		b := newBreaker(t, func(c *dependency.BreakerConfig) { c.CountsStatus = tt.counts })
		asked := 0
		transport := b.RoundTripper(roundTrip(func(*http.Request) (*http.Response, error) {
			asked++
			switch a := tt.answer; {
			case a.err != nil:
				return nil, a.err
			case a.body == nil:
				return &http.Response{StatusCode: a.status, Body: http.NoBody}, nil
			default:
				return &http.Response{StatusCode: a.status, Body: &body{Reader: a.body}}, nil
			}
		}))
		for range 5 {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			sent := &body{Reader: strings.NewReader("x")}
			request.Body = sent
			resp, err := transport.RoundTrip(request)
			if err == nil {
				_, _ = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			} else if fault.Of(err).Reason == fault.DependencyDown && !sent.closed {
				t.Errorf("%s: the body of a request that was refused is open", tt.name)
			}
		}
		if want := map[bool]int{true: 3, false: 5}[tt.open]; asked != want || b.Ready() == tt.open {
			t.Errorf("%s: %d requests, ready %t; want %d, %t", tt.name, asked, b.Ready(), want, !tt.open)
		}
	}
}

// TestAnswerThatIsNotReadYet is the trial: nobody else is let through before its answer has come in whole.
func TestAnswerThatIsNotReadYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, nil)
		open(t, b)
		time.Sleep(6 * time.Second)
		transport := b.RoundTripper(roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: &body{Reader: strings.NewReader("x")}}, nil
		}))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(request)
		if err != nil || b.Ready() {
			t.Fatalf("%v, ready %t; want an answer, and nobody else let through", err, b.Ready())
		}
		if err := resp.Body.Close(); err != nil || !b.Ready() || b.Open() {
			t.Errorf("%v, ready %t; want it closed with the answer", err, b.Ready())
		}
	})
}

func TestBreakerRefuses(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	for _, name := range []string{"log/one", "log/two"} { // several share a registry
		if _, err := dependency.NewBreaker(dependency.BreakerConfig{Name: name, Registerer: registry}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, cfg := range map[string]dependency.BreakerConfig{
		"no name": {}, "failures": {Name: "x", Failures: -1}, "pause": {Name: "x", Pause: -1},
		"a name twice": {Name: "log/one", Registerer: registry},
	} {
		if _, err := dependency.NewBreaker(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
