package status

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	answers   *prometheus.CounterVec
	questions *prometheus.CounterVec
	refused   *prometheus.CounterVec
	waiting   prometheus.Gauge
	wake      prometheus.Histogram
	failures  prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_status_answers_total",
			Help: "Answers to whether an image is signed, by what they were: signed, pending, refused, missing, error.",
		}, []string{"outcome"}),
		questions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_status_harbor_questions_total",
			Help: "Questions to Harbor for those answers: what a reference names, and whether a signature is in the registry.",
		}, []string{"question"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_status_refused_total",
			Help: "Questions that were not taken because too many wait, in all or of one caller.",
		}, []string{"bound"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "harborseal_status_waiting", Help: "Callers that wait for an image to be signed.",
		}),
		wake: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "harborseal_status_wake_seconds",
			Help:    "Time from the moment at which the report's view had something about an image to the wake-up of who waits for it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .2, .5, 1, 2.5},
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_status_wake_errors_total", Help: "Failed readings of the report's view for those who wait; they are repeated.",
		}),
	}
	for _, o := range []Outcome{Signed, Pending, Refused, Missing, failed} {
		m.answers.WithLabelValues(string(o))
	}
	for _, q := range []string{"resolve", "signature"} {
		m.questions.WithLabelValues(q)
	}
	for _, b := range []string{"total", "caller"} {
		m.refused.WithLabelValues(b)
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.answers, m.questions, m.refused, m.waiting, m.wake, m.failures} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of the status: %w", err)
		}
	}
	return m, nil
}

// observeWake notes how long those waited whose news came first; a zero time is none.
func (m *metrics) observeWake(since, now time.Time) {
	if !since.IsZero() {
		m.wake.Observe(now.Sub(since).Seconds())
	}
}
