package dependency

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	up       *prometheus.GaugeVec
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
	skew     *prometheus.GaugeVec
	dropped  prometheus.Counter
	expiries *expiries
}

func newMetrics(reg prometheus.Registerer, now func() time.Time) (*metrics, error) {
	m := &metrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "harborseal_dependency_up", Help: "1 if the last probe of a dependency was answered, 0 if it was not.",
		}, []string{"dependency"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "harborseal_dependency_probe_seconds", Help: "Time of the probes of a dependency, failed ones too.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 9),
		}, []string{"dependency"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_dependency_failures_total", Help: "Probes of a dependency that failed, by cause.",
		}, []string{"dependency", "cause"}),
		skew: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "harborseal_dependency_clock_skew_seconds", Help: "By how much the clock of a dependency is ahead of this one.",
		}, []string{"dependency"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_outage_records_lost_total", Help: "Records of outages that the ledger never got.",
		}),
		expiries: &expiries{now: now, at: make(map[string]time.Time), desc: prometheus.NewDesc(
			"harborseal_credential_expires_seconds", "How long a credential or certificate works; negative if it has expired.", []string{"credential"}, nil,
		)},
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.up, m.seconds, m.failures, m.skew, m.dropped, m.expiries} {
		if err := reg.Register(c); err != nil {
			errs = append(errs, fmt.Errorf("registering the metrics of the dependencies: %w", err))
		}
	}
	return m, errors.Join(errs...)
}

// expiries are when credentials expire. The metric is what is left at the time of the scrape.
type expiries struct {
	now  func() time.Time
	desc *prometheus.Desc

	mu sync.Mutex
	at map[string]time.Time // guarded by mu
}

// set takes when a credential expires; the zero time if that is never, or not known.
func (e *expiries) set(credential string, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if at.IsZero() {
		delete(e.at, credential)
		return
	}
	e.at[credential] = at
}

// Describe implements prometheus.Collector.
func (e *expiries) Describe(to chan<- *prometheus.Desc) { to <- e.desc }

// Collect implements prometheus.Collector.
func (e *expiries) Collect(to chan<- prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for credential, at := range e.at {
		to <- prometheus.MustNewConstMetric(e.desc, prometheus.GaugeValue, at.Sub(e.now()).Seconds(), credential)
	}
}
