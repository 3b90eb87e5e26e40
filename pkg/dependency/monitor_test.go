package dependency_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
)

// TestSeenInTime switches a dependency off at every moment between two probes: it refuses, or hangs.
func TestSeenInTime(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		for offset := time.Duration(0); offset < 15*time.Second; offset += 700 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				time.Sleep(time.Minute + offset)
				if s.up(t) != 1 {
					t.Fatal("not up, want it up for the first minute")
				}
				if hangs {
					s.hang()
				} else {
					s.set(errAway)
				}
				off := time.Now()
				for s.up(t) == 1 && time.Since(off) < time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(off); took > 26*time.Second || !hangs && took > 16*time.Second {
					t.Errorf("hangs %t, %s after a probe: seen after %s, want 25s at most", hangs, offset, took)
				}
				s.stop()
			})
		}
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		synctest.Wait()
		if s.up(t) != -1 || s.monitor.Status()[0].Up != nil {
			t.Error("up or down before the first probe")
		}
		time.Sleep(time.Hour)
		if got := s.asked(); got < 239 || got > 241 {
			t.Errorf("%d probes in an hour, want one in 15s", got)
		}
		s.hang()
		time.Sleep(time.Hour)
		if got := s.asked(); got < 478 || got > 482 {
			t.Errorf("%d probes in two hours, want one in 15s while it hangs, too", got)
		}
		s.stop()
		before := s.asked()
		time.Sleep(time.Hour)
		if got := s.asked(); got != before {
			t.Errorf("%d probes after the end", got-before)
		}
	})
}

// TestCallThatIgnoresItsContext is not made again while it hangs, and hides nothing.
func TestCallThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		calls := 0
		m := monitor(t, nil, dependency.Probe{Name: "kms/pay", Call: func(context.Context) error {
			mu.Lock()
			calls++
			mu.Unlock()
			<-release
			return nil
		}})
		stop := start(t, m)
		time.Sleep(10 * time.Minute)
		mu.Lock()
		if calls != 1 {
			t.Errorf("%d calls, want the one that hangs", calls)
		}
		mu.Unlock()
		if got := m.Status()[0]; got.Up == nil || *got.Up || got.Cause != dependency.Timeout {
			t.Errorf("%+v, want a timeout", got)
		}
		close(release)
		time.Sleep(time.Minute)
		if got := m.Status()[0]; got.Up == nil || !*got.Up {
			t.Errorf("%+v, want it up", got)
		}
		stop()
	})
}

// TestLateAnswer comes when the probe is over.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := monitor(t, nil, dependency.Probe{Name: "kms/pay", Call: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		if got := m.Look(t.Context())[0]; got.Up == nil || *got.Up || got.Cause != dependency.Timeout {
			t.Errorf("%+v, want a timeout", got)
		}
	})
}

// TestDetailsHoldNoSecret has a library repeat an address.
func TestDetailsHoldNoSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"dial nats://signer:pa55@nats.example.com:4222/x: refused":   "dial nats://nats.example.com:4222/x: refused",
		"https://u:pa55@a/ and postgres://u:p@55@b?x=1 \x1b[31mend":  "https://a/ and postgres://b?x=1 [31mend",
		"https://host/pa@th is not touched":                          "https://host/pa@th is not touched",
		"https://u:pa55@":                                            "https://",
		strings.Repeat("x", 396) + "https://u:pa55@host.example.com": "",
	} {
		m := monitor(t, nil, dependency.Probe{Name: "queue", Call: func(context.Context) error { return errors.New(text) }})
		got := m.Look(t.Context())[0].Detail
		if strings.Contains(got, "pa55") || strings.Contains(got, "p@55") || want != "" && got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	call := func(context.Context) error { return nil }
	for name, change := range map[string]func(*dependency.Config){
		"no program":    func(c *dependency.Config) { c.Program = "" },
		"no instance":   func(c *dependency.Config) { c.Instance = "" },
		"no record":     func(c *dependency.Config) { c.Record = nil },
		"interval":      func(c *dependency.Config) { c.Interval = -1 },
		"no name":       func(c *dependency.Config) { c.Probes = []dependency.Probe{{Call: call}} },
		"nothing to do": func(c *dependency.Config) { c.Probes = []dependency.Probe{{Name: "x"}} },
		"twice": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", Call: call}, {Name: "x", Call: call}}
		},
		"no host": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", URLs: []string{"https://u:pa55@"}}}
		},
		"not an address": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", URLs: []string{"https://u:pa55@h:%zz"}}}
		},
		"no port": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", URLs: []string{"tcp://u:pa55@h"}}}
		},
		"an unknown scheme": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", URLs: []string{"ftp://u:pa55@h"}}}
		},
		"an odd credential": func(c *dependency.Config) {
			c.Probes = []dependency.Probe{{Name: "x", Call: call, Credentials: []dependency.Credential{{}}}}
		},
		"a registry in use": func(c *dependency.Config) { c.Registerer = used(t) },
	} {
		cfg := dependency.Config{Program: "signer", Instance: "one", Record: new(ledger).record}
		change(&cfg)
		if _, err := dependency.New(cfg); err == nil || strings.Contains(err.Error(), "pa55") {
			t.Errorf("%s: %v, want an error without secrets", name, err)
		}
	}
	if _, err := dependency.New(dependency.Config{Program: "signer", Instance: "one", Record: new(ledger).record}); err != nil {
		t.Errorf("without any probe: %v", err)
	}
}

func used(t *testing.T) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewRegistry()
	monitor(t, func(c *dependency.Config) { c.Registerer = registry })
	return registry
}

// TestDatabase keeps what a fault says, and makes the rest one.
func TestDatabase(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		reason fault.Reason
	}{{nil, ""}, {io.EOF, fault.StorageUnavailable}, {errAway, fault.Unreachable}} {
		err := dependency.Database(func(context.Context) error { return tt.err })(t.Context())
		if (err != nil) != (tt.reason != "") || err != nil && fault.Of(err).Reason != tt.reason {
			t.Errorf("%v became %v, want %s", tt.err, err, tt.reason)
		}
	}
}
