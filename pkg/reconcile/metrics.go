package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	sweeps        *prometheus.CounterVec
	manifests     *prometheus.CounterVec
	seconds       prometheus.Histogram
	lastSuccess   prometheus.Gauge
	proposeErrors prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_sweeps_total", Help: "Sweeps of one project, by outcome (done, failed, skipped).",
		}, []string{"outcome"}),
		manifests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_sweep_manifests_total", Help: "Manifests that sweeps looked at, by what they found (signed, requested, waiting, dead, excluded, asked_before).",
		}, []string{"found"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "harborseal_sweep_seconds", Help: "Time of a sweep of one project.", Buckets: prometheus.ExponentialBuckets(0.1, 2.5, 12),
		}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "harborseal_sweep_last_success_timestamp_seconds", Help: "When this replica last finished a sweep.",
		}),
		proposeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_sweep_propose_errors_total", Help: "Intervals in which this replica could not propose all sweeps.",
		}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.sweeps, m.manifests, m.seconds, m.lastSuccess, m.proposeErrors} {
			reg.MustRegister(c)
		}
	}
	return m
}

func (m *metrics) swept(started time.Time) {
	m.sweeps.WithLabelValues("done").Inc()
	m.seconds.Observe(time.Since(started).Seconds())
	m.lastSuccess.SetToCurrentTime()
}

func (m *metrics) checked(s Summary) {
	for found, n := range map[string]int{"signed": s.Signed, "requested": s.Requested, "waiting": s.Waiting, "dead": s.Dead, "excluded": s.Excluded, "asked_before": s.AskedBefore} {
		m.manifests.WithLabelValues(found).Add(float64(n))
	}
}
