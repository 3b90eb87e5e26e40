package canary

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/policy"
)

// step is where a trial failed.
type step string

const (
	stepPush      step = "push"
	stepWebhook   step = "webhook"
	stepSignature step = "signature"
	stepLog       step = "log"
	stepCleanup   step = "cleanup"
)

// metrics have the names of key and log as labels: both are from the configuration.
type metrics struct {
	seconds     *prometheus.HistogramVec
	lastSeconds *prometheus.GaugeVec
	lastSuccess *prometheus.GaugeVec
	failures    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	labels := []string{"key", "log"}
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "harborseal_canary_push_to_signature_seconds", Help: "Time from the push of the service's own image to its verified signature.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120},
		}, labels),
		lastSeconds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "harborseal_canary_last_push_to_signature_seconds", Help: "That time, of the last trial that succeeded.",
		}, labels),
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "harborseal_canary_last_success_timestamp_seconds", Help: "When a trial succeeded last in this program.",
		}, labels),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_canary_failures_total", Help: "Trials that failed, by the step that did: push, webhook, signature, log, cleanup.",
		}, append(labels, "step")),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.seconds, m.lastSeconds, m.lastSuccess, m.failures} {
			reg.MustRegister(c)
		}
	}
	return m
}

func (m *metrics) signed(p policy.Policy, took time.Duration) {
	m.seconds.WithLabelValues(p.Terms.Key, p.Terms.Log).Observe(took.Seconds())
	m.lastSeconds.WithLabelValues(p.Terms.Key, p.Terms.Log).Set(took.Seconds())
}

func (m *metrics) succeeded(p policy.Policy) {
	m.lastSuccess.WithLabelValues(p.Terms.Key, p.Terms.Log).SetToCurrentTime()
}
