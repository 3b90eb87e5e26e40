package dependency_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
)

// ledger takes events, unless it is away.
type ledger struct {
	mu     sync.Mutex
	away   error
	events []artifact.Event
	tries  int
}

func (l *ledger) record(_ context.Context, e artifact.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries++
	if l.away != nil {
		return l.away
	}
	if err := artifacttest.CheckEvent(e); err != nil {
		return fault.New(fault.Permanent, fault.Malformed, err)
	}
	l.events = append(l.events, e)
	return nil
}

func (l *ledger) set(away error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
}

func (l *ledger) all() []artifact.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// subject is a dependency that a test switches off and on.
type subject struct {
	mu    sync.Mutex
	err   error
	calls int
	hangs bool
}

func (s *subject) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.hangs = err, false
}

func (s *subject) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = true
}

func (s *subject) call(ctx context.Context) error {
	s.mu.Lock()
	s.calls++
	err, hangs := s.err, s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (s *subject) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// scene is a monitor of one dependency that runs, on fake time.
type scene struct {
	*subject

	ledger   *ledger
	monitor  *dependency.Monitor
	registry *prometheus.Registry
	started  time.Time
	stop     func()
	waiting  uint64
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{subject: &subject{}, ledger: &ledger{}, registry: prometheus.NewRegistry(), started: time.Now().UTC()}
	s.monitor = monitor(t, func(c *dependency.Config) {
		c.Record, c.Registerer = s.ledger.record, s.registry
		c.Counts = func(context.Context) (uint64, uint64) { s.waiting++; return s.waiting, 10 * s.waiting }
	}, dependency.Probe{Name: "log/rekor", Call: s.call})
	s.stop = start(t, s.monitor)
	t.Cleanup(s.stop)
	return s
}

// up is what the metric says: 1, 0, or -1 for nothing.
func (s *scene) up(t *testing.T) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "harborseal_dependency_up" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func (s *scene) failures(t *testing.T, want string) {
	t.Helper()
	expected := "# HELP harborseal_dependency_failures_total Probes of a dependency that failed, by cause.\n# TYPE harborseal_dependency_failures_total counter\n"
	for _, cause := range dependency.Causes() {
		n := "0"
		if c, count, _ := strings.Cut(want, " "); c == string(cause) {
			n = count
		}
		expected += `harborseal_dependency_failures_total{cause="` + string(cause) + `",dependency="log/rekor"} ` + n + "\n"
	}
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(expected), "harborseal_dependency_failures_total"); err != nil {
		t.Error(err)
	}
}
