package dependency_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// TestRealOutages breaks a real server in each way, mends it, and reads what the ledger got.
func TestRealOutages(t *testing.T) {
	t.Parallel()
	trusted, names := newAuthority(t), startDNS(t)
	here := netip.MustParseAddr("127.0.0.1")
	names.Set(host, here)
	good, expired := trusted.serves(t, host, time.Now().Add(time.Hour)), trusted.serves(t, host, time.Now().Add(-time.Hour))
	emulator := harbortest.New(t, harbortest.Config{})
	account, impostor := harborClient(t, emulator, harbortest.DefaultAdminPassword), harborClient(t, emulator, "not-the-secret")
	var broken atomic.Value // a dependency.Cause
	is := func(cause dependency.Cause) bool { return broken.Load() == cause }
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if is(dependency.TLS) {
			return &expired.Certificates[0], nil
		}
		return &good.Certificates[0], nil
	}}
	server := serve(t, config, func(w http.ResponseWriter, r *http.Request) {
		switch broken.Load() {
		case dependency.Refused:
			panic(http.ErrAbortHandler) // the connection is closed
		case dependency.Timeout:
			<-r.Context().Done()
		case dependency.Protocol:
			answers(http.StatusOK, "text/html", "<html>")(w, r)
		case dependency.Skew:
			dated(time.Hour)(w, r)
		default:
			answers(http.StatusOK, "application/json", "{}")(w, r)
		}
	})
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := dependency.Probe{Name: "registry", URLs: []string{"https://" + host + ":" + port}, Transport: trusted.transport(t, names)}
	ping := dependency.Registry(p.URLs[0], p.Transport)
	project := func(context.Context) (string, error) { return "library", nil }
	p.Call = func(ctx context.Context) error {
		c := account
		if is(dependency.Auth) {
			c = impostor
		}
		if err := ping(ctx); err != nil {
			return err
		}
		return dependency.TokenRights(c.TokenActions, project)(ctx)
	}
	records := make(chan artifact.Event, 10)
	m := monitor(t, func(c *dependency.Config) {
		c.Interval, c.Timeout = 20*time.Millisecond, 2*time.Second
		c.Record = func(_ context.Context, e artifact.Event) error { records <- e; return nil }
		c.Counts = func(context.Context) (uint64, uint64) { return 7, 3 }
	}, p)
	broken.Store(dependency.Cause(""))
	stop := start(t, m)
	defer stop()
	next := func(what string) artifact.OutageRecord {
		t.Helper()
		select {
		case e := <-records:
			return *e.Outage
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no record; %+v", what, m.Status())
			return artifact.OutageRecord{}
		}
	}
	answered(t, m, time.Now())
	for _, cause := range dependency.Causes() {
		before := time.Now()
		broken.Store(cause)
		if cause == dependency.DNS {
			names.Remove(host)
		}
		opened := next(string(cause) + " begins")
		if cause == dependency.DNS {
			names.Set(host, here)
		}
		broken.Store(dependency.Cause(""))
		mended := time.Now()
		closed := next(string(cause) + " ends")
		for name, r := range map[string]artifact.OutageRecord{"begins": opened, "ends": closed} {
			if r.Cause != string(cause) || r.Waiting != 7 || r.Deferred != 3 || r.StartedAt.After(r.DetectedAt) ||
				r.DetectedAt.Before(before.Add(-time.Millisecond)) || r.DetectedAt.After(mended) {
				t.Errorf("%s %s: %+v, want it started before it was detected, between %s and %s", cause, name, r, before, mended)
			}
		}
		if opened.EndedAt != nil || closed.EndedAt == nil || closed.EndedAt.Before(opened.DetectedAt) || !closed.StartedAt.Equal(opened.StartedAt) {
			t.Errorf("%s: %+v and then %+v, want the second to end the first", cause, opened, closed)
		}
	}
	stop()
	if len(records) != 0 {
		t.Errorf("%+v, want no further record", <-records)
	}
}

// answered waits for an answer that came after a time.
func answered(t *testing.T, m *dependency.Monitor, after time.Time) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		if s := m.Status()[0]; s.Up != nil && *s.Up && s.CheckedAt.After(after) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%+v, want it to answer", m.Status())
		}
	}
}

// TestNothingOutlivesALook has a server that never ends a handshake: the connection is given up with the probe.
func TestNothingOutlivesALook(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 1)
	address := listen(t, func(_ context.Context, conn net.Conn) {
		for {
			if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
				gone <- struct{}{}
				return
			}
		}
	})
	m := monitor(t, func(c *dependency.Config) { c.Timeout = 200 * time.Millisecond }, dependency.Probe{Name: "kms/pay", URLs: []string{"https://" + address}})
	if got := m.Look(t.Context())[0]; got.Cause != dependency.Timeout {
		t.Errorf("%+v, want a timeout", got)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the connection is open, want it closed with the probe")
	}
}
