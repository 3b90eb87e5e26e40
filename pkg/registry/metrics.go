package registry

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is what a request is for: a closed set, used as a label.
type operation string

const (
	opPing         operation = "ping"
	opToken        operation = "token"
	opManifestGet  operation = "manifest_get"
	opManifestPut  operation = "manifest_put"
	opBlobGet      operation = "blob_get"
	opReferrers    operation = "referrers"
	opUploadStart  operation = "blob_upload_start"
	opUploadFinish operation = "blob_upload_finish"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_registry_requests_total",
			Help: "Requests to the registry by operation and class of status (error: no answer).",
		}, []string{"operation", "code_class"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "harborseal_registry_request_seconds",
			Help:    "Time from sending a request to the registry to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
		}, []string{"operation"}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.seconds))
}

// observe counts one request; status 0 means that there was no answer.
func (m *metrics) observe(op operation, status int, took time.Duration) {
	m.requests.WithLabelValues(string(op), codeClass(status)).Inc()
	m.seconds.WithLabelValues(string(op)).Observe(took.Seconds())
}

func codeClass(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	default:
		return "error"
	}
}
