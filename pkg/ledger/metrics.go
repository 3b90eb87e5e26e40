package ledger

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

type metrics struct {
	position     prometheus.Gauge
	lag          prometheus.Gauge
	events       prometheus.Counter
	unreadable   prometheus.Counter
	errors       prometheus.Counter
	rebuilds     prometheus.Counter
	applySeconds prometheus.Histogram
}

// newMetrics makes the metrics and, unless registerer is nil, registers them.
func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		position:   gauge("harborseal_ledger_position", "Sequence up to which the ledger's events are in the view."),
		lag:        gauge("harborseal_ledger_lag_events", "Sequences of the ledger beyond the last that this program has applied."),
		events:     counter("harborseal_ledger_events_total", "Events applied to the view, repetitions included."),
		unreadable: counter("harborseal_ledger_unreadable_total", "Entries of the ledger that this program cannot read and passed over."),
		errors:     counter("harborseal_ledger_errors_total", "Times that the projection stopped with an error."),
		rebuilds:   counter("harborseal_ledger_rebuilds_total", "Times that the view was emptied to be rebuilt, the first filling included."),
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "harborseal_ledger_apply_seconds", Help: "Time to apply one batch of events to the view.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.position, m.lag, m.events, m.unreadable, m.errors, m.rebuilds, m.applySeconds} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) applied(batch []artifact.Entry, took time.Duration) {
	m.applySeconds.Observe(took.Seconds())
	m.events.Add(float64(len(batch)))
	for _, entry := range batch {
		if entry.Event.Kind == "" {
			m.unreadable.Inc()
		}
	}
}

func (m *metrics) setLag(last, position uint64) {
	lag := 0.0
	if last > position {
		lag = float64(last - position)
	}
	m.lag.Set(lag)
}
