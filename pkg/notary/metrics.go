package notary

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// What can fail without stopping anything: a label of the metrics.
const (
	placeFile     = "file"
	placeWebhook  = "webhook"
	placeDatabase = "database"
)

type metrics struct {
	tampered   prometheus.Gauge
	checkpoint prometheus.Gauge
	size       prometheus.Gauge
	epoch      prometheus.Gauge
	verified   prometheus.Gauge
	failures   *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		tampered:   gauge("harborseal_ledger_tampered", "1 if the ledger does not fit its checkpoints, as far as this receiver has found since it started, else 0."),
		checkpoint: gauge("harborseal_ledger_checkpoint_timestamp_seconds", "When the newest verified checkpoint of the ledger was made; 0 before the first."),
		size:       gauge("harborseal_ledger_checkpoint_events", "How many events the newest verified checkpoint covers."),
		epoch:      gauge("harborseal_ledger_checkpoint_epoch", "The epoch of the ledger's Merkle log."),
		verified:   gauge("harborseal_ledger_verified_timestamp_seconds", "When the whole ledger was last compared with its checkpoints; 0 before the first time."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_ledger_checkpoint_failures_total",
			Help: "Attempts that failed to bring checkpoints to a place beside the ledger, and are repeated, by place.",
		}, []string{"place"}),
	}
	for _, place := range []string{placeFile, placeWebhook, placeDatabase} {
		m.failures.WithLabelValues(place)
	}
	if registerer == nil {
		return m, nil
	}
	var err error
	for _, c := range []prometheus.Collector{m.tampered, m.checkpoint, m.size, m.epoch, m.verified, m.failures} {
		err = errors.Join(err, registerer.Register(c))
	}
	if err != nil {
		return nil, fmt.Errorf("registering the metrics of the notary: %w", err)
	}
	return m, nil
}
