package dependency_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/dependency"
)

// TestExpiries has certificates that were really shown, and other credentials.
func TestExpiries(t *testing.T) {
	t.Parallel()
	trusted := newAuthority(t)
	now := time.Now()
	until, past := now.Add(72*time.Hour).Truncate(time.Second), now.Add(-time.Hour).Truncate(time.Second)
	probes := make([]dependency.Probe, 0, 3)
	for name, at := range map[string]time.Time{"harbor_api": until, "log/old": past} {
		server := serve(t, trusted.serves(t, "127.0.0.1", at), answers(http.StatusOK, "application/json", "{}"))
		probes = append(probes, dependency.Probe{Name: name, URLs: []string{server.URL}, Transport: trusted.transport(t, nil)})
	}
	asked := make(chan struct{}, 10)
	probes = append(probes, dependency.Probe{Name: "fulcio/ci", Call: func(context.Context) error { return nil }, Credentials: []dependency.Credential{
		{Name: "fulcio/ci/token", Expires: dependency.Until(func() time.Time { return until })},
		{Name: "never", Expires: dependency.Until(func() time.Time { return time.Time{} })},
		{Name: "unknown", Expires: func(context.Context) (time.Time, error) { return time.Time{}, errAway }},
		{Name: "robot", Every: time.Hour, Expires: func(context.Context) (time.Time, error) { asked <- struct{}{}; return past, nil }},
	}})
	registry := prometheus.NewRegistry()
	m := monitor(t, func(c *dependency.Config) { c.Registerer, c.Interval, c.Now = registry, 20*time.Millisecond, time.Now }, probes...)
	stop := start(t, m)
	defer stop()
	want := map[string]time.Time{"harbor_api/certificate": until, "log/old/certificate": past, "fulcio/ci/token": until, "robot": past}
	deadline, tick := time.Now().Add(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		got := expiries(t, registry)
		if len(got) == len(want) && allUp(m) {
			for name, at := range want {
				if diff := time.Until(at).Seconds() - got[name]; diff > 5 || diff < -5 {
					t.Errorf("%s: %g seconds left, want until %s", name, got[name], at)
				}
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, %+v; want %v", got, m.Status(), want)
		}
	}
	stop()
	if len(asked) != 1 {
		t.Errorf("the robot was asked about %d times, want once in an hour", len(asked))
	}
	for _, s := range m.Status() {
		if s.Dependency == "harbor_api" && !s.CertificateExpires.Equal(until) {
			t.Errorf("%+v, want %s", s, until)
		}
	}
}

// allUp says that everything was probed, and all but the expired one answers.
func allUp(m *dependency.Monitor) bool {
	for _, s := range m.Status() {
		if s.Up == nil || *s.Up == (s.Dependency == "log/old") {
			return false
		}
	}
	return true
}

func expiries(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "harborseal_credential_expires_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	return got
}
