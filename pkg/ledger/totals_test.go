package ledger_test

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// summed is a view of totals alone.
type summed struct {
	mu     sync.Mutex
	totals ledger.Totals // guarded by mu
	err    error         // guarded by mu
	asked  int           // guarded by mu
}

func (s *summed) Totals(context.Context) (ledger.Totals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.totals, s.err
}

// say sets the answer from now on.
func (s *summed) say(totals ledger.Totals, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals, s.err = totals, err
}

// gathered gives what the metrics say, by name and label.
func gathered(t *testing.T, from prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += "/" + label.GetValue()
			}
			values[name] = m.GetGauge().GetValue()
		}
	}
	return values
}

func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			oldest, debt = "harborseal_report_oldest_unsigned_timestamp_seconds/", "harborseal_report_log_debt"
			since        = "harborseal_report_log_debt_oldest_timestamp_seconds"
			refreshed    = "harborseal_report_refreshed_timestamp_seconds"
		)
		at := ledgertest.Epoch()
		epoch := float64(at.Unix())
		view, registry := &summed{}, prometheus.NewRegistry()
		g, err := ledger.NewGauges(ledger.GaugesConfig{View: view, Registerer: registry, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatalf("NewGauges: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		want := func(when string, values map[string]float64) {
			t.Helper()
			synctest.Wait()
			if got := gathered(t, registry); !maps.Equal(got, values) {
				t.Errorf("%s: metrics = %v, want %v", when, got, values)
			}
		}
		now := func() float64 { return float64(time.Now().UnixNano()) / 1e9 }
		begun := now()
		want("nothing is there", map[string]float64{debt: 0, refreshed: begun})

		var bad, better ledger.Totals
		bad.Count(ledger.Pending, at.Add(time.Second))
		bad.Count(ledger.Pending, at)
		bad.Count(ledger.Dead, at.Add(1500*time.Millisecond))
		bad.Count(ledger.Signed, at)
		bad.Owe(2, at.Add(time.Minute))
		bad.Owe(1, at.Add(time.Hour))
		bad.Owe(0, at)
		better.Count(ledger.Failed, at)
		view.say(bad, nil)
		want("before it is asked again", map[string]float64{debt: 0, refreshed: begun})
		time.Sleep(15 * time.Second)
		all := map[string]float64{oldest + "pending": epoch, oldest + "dead": epoch + 1.5, debt: 3, since: epoch + 60, refreshed: now()}
		want("something is wrong", all)

		view.say(ledger.Totals{}, errDown)
		time.Sleep(15 * time.Second)
		want("the view is down", all)

		view.say(better, nil)
		time.Sleep(15 * time.Second)
		want("most is well again", map[string]float64{oldest + "failed": epoch, debt: 0, refreshed: now()})
		cancel()
		if err := <-done; err != nil || view.asked != 4 {
			t.Errorf("Run() = %v after %d questions, want nil after 4", err, view.asked)
		}
	})
}

func TestNewGaugesRefuses(t *testing.T) {
	registry := prometheus.NewRegistry()
	for name, cfg := range map[string]ledger.GaugesConfig{
		"no view": {Registerer: registry}, "no registerer": {View: &summed{}}, "negative interval": {View: &summed{}, Registerer: registry, Interval: -1},
	} {
		if _, err := ledger.NewGauges(cfg); err == nil {
			t.Errorf("%s: NewGauges gives no error", name)
		}
	}
	if _, err := ledger.NewGauges(ledger.GaugesConfig{View: &summed{}, Registerer: registry}); err != nil {
		t.Errorf("NewGauges: %v", err)
	}
	if _, err := ledger.NewGauges(ledger.GaugesConfig{View: &summed{}, Registerer: registry}); err == nil {
		t.Error("NewGauges twice with one registerer gives no error")
	}
}
