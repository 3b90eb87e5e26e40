package queue

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

type metrics struct {
	publishSeconds *prometheus.HistogramVec // stream
	publishErrors  *prometheus.CounterVec   // stream, reason
	redeliveries   *prometheus.CounterVec   // lane
	inFlight       *prometheus.GaugeVec     // lane
	waiting        *prometheus.GaugeVec     // lane
	aside          *prometheus.GaugeVec     // lane
	held           *prometheus.CounterVec   // lane
	ackErrors      *prometheus.CounterVec   // action
	undecodable    *prometheus.CounterVec   // stream
	reconnects     prometheus.Counter
	connected      prometheus.Gauge
	usage          *usageCollector
}

// newMetrics registers the metrics of one client; nil registers nothing.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "harborseal", Subsystem: "queue", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "harborseal", Subsystem: "queue", Name: name, Help: help}, labels)
	}
	reconnects := counter("reconnects_total", "Connections to NATS that were made again after a loss.")
	connected := gauge("connected", "1 while there is a connection to NATS, else 0.")
	m := &metrics{
		publishSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "harborseal", Subsystem: "queue", Name: "publish_seconds",
			Help:    "Time from a publish to JetStream's answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}, []string{"stream"}),
		publishErrors: counter("publish_errors_total", "Publishes that JetStream did not store, by fault reason.", "stream", "reason"),
		redeliveries:  counter("redeliveries_total", "Requests that were handed out before.", "lane"),
		inFlight:      gauge("in_flight", "Requests that hold a slot.", "lane"),
		waiting:       gauge("waiting_for_slot", "Requests that were received and wait for a slot.", "lane"),
		aside:         gauge("aside", "Requests in work that hold no slot, because they wait for something outside.", "lane"),
		held:          counter("held_total", "Requests that were given back before they were worked on, because what they need is not there.", "lane"),
		ackErrors:     counter("ack_errors_total", "Acknowledgements that could not be sent or were not confirmed.", "action"),
		undecodable:   counter("undecodable_total", "Deliveries of messages that are malformed or of a newer version.", "stream"),
		reconnects:    reconnects.WithLabelValues(),
		connected:     connected.WithLabelValues(),
		usage:         newUsageCollector(),
	}
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk, artifact.Debt} {
		m.aside.WithLabelValues(string(lane))
		m.held.WithLabelValues(string(lane))
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.publishSeconds, m.publishErrors, m.redeliveries, m.inFlight, m.waiting, m.aside, m.held, m.ackErrors, m.undecodable, reconnects, connected, m.usage,
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
