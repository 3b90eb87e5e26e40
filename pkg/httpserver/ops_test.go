package httpserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/httpserver"
)

func newOps(t *testing.T, checks ...httpserver.Check) (engine, *httpserver.Ops) {
	t.Helper()
	e := newEngine(t)
	ops, err := httpserver.NewOps(httpserver.OpsConfig{Gatherer: e.registry, Checks: checks})
	if err != nil {
		t.Fatal(err)
	}
	ops.Register(e)
	return e, ops
}

func check(name string, err error) httpserver.Check {
	return httpserver.Check{Name: name, Run: func(context.Context) error { return err }}
}

func wantReadiness(t *testing.T, e engine, status int, want httpserver.Readiness) {
	t.Helper()
	rec := e.do(t, http.MethodGet, "/readyz", nil)
	var got httpserver.Readiness
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatalf("answer %q: %v", rec.Body, err)
	}
	if rec.Code != status || !reflect.DeepEqual(got, want) {
		t.Errorf("GET /readyz = %d %+v, want %d %+v", rec.Code, got, status, want)
	}
}

func TestReadiness(t *testing.T) {
	broken := errors.New("no leader")
	e, ops := newOps(t, check("policies", nil), check("jetstream", nil))
	wantReadiness(t, e, http.StatusOK, httpserver.Readiness{Ready: true, Checks: []httpserver.CheckResult{{Name: "policies", OK: true}, {Name: "jetstream", OK: true}}})
	ops.Drain()
	wantReadiness(t, e, http.StatusServiceUnavailable, httpserver.Readiness{Draining: true, Checks: []httpserver.CheckResult{{Name: "policies", OK: true}, {Name: "jetstream", OK: true}}})

	e, _ = newOps(t, check("policies", nil), check("jetstream", broken))
	wantReadiness(t, e, http.StatusServiceUnavailable, httpserver.Readiness{Checks: []httpserver.CheckResult{{Name: "policies", OK: true}, {Name: "jetstream", Error: "no leader"}}})

	e, _ = newOps(t)
	wantReadiness(t, e, http.StatusOK, httpserver.Readiness{Ready: true, Checks: []httpserver.CheckResult{}})
}

func TestACheckThatHangsIsNotReady(t *testing.T) {
	_, ops := newOps(t, httpserver.Check{Name: "stuck", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}, check("after", nil))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := ops.Ready(t.Context())
		if took := time.Since(start); took != time.Second {
			t.Errorf("Ready() took %s, want 1s", took)
		}
		if got.Ready || got.Checks[0].OK || !got.Checks[1].OK {
			t.Errorf("Ready() = %+v, want the first check alone to fail", got)
		}
	})
}

func TestLivenessDependsOnNothing(t *testing.T) {
	e, ops := newOps(t, check("jetstream", errors.New("no leader")))
	ops.Drain()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		if rec := e.do(t, method, "/livez", nil); rec.Code != http.StatusOK {
			t.Errorf("%s /livez = %d, want 200", method, rec.Code)
		}
	}
}

func TestMetrics(t *testing.T) {
	e, _ := newOps(t)
	rec := e.do(t, http.MethodGet, "/metrics", nil)
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "harborseal_http_panics_total 0") {
		t.Errorf("GET /metrics = %d %q, want the metrics of the registry", rec.Code, rec.Body)
	}
}

// brokenCollector fails whenever it is asked.
type brokenCollector struct{ desc *prometheus.Desc }

func (b brokenCollector) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

func (b brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(b.desc, errors.New("store is closed"))
}

func TestABrokenCollectorIsLoggedAndHidesNoOther(t *testing.T) {
	e := newEngine(t)
	if err := e.registry.Register(brokenCollector{prometheus.NewDesc("broken", "", nil, nil)}); err != nil {
		t.Fatal(err)
	}
	log := &output{}
	ops, err := httpserver.NewOps(httpserver.OpsConfig{Gatherer: e.registry, Logger: zerolog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	ops.Register(e)
	if rec := e.do(t, http.MethodGet, "/metrics", nil); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "harborseal_http_panics_total") {
		t.Errorf("GET /metrics = %d %q, want the metrics that could be collected", rec.Code, rec.Body)
	}
	if !strings.Contains(log.String(), "store is closed") {
		t.Errorf("log = %q, want what is broken", log)
	}
}

func TestNewOpsRefuses(t *testing.T) {
	_, err := httpserver.NewOps(httpserver.OpsConfig{Checks: []httpserver.Check{{Name: "x"}}, CheckTimeout: -1})
	if err == nil {
		t.Fatal("NewOps() of a broken configuration succeeded")
	}
	for _, want := range []string{"gatherer", "check 0", "negative"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}
