package signing

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

type metrics struct {
	outcomes   *prometheus.CounterVec
	failures   *prometheus.CounterVec
	signatures *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	timestamps *prometheus.CounterVec
	debts      *prometheus.CounterVec
}

// What became of asking for a timestamp.
const (
	stampMade   = "made"
	stampMissed = "missed"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_outcomes_total", Help: "Requests that ended, by outcome (signed, skipped, blocked, gone), how, and reason.",
		}, []string{"outcome", "how", "reason"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_failures_total", Help: "Attempts that failed, by what followed (failed: repeated, dead: given up), kind and reason; those that wait for a pause to end have the reason paused.",
		}, []string{"outcome", "kind", "reason"}),
		signatures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_signatures_total", Help: "Signatures that were attached and read back, by format.",
		}, []string{"format"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "harborseal_signing_attempt_seconds", Help: "Time from delivery to acknowledgement of an attempt that ended its request.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 15),
		}, []string{"outcome"}),
		timestamps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_timestamps_total", Help: "Timestamps that were asked for, by result (made, missed); where they are optional, what is missed is not asked for again.",
		}, []string{"result"}),
		debts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_signing_log_debts_settled_total", Help: "Log entries that were owed and are not any more, by reason: none if the entry was made.",
		}, []string{"reason"}),
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.outcomes, m.failures, m.signatures, m.seconds, m.timestamps, m.debts} {
			reg.MustRegister(c)
		}
	}
	return m
}

func (m *metrics) handled(out outcome, took time.Duration) {
	m.outcomes.WithLabelValues(string(out.kind), string(out.how), string(out.reason)).Inc()
	m.seconds.WithLabelValues(string(out.kind)).Observe(took.Seconds())
}

func (m *metrics) failed(kind artifact.Kind, f fault.Error) {
	m.failures.WithLabelValues(string(kind), string(f.Kind), string(f.Reason)).Inc()
}
