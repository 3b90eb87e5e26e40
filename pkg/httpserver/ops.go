package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// Check is one thing that must be well before the process can do its work.
type Check struct {
	Name string
	// Run says what is not well. It must be safe for concurrent use and return when ctx ends; its error goes to whoever can
	// reach the listener, so it holds nothing secret.
	Run func(ctx context.Context) error
	// Optional says that the process does its main work without: the check is shown, and decides nothing.
	Optional bool
}

// OpsConfig is what the operations routes need.
type OpsConfig struct {
	// Gatherer gives the metrics. Required.
	Gatherer prometheus.Gatherer
	// Checks decide on readiness, in this order, unless they are optional. None means always ready until drained.
	Checks []Check
	// CheckTimeout bounds each check. Default: 1 s.
	CheckTimeout time.Duration
	Logger       zerolog.Logger
}

// Ops answers for the health of the process. It is safe for concurrent use.
type Ops struct {
	cfg      OpsConfig
	draining atomic.Bool
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready    bool          `json:"ready"`
	Draining bool          `json:"draining"`
	Checks   []CheckResult `json:"checks"`
}

// CheckResult is what became of one check.
type CheckResult struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// NewOps validates cfg.
func NewOps(cfg OpsConfig) (*Ops, error) {
	var errs []error
	if cfg.Gatherer == nil {
		errs = append(errs, errors.New("there is no gatherer of metrics"))
	}
	for i, check := range cfg.Checks {
		if check.Name == "" || check.Run == nil {
			errs = append(errs, fmt.Errorf("check %d has no name or nothing to run", i))
		}
	}
	if cfg.CheckTimeout < 0 {
		errs = append(errs, fmt.Errorf("timeout of checks %s is negative", cfg.CheckTimeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("operations routes: %w", err)
	}
	if cfg.CheckTimeout == 0 {
		cfg.CheckTimeout = time.Second
	}
	return &Ops{cfg: cfg}, nil
}

// Drain makes the process not ready, for good: whoever balances the load sends nothing new.
func (o *Ops) Drain() { o.draining.Store(true) }

// Register adds GET and HEAD of /metrics, /livez and /readyz. /livez answers 200 as long as the process can answer at all:
// what depends on others belongs to readiness, because a restart would not heal it.
func (o *Ops) Register(r gin.IRouter) {
	metrics := promhttp.HandlerFor(o.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:      errorLog{o.cfg.Logger},
		ErrorHandling: promhttp.ContinueOnError,
	})
	for path, handler := range map[string]gin.HandlerFunc{
		"/metrics": gin.WrapH(metrics),
		"/livez":   func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"live": true}) },
		"/readyz":  o.readyz,
	} {
		r.GET(path, handler)
		r.HEAD(path, handler)
	}
}

func (o *Ops) readyz(c *gin.Context) {
	readiness := o.Ready(c.Request.Context())
	status := http.StatusOK
	if !readiness.Ready {
		status = http.StatusServiceUnavailable
	}
	c.Header("Cache-Control", "no-store")
	c.JSON(status, readiness)
}

// Ready runs the checks one after the other.
func (o *Ops) Ready(ctx context.Context) Readiness {
	r := Readiness{Draining: o.draining.Load(), Checks: make([]CheckResult, 0, len(o.cfg.Checks))}
	r.Ready = !r.Draining
	for _, check := range o.cfg.Checks {
		result := CheckResult{Name: check.Name, OK: true}
		if err := o.run(ctx, check); err != nil {
			result.OK, result.Error = false, err.Error()
			r.Ready = r.Ready && check.Optional
		}
		r.Checks = append(r.Checks, result)
	}
	return r
}

func (o *Ops) run(ctx context.Context, check Check) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.CheckTimeout)
	defer cancel()
	return check.Run(ctx)
}
