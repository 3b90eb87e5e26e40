package dependency_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
)

// TestOutage walks through one, as the ledger gets it.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cause  dependency.Cause
		err    error
		detail string
	}{
		{dependency.DNS, realFailure(t, "http://gone.invalid"), "no such host"},
		{dependency.Refused, realFailure(t, "http://"+unused(t)), "refused"},
		{dependency.Timeout, fault.Newf(fault.Transient, fault.Timeout, "no answer"), "no answer"},
		{dependency.TLS, http.ErrSchemeMismatch, "HTTPS"},
		{dependency.Auth, fault.Newf(fault.Permanent, fault.Unauthorized, "401"), "401"},
		{dependency.Protocol, fault.Newf(fault.Transient, fault.BadAnswer, "HTML"), "HTML"},
		{dependency.Skew, &dependency.SkewError{By: time.Minute}, "clock"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			time.Sleep(time.Minute)
			s.set(tt.err)
			off := time.Now().UTC()
			time.Sleep(time.Hour)
			synctest.Wait()
			got := s.ledger.all()
			if len(got) != 1 {
				t.Fatalf("%s: %d events while it goes on, want 1", tt.cause, len(got))
			}
			first := got[0]
			check := func(e artifact.Event, ended bool) {
				t.Helper()
				o := e.Outage
				if e.Kind != artifact.Outage || e.Origin != artifact.OriginProbe || o == nil {
					t.Fatalf("%s: %+v, want an outage", tt.cause, e)
				}
				if o.Dependency != "log/rekor" || o.Program != "signer" || o.Instance != "one" || o.Cause != string(tt.cause) || !strings.Contains(o.Detail, tt.detail) {
					t.Errorf("%s: %+v, with %q", tt.cause, o, tt.detail)
				}
				if o.StartedAt.After(off) || off.Sub(o.StartedAt) > 15*time.Second {
					t.Errorf("%s: started at %s, want the last answer before %s", tt.cause, o.StartedAt, off)
				}
				if o.DetectedAt.Before(off) || o.DetectedAt.Sub(off) > 15*time.Second {
					t.Errorf("%s: detected at %s, want the first failure after %s", tt.cause, o.DetectedAt, off)
				}
				if (o.EndedAt != nil) != ended || o.Deferred != 10*o.Waiting {
					t.Errorf("%s: ended at %v, waiting %d, deferred %d; want an end %t, and what was counted", tt.cause, o.EndedAt, o.Waiting, o.Deferred, ended)
				}
			}
			check(first, false)
			s.set(nil)
			back := time.Now().UTC()
			time.Sleep(time.Minute)
			got = s.ledger.all()
			if len(got) != 2 {
				t.Fatalf("%s: %d events, want 2", tt.cause, len(got))
			}
			last := got[1]
			check(last, true)
			if e := last.Outage.EndedAt; e.Before(back) || e.Sub(back) > 15*time.Second || !last.Time.Equal(*e) || !first.Time.Equal(first.Outage.DetectedAt) {
				t.Errorf("%s: ended at %s, want the first answer after %s", tt.cause, e, back)
			}
			if first.ID == last.ID || first.CorrelationID != last.CorrelationID || first.Outage.Waiting != 1 || last.Outage.Waiting != 2 {
				t.Errorf("%s: %+v and %+v: want two ids, one correlation, and a count of each", tt.cause, first, last)
			}
			time.Sleep(time.Hour)
			if got := s.ledger.all(); len(got) != 2 {
				t.Errorf("%s: %d events, want no more", tt.cause, len(got))
			}
			s.failures(t, string(tt.cause)+" 240")
			s.stop()
		})
	}
}

// realFailure gives the error of a request that fails.
func realFailure(t *testing.T, address string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := (*authority)(nil).transport(t, startDNS(t))
	resp, err := transport.RoundTrip(request)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("%s answers", address)
	}
	return err
}

// TestOutageFromTheStart has a dependency that never was there.
func TestOutageFromTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.set(errAway)
		time.Sleep(time.Minute)
		got := s.ledger.all()
		if len(got) != 1 || !got[0].Outage.StartedAt.Equal(s.started) {
			t.Errorf("%+v, want one since the program started, %s", got, s.started)
		}
		s.stop()
	})
}

// TestLedgerIsAway during an outage: its records come later, in order, and what was said twice is said once.
func TestLedgerIsAway(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} { // the ledger comes back before the dependency does, or after it
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			time.Sleep(time.Minute)
			s.ledger.set(fault.Newf(fault.Transient, fault.QueueUnavailable, "away"))
			s.set(errAway)
			time.Sleep(10 * time.Minute)
			if back {
				s.set(nil)
				time.Sleep(time.Minute)
			}
			if len(s.ledger.all()) != 0 || s.ledger.tries < 100 {
				t.Fatalf("%d tries, want many", s.ledger.tries)
			}
			s.ledger.set(nil)
			time.Sleep(time.Minute)
			s.set(nil)
			time.Sleep(time.Minute)
			got := s.ledger.all()
			want := 2
			if back {
				want = 1 // the end says all
			}
			if len(got) != want || got[len(got)-1].Outage.EndedAt == nil || back == (got[0].Outage.EndedAt == nil) {
				t.Fatalf("back %t: %+v, want %d", back, got, want)
			}
			s.stop()
		})
	}
}

// TestLedgerRefuses has a record that will never be taken: it is in nobody's way.
func TestLedgerRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		time.Sleep(time.Minute)
		s.ledger.set(fault.Newf(fault.Permanent, fault.Rejected, "no"))
		s.set(errAway)
		time.Sleep(time.Minute)
		s.ledger.set(nil)
		s.set(nil)
		time.Sleep(time.Minute)
		if got := s.ledger.all(); len(got) != 1 || got[0].Outage.EndedAt == nil {
			t.Errorf("%+v, want the end", got)
		}
		if n := lost(t, s.registry); n != 1 {
			t.Errorf("%g lost, want 1", n)
		}
		s.stop()
	})
}

func lost(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "harborseal_outage_records_lost_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// TestTooManyRecords has so many outages, while the ledger is away, that they cannot be kept.
func TestTooManyRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.ledger.set(errAway)
		const outages = 300
		for range outages {
			s.set(errAway)
			time.Sleep(30 * time.Second)
			s.set(nil)
			time.Sleep(45 * time.Second)
		}
		s.ledger.set(nil)
		time.Sleep(time.Minute)
		got := s.ledger.all()
		if len(got) > 256 || len(got) < 250 {
			t.Errorf("%d records, want the newest that can be kept", len(got))
		}
		ended := 0
		for _, e := range got {
			if e.Outage.EndedAt != nil {
				ended++
			}
		}
		// Of one outage both records may have waited: its first was on its way when the second came.
		if n := int(lost(t, s.registry)) - (outages - ended); n < 0 || n > 1 {
			t.Errorf("%d lost beyond those of the %d others", n, outages-ended)
		}
		s.stop()
	})
}

// TestTwoOutages in a row are two, of different times.
func TestTwoOutages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		time.Sleep(time.Minute)
		for range 2 {
			s.set(errAway)
			time.Sleep(time.Minute)
			s.set(nil)
			time.Sleep(time.Minute)
		}
		got := s.ledger.all()
		if len(got) != 4 {
			t.Fatalf("%d events, want 4", len(got))
		}
		ids := map[string]bool{}
		for _, e := range got {
			ids[e.ID] = true
		}
		first, second := got[1].Outage, got[2].Outage
		if len(ids) != 4 || got[1].CorrelationID == got[2].CorrelationID || second.StartedAt.Before(*first.EndedAt) || second.StartedAt.Equal(first.StartedAt) {
			t.Errorf("%+v and %+v, want one after the other", first, second)
		}
		s.stop()
	})
}

// TestFlapping is one outage, and its end is the answer after which it did not fail again.
func TestFlapping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		time.Sleep(time.Minute)
		for range 20 {
			s.set(errAway)
			time.Sleep(15 * time.Second)
			s.set(nil)
			time.Sleep(15 * time.Second)
			if s.up(t) != 1 {
				t.Error("down, want the metric to follow each probe")
			}
		}
		end := time.Now().UTC()
		time.Sleep(time.Minute)
		got := s.ledger.all()
		if len(got) != 2 || got[1].Outage.EndedAt == nil || got[1].Outage.EndedAt.After(end) || end.Sub(*got[1].Outage.EndedAt) > 15*time.Second {
			t.Errorf("%+v, want one outage until %s", got, end)
		}
		s.stop()
	})
}

// TestStopDuringAnOutage ends what nobody else would end, if the ledger is there, and does not wait for it for long.
func TestStopDuringAnOutage(t *testing.T) {
	t.Parallel()
	for _, away := range []error{nil, errAway} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			time.Sleep(time.Minute)
			s.set(errAway)
			time.Sleep(time.Minute)
			s.ledger.set(away)
			stopped := time.Now().UTC()
			s.stop()
			if took := time.Since(stopped); took > 5*time.Second {
				t.Errorf("stopped after %s", took)
			}
			got := s.ledger.all()
			if away != nil {
				if len(got) != 1 {
					t.Errorf("%d events, want the first alone", len(got))
				}
				return
			}
			if len(got) != 2 || got[1].Outage.EndedAt == nil || !got[1].Outage.EndedAt.Equal(stopped) || !strings.Contains(got[1].Outage.Detail, "has stopped") {
				t.Errorf("%+v, want it ended with the program, at %s, and that said", got, stopped)
			}
		})
	}
}

// TestNothingToAskDuringAnOutage is the last project that is disabled because its rights are missing: the outage ends with it.
func TestNothingToAskDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.set(fault.Newf(fault.Permanent, fault.Denied, "no right to push"))
		time.Sleep(time.Minute)
		if s.up(t) != 0 || len(s.ledger.all()) != 1 {
			t.Fatalf("up %v, %d events; want 0, and an outage", s.up(t), len(s.ledger.all()))
		}
		s.set(dependency.ErrNothingToAsk)
		time.Sleep(time.Minute)
		got := s.ledger.all()
		if len(got) != 2 || got[1].Outage.EndedAt == nil || !strings.Contains(got[1].Outage.Detail, "nothing to ask for") {
			t.Errorf("%+v, want the outage and its end", got)
		}
		if s.up(t) != -1 || s.monitor.Status()[0].Up != nil {
			t.Errorf("up %v, status %+v; want nothing", s.up(t), s.monitor.Status()[0])
		}
		s.set(nil)
		time.Sleep(time.Minute)
		if s.up(t) != 1 || len(s.ledger.all()) != 2 {
			t.Errorf("up %v, %d events; want 1, and no more", s.up(t), len(s.ledger.all()))
		}
		s.stop()
	})
}

// TestStopWhileFlapping ends an outage with the program if the last probe failed, and with the last answer if it was answered.
func TestStopWhileFlapping(t *testing.T) {
	t.Parallel()
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			for range 4 {
				s.set(errAway)
				time.Sleep(15 * time.Second)
				s.set(nil)
				time.Sleep(15 * time.Second)
			}
			if !answered {
				s.set(errAway)
				time.Sleep(15 * time.Second)
			}
			time.Sleep(3 * time.Second)
			stopped := time.Now().UTC()
			s.stop()
			got := s.ledger.all()
			if len(got) != 2 || got[1].Outage.EndedAt == nil || got[1].Outage.EndedAt.Before(stopped) != answered {
				t.Errorf("answered %t: %+v, want one outage that ended before %s: %t", answered, got, stopped, answered)
			}
		})
	}
}

// TestStopDuringAProbe is no outage.
func TestStopDuringAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.hang()
		time.Sleep(5 * time.Second)
		s.stop()
		if got := s.ledger.all(); len(got) != 0 {
			t.Errorf("%+v, want nothing: the program was stopped, and nothing else", got)
		}
	})
}

// TestIDsAreThoseOfTheFact has the same outage told twice.
func TestIDsAreThoseOfTheFact(t *testing.T) {
	t.Parallel()
	run := func(change func(*dependency.Config)) (ids []string) {
		synctest.Test(t, func(t *testing.T) {
			l := &ledger{}
			m := monitor(t, func(c *dependency.Config) {
				c.Record = l.record
				change(c)
			}, dependency.Probe{Name: "queue", Call: func(context.Context) error { return errAway }})
			stop := start(t, m)
			time.Sleep(time.Minute)
			stop()
			for _, e := range l.all() {
				ids = append(ids, e.ID)
			}
		})
		return ids
	}
	same, again := run(func(*dependency.Config) {}), run(func(*dependency.Config) {})
	other := run(func(c *dependency.Config) { c.Instance = "two" })
	if len(same) != 2 || !slices.Equal(same, again) || slices.Contains(other, same[0]) || slices.Contains(other, same[1]) {
		t.Errorf("ids %v, again %v, of another instance %v; want the first two equal alone", same, again, other)
	}
}
