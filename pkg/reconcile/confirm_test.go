package reconcile_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// told puts an entry into the feed, of now.
func (w *world) told(ref artifact.Ref, tag, by string) {
	w.feed = append(w.feed, artifact.Pushed{Ref: ref, Tag: tag, By: by, At: time.Now()})
}

// confirmed gives the push_confirmed events, each as digest's first characters, tag and pusher.
func (w *world) confirmed() []artifact.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []artifact.Event
	for _, e := range w.events {
		if e.Kind == artifact.Confirmed {
			found = append(found, e)
		}
	}
	return found
}

func pushesOf(events []artifact.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.Ref.String()+" "+e.Tag+" "+e.Pusher)
	}
	slices.Sort(all)
	return all
}

func TestPushesAreConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.projects["off"] = 8
		w.policy(func(p *policy.Policy) { p.Tags.Include = []string{"v*"}; p.From = time.Now().Add(-time.Hour) })
		r := w.reconciler(t)
		w.minute(t, r)
		first, second := w.push(t, "first", "v1", false), w.push(t, "second", "v1", false)
		w.told(first, "v1", "alice")
		time.Sleep(time.Second)
		w.told(second, "v1", "mallory") // the tag moves
		w.told(first, "v2", "robot$ci")
		w.told(w.push(t, "signature", "", false), "", "robot$signer")
		w.told(first, accessoryTag(), "robot$signer")
		w.told(w.push(t, "out of scope", "dev", false), "dev", "alice")
		w.told(w.push(t, "by nobody", "v1", false), "v1", "")
		elsewhere, err := artifact.NewRef("off/app", artifact.DigestOf([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		w.told(elsewhere, "v1", "alice")
		clear(w.requests)
		w.minute(t, r)
		want := []string{first.String() + " v1 alice", first.String() + " v2 robot$ci", second.String() + " v1 mallory"}
		slices.Sort(want)
		if got := pushesOf(w.confirmed()); !slices.Equal(got, want) {
			t.Errorf("confirmed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if w.requests["feed"] != 1 || w.requests["artifact"] != 0 {
			t.Errorf("Harbor was asked %v, want nothing but the feed, once", w.requests)
		}
		for _, e := range w.confirmed() {
			if e.Origin != artifact.OriginSweep || e.Actor != e.Pusher || e.PushedAt == nil || e.PushedAt.After(e.Time) || e.CorrelationID == "" {
				t.Errorf("event %+v: want one of a sweep, by who pushed, with the time of the push", e)
			}
		}
	})
}

// TestAConfirmationIsOne: whoever reads the entry again, however much later, repeats no event, also where the ledger has forgotten
// the ids.
func TestAConfirmationIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.forgetsIDs = true
		w.minute(t, w.reconciler(t))
		w.told(w.push(t, "app", "v1", false), "v1", "alice")
		w.minute(t, w.reconciler(t))
		if n := len(w.confirmed()); n != 1 {
			t.Fatalf("%d confirmations, want 1", n)
		}
		time.Sleep(time.Hour) // no signer ran: the next one looks from the watermark on, and a bit before
		for range 3 {
			w.minute(t, w.reconciler(t))
		}
		if n := len(w.confirmed()); n != 1 {
			t.Errorf("%d confirmations of one push, want 1", n)
		}
	})
}

func TestWhatCouldNotBeConfirmedIsTriedAgain(t *testing.T) {
	broken := fault.New(fault.Transient, fault.QueueUnavailable, errors.New("full"))
	for _, tt := range []struct {
		name       string
		fail, mend func(w *world)
	}{
		{"the ledger takes nothing", func(w *world) { w.recordErr = broken }, func(w *world) { w.recordErr = nil }},
		{"there is no feed", func(w *world) { w.noFeed = true }, func(w *world) { w.noFeed = false }},
		{"the feed cannot be read", func(w *world) { w.feedErr = broken }, func(w *world) { w.feedErr = nil }},
		{"the policy cannot be read", func(w *world) { w.policyErr["demo"] = broken }, func(w *world) { delete(w.policyErr, "demo") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.minute(t, w.reconciler(t))
				tt.fail(w)
				ref := w.push(t, "app", "v1", false)
				w.told(ref, "v1", "alice")
				for range 12 {
					w.minute(t, w.reconciler(t))
				}
				if n := len(w.confirmed()); n != 0 {
					t.Fatalf("%d confirmations already: the test tests nothing", n)
				}
				tt.mend(w)
				for range 3 {
					w.minute(t, w.reconciler(t))
				}
				if n := len(w.confirmed()); n != 1 {
					t.Errorf("%d confirmations, want 1", n)
				}
				if _, asked := w.waiting[ref]; !asked {
					t.Error("the push was not asked for")
				}
			})
		})
	}
}

// TestConfirmationsDoNotHinder: a ledger that takes no confirmation, or takes its time, does not keep a push from being found.
func TestConfirmationsDoNotHinder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		registry := prometheus.NewPedanticRegistry()
		r := w.reconciler(t, func(c *reconcile.Config) { c.Registerer = registry })
		w.minute(t, r)
		before := w.watermark(t)
		w.recordErr = fault.New(fault.Transient, fault.QueueUnavailable, errors.New("full"))
		for i := range 100 {
			w.told(w.push(t, fmt.Sprint("app", i), "v1", false), "v1", "alice")
		}
		w.minute(t, r)
		if len(w.waiting) != 100 || !w.watermark(t).After(before) {
			t.Errorf("%d of 100 are asked for, the watermark is %s after %s", len(w.waiting), w.watermark(t), before)
		}
		w.recordErr, w.recordTakes = nil, 4*time.Second // 8 at a time, half a minute for all
		began := time.Now()
		w.minute(t, r)
		if took := time.Since(began) - time.Minute; took > 40*time.Second {
			t.Errorf("the sweep took %s, want no more than half of the interval and one event", took)
		}
		if n := len(w.confirmed()); n == 0 || n == 100 {
			t.Errorf("%d of 100 are confirmed, want some", n)
		}
		w.recordTakes = 0
		w.minute(t, r)
		if n := len(w.confirmed()); n != 100 {
			t.Errorf("%d of 100 are confirmed in the end", n)
		}
		if n := counted(t, registry, "recorded"); n != 100 {
			t.Errorf("the metric has %v recorded, want 100", n)
		}
	})
}

func counted(t *testing.T, registry *prometheus.Registry, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(registry, "harborseal_push_confirmations_total"); err != nil || n == 0 {
		t.Fatalf("the metric is not there: %v", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "harborseal_push_confirmations_total" && m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
