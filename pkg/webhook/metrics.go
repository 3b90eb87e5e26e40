package webhook

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// outcome is what became of a delivery, from a closed set: it is a metric label.
type outcome string

const (
	queued       outcome = "queued"
	duplicate    outcome = "duplicate"
	ignored      outcome = "ignored"
	unauthorized outcome = "unauthorized"
	unsupported  outcome = "unsupported_media_type"
	tooLarge     outcome = "too_large"
	tooSlow      outcome = "too_slow" // the body did not come in time
	invalid      outcome = "invalid"
	unavailable  outcome = "unavailable" // policies or queue
	busy         outcome = "busy"        // too many are there
	notTried     outcome = "not_tried"   // the queue failed before, and was not asked
	crashed      outcome = "panic"
)

type metrics struct {
	requests *prometheus.CounterVec
	pushes   *prometheus.CounterVec
	seconds  prometheus.Histogram
	busy     *prometheus.CounterVec
}

// newMetrics registers what is counted, and what counts and shut tell when they are asked.
func newMetrics(registerer prometheus.Registerer, counts func() (places, waiting int), shut func() bool) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_webhook_requests_total",
			Help: "Webhook deliveries by what became of them.",
		}, []string{"outcome"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_webhook_pushes_total",
			Help: "Pushes that signing was asked for, by lane: bulk is what goes beyond a project's budget.",
		}, []string{"lane"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "harborseal_webhook_seconds",
			Help:    "Time from a delivery's header to its answer. Harbor gives up after 3 s.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2, 2.5, 3},
		}),
		busy: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_webhook_busy_total",
			Help: "Deliveries that were refused because too many were there: too many of one credential waited, or in all, or one waited too long, or too many secrets were being looked at.",
		}, []string{"bound"}),
	}
	gauges := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "harborseal_webhook_in_hand", Help: "Authenticated deliveries that are being answered.",
		}, func() float64 {
			places, _ := counts()
			return float64(places)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "harborseal_webhook_waiting", Help: "Authenticated deliveries that wait to be taken in hand.",
		}, func() float64 {
			_, waiting := counts()
			return float64(waiting)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "harborseal_webhook_queue_shut",
			Help: "1 while pushes are refused at once because the queue failed; one at a time still tries.",
		}, func() float64 {
			if shut() {
				return 1
			}
			return 0
		}),
	}
	for _, b := range []bound{perCredential, inAll, tooLong, unauthenticated} {
		m.busy.WithLabelValues(string(b))
	}
	// All outcomes are there from the start, so that a rate over the first one is no gap.
	for _, o := range []outcome{queued, duplicate, ignored, unauthorized, unsupported, tooLarge, tooSlow, invalid, unavailable, busy, notTried, crashed} {
		m.requests.WithLabelValues(string(o))
	}
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		m.pushes.WithLabelValues(string(lane))
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range append(gauges, m.requests, m.pushes, m.seconds, m.busy) {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the webhook metrics: %w", err)
		}
	}
	return m, nil
}
