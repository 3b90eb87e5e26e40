package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	defaultRefresh = 15 * time.Second
	totalsTimeout  = 10 * time.Second
)

// Totals are what an alert asks of all projects together.
type Totals struct {
	// Oldest is when the ledger first heard of the oldest digest of each state without a signature that counts: pending, failed,
	// dead and unsigned. A state that no digest has is not there.
	Oldest map[State]time.Time
	// LogDebt is how many of the signed digests owe an entry in a transparency log, and OldestLogDebt since when the oldest of them
	// does; zero if none does.
	LogDebt       int
	OldestLogDebt time.Time
}

// MissingStates are the states of what is to be signed and is not.
func MissingStates() []State { return []State{Pending, Failed, Dead, Unsigned} }

// Count adds digests of one state, of which the ledger first heard then.
func (t *Totals) Count(state State, oldest time.Time) {
	if !slices.Contains(MissingStates(), state) {
		return
	}
	if known, ok := t.Oldest[state]; ok && !oldest.Before(known) {
		return
	}
	if t.Oldest == nil {
		t.Oldest = make(map[State]time.Time, len(MissingStates()))
	}
	t.Oldest[state] = oldest
}

// Owe adds digests for which an entry is owed, the oldest of them since that time.
func (t *Totals) Owe(digests int, oldest time.Time) {
	if digests == 0 {
		return
	}
	t.LogDebt += digests
	if t.OldestLogDebt.IsZero() || oldest.Before(t.OldestLogDebt) {
		t.OldestLogDebt = oldest
	}
}

// totaller is the view as a [Gauges] asks it. It makes one attempt, and is cheap however many rows there are.
type totaller interface {
	Totals(ctx context.Context) (Totals, error)
}

// GaugesConfig is what [NewGauges] needs. View and Registerer are required.
type GaugesConfig struct {
	View       totaller
	Registerer prometheus.Registerer
	// Interval is how often the view is asked; 0 means 15 s.
	Interval time.Duration
	Logger   zerolog.Logger
}

// Gauges keep what alerts ask of the report in metrics. Whoever scrapes never waits for the database: the view is asked in the
// background. While it does not answer, the metrics stay as they were, and say since when.
type Gauges struct {
	view     totaller
	interval time.Duration
	logger   zerolog.Logger

	oldestUnsigned *prometheus.GaugeVec
	debt           prometheus.Gauge
	oldestDebt     *prometheus.GaugeVec // without labels: it is not there while nothing is owed
	refreshed      prometheus.Gauge
}

// NewGauges makes and registers the metrics. It starts nothing.
func NewGauges(cfg GaugesConfig) (*Gauges, error) {
	if cfg.View == nil || cfg.Registerer == nil || cfg.Interval < 0 {
		return nil, errors.New("making the report's metrics: View, Registerer and an Interval that is not negative are required")
	}
	opts := func(name, help string) prometheus.GaugeOpts { return prometheus.GaugeOpts{Name: name, Help: help} }
	g := &Gauges{
		view: cfg.View, interval: cfg.Interval, logger: cfg.Logger,
		oldestUnsigned: prometheus.NewGaugeVec(opts("harborseal_report_oldest_unsigned_timestamp_seconds",
			"When the ledger first heard of the oldest digest in a state without a signature; not there for a state that no digest has."), []string{"state"}),
		debt: prometheus.NewGauge(opts("harborseal_report_log_debt",
			"Signed digests for which an entry of a transparency log is owed.")),
		oldestDebt: prometheus.NewGaugeVec(opts("harborseal_report_log_debt_oldest_timestamp_seconds",
			"Since when the oldest of them owes its entry; not there while nothing is owed."), nil),
		refreshed: prometheus.NewGauge(opts("harborseal_report_refreshed_timestamp_seconds",
			"When the report's metrics were last read from its database.")),
	}
	if g.interval == 0 {
		g.interval = defaultRefresh
	}
	for _, c := range []prometheus.Collector{g.oldestUnsigned, g.debt, g.oldestDebt, g.refreshed} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return g, nil
}

// Run keeps the metrics fresh until ctx is done, and then returns nil. At most one Run at a time.
func (g *Gauges) Run(ctx context.Context) error {
	for {
		if err := g.refresh(ctx); err != nil && ctx.Err() == nil {
			g.logger.Warn().Err(err).Msg("metrics of the report stay as they are")
		}
		if !wait(ctx, g.interval) {
			return nil
		}
	}
}

func (g *Gauges) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, totalsTimeout)
	defer cancel()
	totals, err := g.view.Totals(ctx)
	if err != nil {
		return fmt.Errorf("asking for the report's totals: %w", err)
	}
	for _, state := range MissingStates() {
		if _, there := totals.Oldest[state]; !there {
			g.oldestUnsigned.DeleteLabelValues(string(state))
		}
	}
	for state, oldest := range totals.Oldest {
		g.oldestUnsigned.WithLabelValues(string(state)).Set(seconds(oldest))
	}
	g.debt.Set(float64(totals.LogDebt))
	if totals.OldestLogDebt.IsZero() {
		g.oldestDebt.Reset()
	} else {
		g.oldestDebt.WithLabelValues().Set(seconds(totals.OldestLogDebt))
	}
	g.refreshed.SetToCurrentTime()
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
