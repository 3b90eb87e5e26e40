package httpserver

import (
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/problem"
)

const (
	// maxStreams bounds the requests of one connection of HTTP/2: more than Harbor's ten deliveries.
	maxStreams = 32
	// streamBuffer and connectionBuffer are what of bodies is kept before a handler reads it, in bytes.
	streamBuffer     = 64 << 10
	connectionBuffer = 256 << 10
	// discarded is how much of a body is read before the answer to who is turned away: with a rest unread, the connection would
	// have to wait until the client has seen the answer.
	discarded = 16 << 10
	// crowdRetryAfter is what they are asked for, in seconds. Harbor does not read it, and comes again after 16 s at least.
	crowdRetryAfter = "5"
)

// crowd answers who is turned away, and bounds the requests in hand where one connection can carry many.
type crowd struct {
	next    http.Handler
	places  chan struct{}
	metrics *metrics
}

// ServeHTTP implements http.Handler.
func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isOver(r) {
		// What does not come in time is the connection's end.
		_, _ = io.CopyN(io.Discard, r.Body, discarded)
		w.Header().Set("Connection", "close")
		tooMany(w, "Too many connections are open.")
		return
	}
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
		c.next.ServeHTTP(w, r)
	default:
		c.metrics.requests.Inc()
		tooMany(w, "Too many requests are being answered.")
	}
}

func tooMany(w http.ResponseWriter, detail string) {
	w.Header().Set("Retry-After", crowdRetryAfter)
	problem.Write(w, problem.Document{Status: http.StatusServiceUnavailable, Detail: detail})
}

// metrics are those of one listener.
type metrics struct {
	open             prometheus.Gauge
	refused, evicted prometheus.Counter
	requests         prometheus.Counter
}

// newMetrics registers the metrics of a listener. Those of several listeners differ by its name.
func newMetrics(registerer prometheus.Registerer, listener string, limit int) (*metrics, error) {
	labels := prometheus.Labels{"listener": listener}
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "harborseal_http_connections", Help: "Connections that are served.", ConstLabels: labels,
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_http_connections_refused_total", Help: "Connections that were turned away with 503, because too many were open.", ConstLabels: labels,
		}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_http_connections_evicted_total", Help: "Idle connections that were closed to make room for others.", ConstLabels: labels,
		}),
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "harborseal_http_requests_refused_total", Help: "Requests that were refused with 503, because too many were being answered.", ConstLabels: labels,
		}),
	}
	most := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "harborseal_http_connections_limit", Help: "Connections that are served at most, without the reserve.", ConstLabels: labels,
	})
	most.Set(float64(limit))
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.open, m.refused, m.evicted, m.requests, most} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of connections: %w", err)
		}
	}
	return m, nil
}
