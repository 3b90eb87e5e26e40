package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// outcome is how a tick ended; it is a metric label.
type outcome string

const (
	done      outcome = "done"
	failed    outcome = "failed"
	paused    outcome = "paused"    // goes on when the tick is delivered again
	skipped   outcome = "skipped"   // not due, too late, or another worker does it
	suspended outcome = "suspended" // another project stands under the name
	overtaken outcome = "overtaken" // another worker goes on
)

type metrics struct {
	sweeps        *prometheus.CounterVec
	manifests     *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	lastSuccess   *prometheus.GaugeVec
	proposeErrors prometheus.Counter
	removed       prometheus.Counter
	missed        prometheus.Counter
	debts         *prometheus.CounterVec
	feed          prometheus.Gauge
	confirmed     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, r *Reconciler) *metrics {
	m := &metrics{
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_sweeps_total", Help: "Ticks of sweeps, by kind (full, recent) and outcome (done, failed, paused, skipped, suspended, overtaken).",
		}, []string{"kind", "outcome"}),
		manifests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_sweep_manifests_total",
			Help: "Manifests that sweeps looked at, by kind and finding (signed, requested, pending, dead, excluded, blocked, unsigned, gone, known).",
		}, []string{"kind", "finding"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "harborseal_sweep_seconds", Help: "Time of a sweep, from its beginning, by kind.", Buckets: prometheus.ExponentialBuckets(0.1, 2.5, 14),
		}, []string{"kind"}),
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "harborseal_sweep_last_success_timestamp_seconds", Help: "When this replica last finished a sweep, by kind.",
		}, []string{"kind"}),
		proposeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_sweep_propose_errors_total", Help: "Intervals in which this replica could not propose all sweeps.",
		}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_removed_signatures_total", Help: "Signatures that were verified once and have vanished from Harbor.",
		}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_missed_pushes_total", Help: "Pushes that neither a webhook nor Harbor's feed has told of.",
		}),
		debts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_sweep_log_debts_total",
			Help: "Signed manifests whose log entry full sweeps found to be owed, by outcome (noted, waiting: it was noted before).",
		}, []string{"outcome"}),
		confirmed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_push_confirmations_total",
			Help: "Pushes of which Harbor's feed tells, by outcome (recorded, failed: tried again by the next sweep, left_out: more than one sweep confirms).",
		}, []string{"outcome"}),
		feed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "harborseal_sweep_feed_available", Help: "1 if the last recent sweep of this replica used Harbor's feed of pushes, 0 if it listed the projects.",
		}),
	}
	if reg == nil {
		return m
	}
	for _, c := range []prometheus.Collector{m.sweeps, m.manifests, m.seconds, m.lastSuccess, m.proposeErrors, m.removed, m.missed, m.debts, m.feed, m.confirmed} {
		reg.MustRegister(c)
	}
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "harborseal_sweep_harbor_requests_total", Help: "Requests of sweeps to Harbor and its registry.",
		}, func() float64 { return float64(r.cfg.Budget.Requests()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "harborseal_sweep_oldest_unfinished_timestamp_seconds", Help: "When the oldest sweep began that this replica has not finished; 0 if there is none.",
		}, r.oldestUnfinished),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "harborseal_rotation_pending",
			Help: "Manifests that no active key has signed, by the last sweeps of this replica; the replicas add up.",
		}, r.rotationPending),
	)
	return m
}

func (m *metrics) ended(kind string, o outcome) { m.sweeps.WithLabelValues(kind, string(o)).Inc() }

func (m *metrics) succeeded(kind string, started time.Time) {
	m.ended(kind, done)
	m.seconds.WithLabelValues(kind).Observe(time.Since(started).Seconds())
	m.lastSuccess.WithLabelValues(kind).SetToCurrentTime()
}

func (m *metrics) counted(s artifact.Sweep) {
	for finding, n := range map[string]int{
		"signed": s.Signed, "requested": s.Requested, "pending": s.Pending, "dead": s.Failed,
		"excluded": s.Excluded, "blocked": s.Blocked, "unsigned": s.Unsigned, "gone": s.Gone,
	} {
		m.manifests.WithLabelValues(Full, finding).Add(float64(n))
	}
}
