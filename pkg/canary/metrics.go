package canary

import (
	"sync"
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

	mu   sync.Mutex
	said map[pair]bool // guarded by mu; those that the gauges and failures have
}

// pair is what a trial is for.
type pair struct{ key, log string }

func pairOf(p policy.Policy) pair { return pair{p.Terms.Key, p.Terms.Log} }

func newMetrics(reg prometheus.Registerer) *metrics {
	labels := []string{"key", "log"}
	m := &metrics{
		said: map[pair]bool{},
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
	to := m.say(p)
	m.seconds.WithLabelValues(to.key, to.log).Observe(took.Seconds())
	m.lastSeconds.WithLabelValues(to.key, to.log).Set(took.Seconds())
}

func (m *metrics) succeeded(p policy.Policy) {
	to := m.say(p)
	m.lastSuccess.WithLabelValues(to.key, to.log).SetToCurrentTime()
}

func (m *metrics) failed(p policy.Policy, s step) {
	to := m.say(p)
	m.failures.WithLabelValues(to.key, to.log, string(s)).Inc()
}

// say gives the labels of a policy.
func (m *metrics) say(p policy.Policy) pair {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := pairOf(p)
	m.said[to] = true
	return to
}

// keep removes what is about other pairs than those that are tried. A trial that ends behind it is removed by the next call. Of the
// others, every step that may fail is there: a counter that begins with its first failure has not grown.
func (m *metrics) keep(tried map[pair]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.said {
		if !tried[p] {
			delete(m.said, p)
			m.lastSeconds.DeleteLabelValues(p.key, p.log)
			m.lastSuccess.DeleteLabelValues(p.key, p.log)
			m.failures.DeletePartialMatch(prometheus.Labels{"key": p.key, "log": p.log})
		}
	}
	for p := range tried {
		m.said[p] = true
		for _, s := range []step{stepPush, stepWebhook, stepSignature, stepLog, stepCleanup} {
			m.failures.WithLabelValues(p.key, p.log, string(s))
		}
	}
}
