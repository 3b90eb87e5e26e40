package report

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of exports, as metrics show them.
const (
	outcomeComplete = "complete"
	outcomeCut      = "cut" // the reader went, or was too slow, or it took too long
	outcomeFailed   = "failed"
	outcomeBusy     = "busy"
)

type exportMetrics struct {
	running prometheus.Gauge
	rows    prometheus.Counter
	exports *prometheus.CounterVec
}

// newExportMetrics makes the metrics and, unless registerer is nil, registers them.
func newExportMetrics(registerer prometheus.Registerer) (*exportMetrics, error) {
	m := &exportMetrics{
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: "harborseal_report_exports_running", Help: "Exports of the report that are being written."}),
		rows:    prometheus.NewCounter(prometheus.CounterOpts{Name: "harborseal_report_exported_rows_total", Help: "Rows written into exports."}),
		exports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "harborseal_report_exports_total", Help: "Exports of the report by how they ended: complete, cut, failed, or busy where none began.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{outcomeComplete, outcomeCut, outcomeFailed, outcomeBusy} {
		m.exports.WithLabelValues(outcome)
	}
	return m, register(registerer, m.running, m.rows, m.exports)
}

func (m *exportMetrics) ended(outcome string) { m.exports.WithLabelValues(outcome).Inc() }

func register(registerer prometheus.Registerer, all ...prometheus.Collector) error {
	if registerer == nil {
		return nil
	}
	for _, c := range all {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}
