package reconcile_test

import (
	"errors"
	"fmt"
	"slices"
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

func deferred(p *policy.Policy) { p.Terms.Transparency = policy.TransparencyDeferred }

// TestDebtsAreCollected: what is signed and owes a log entry is noted at each sweep, by a real check or a recalled one, until
// it is paid; what is not signed is asked for instead.
func TestDebtsAreCollected(t *testing.T) {
	w := newWorld()
	w.policy(deferred)
	owing := w.signedBy(t, activeKey, "owing")
	w.signedBy(t, activeKey, "paid")
	w.logged[w.by(activeKey, "paid")] = "rekor"
	unsigned := w.add(t, "unsigned", nil)
	registry := prometheus.NewRegistry()
	r := w.reconciler(t, func(c *reconcile.Config) { c.Registerer = registry })

	first, events := w.sweep(t, r)
	if first.Verified != 2 || first.Signed != 2 || first.Requested != 1 {
		t.Errorf("first sweep %+v, want two signed and one asked for", first)
	}
	got, noted := w.debts[owing]
	if len(w.debts) != 1 || !noted {
		t.Fatalf("debts %v, want one of %s", w.debts, owing)
	}
	if got.Lane != artifact.Debt || got.Origin != artifact.OriginSweep || !got.SignedBefore || got.PushedAt == nil || got.CorrelationID == "" {
		t.Errorf("debt %+v, want one of the sweep, for what was signed before, with its time of push", got)
	}
	if _, asked := w.waiting[unsigned]; !asked || len(w.waiting) != 1 {
		t.Errorf("asked for %v, want %s alone", w.waiting, unsigned)
	}
	for _, e := range events {
		owes := e.Ref == owing
		if e.Kind != artifact.Signed || slices.Equal(e.LogOwed, []artifact.Format{artifact.Legacy}) != owes || (e.AsOf > 0) != owes {
			t.Errorf("%s: %s owes %v as of %d, want that it owes: %t", e.Ref, e.Kind, e.LogOwed, e.AsOf, owes)
		}
	}
	second, _ := w.sweep(t, r)
	if second.Verified != 0 || second.Signed != 2 {
		t.Errorf("second sweep %+v, want what was checked to be recalled", second)
	}
	delete(w.debts, owing) // as if it was lost
	if w.sweep(t, r); len(w.debts) != 1 {
		t.Errorf("debts %v, want the lost one again", w.debts)
	}
	for outcome, want := range map[string]float64{"noted": 2, "waiting": 1} {
		if got := value(t, registry, "harborseal_sweep_log_debts_total", outcome); got != want {
			t.Errorf("%v debts %s, want %v", got, outcome, want)
		}
	}
	clear(w.debts)
	w.tell(t, artifact.Event{Kind: artifact.LogPaid, Ref: owing, Signatures: []artifact.Evidence{
		{Format: artifact.Legacy, KeyID: activeKey, Digest: w.by(activeKey, "owing"), Log: "rekor"},
	}})
	w.logged[w.by(activeKey, "owing")] = "rekor"
	if w.sweep(t, r); len(w.debts) != 0 {
		t.Errorf("debts %v, want none after all are paid", w.debts)
	}
}

// value gives a counter of a label.
func value(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestDebtsOfChildrenAndOfNobody: a child of an index is noted as one; where the policy asks for no entry, or for no signature,
// nothing is.
func TestDebtsOfChildrenAndOfNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*policy.Policy)
		want   int
	}{
		"deferred": {deferred, 2},
		"off":      {func(*policy.Policy) {}, 0},
		"observe":  {func(p *policy.Policy) { deferred(p); p.Mode = policy.ModeObserve }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.policy(func(p *policy.Policy) {
				p.Tags.Include = []string{"v*"}
				p.Untagged = policy.UntaggedExclude
				tt.change(p)
			})
			child := w.add(t, "child", func(l *artifact.Listed) { l.Tags, l.Signatures = nil, []string{w.by(activeKey, "child")} })
			index := w.add(t, "index", func(l *artifact.Listed) {
				l.Children, l.Signatures = []string{child.Digest()}, []string{w.by(activeKey, "index")}
			})
			w.sweep(t, w.reconciler(t))
			if len(w.debts) != tt.want {
				t.Fatalf("debts %v, want %d", w.debts, tt.want)
			}
			if got, found := w.debts[child]; found && (got.Parent != index.Digest() || got.Depth != 1 || got.PushedAt != nil) {
				t.Errorf("debt of the child %+v, want it to name its index", got)
			}
		})
	}
}

// TestDebtsThatCannotBeTold: one digest of which that cannot be told does not end a sweep, and does not make it unsigned; many
// in a row do, and so does a queue that takes no debt.
func TestDebtsThatCannotBeTold(t *testing.T) {
	w := newWorld()
	w.policy(deferred)
	for i := range 30 {
		w.signedBy(t, activeKey, fmt.Sprint("app", i))
	}
	r := w.reconciler(t)
	w.sweep(t, r) // so that the checks can be recalled
	clear(w.debts)
	asked := 0
	w.owesErr = func() error {
		if asked++; asked%2 == 0 {
			return nil
		}
		if asked%3 == 0 {
			panic("a bug")
		}
		return fault.New(fault.Transient, fault.Timeout, errors.New("cannot tell"))
	}
	if sum, events := w.sweep(t, r); sum.Signed != 30 || len(events) != 0 || len(w.waiting) != 0 {
		t.Errorf("sweep %+v with %v, asked for %d; want all signed and nothing else", sum, kinds(events), len(w.waiting))
	}
	w.owesErr = func() error { return fault.New(fault.Transient, fault.Timeout, errors.New("cannot tell")) }
	if err := r.Tick(t.Context(), reconcile.Full, "demo", reconcile.AdHoc(time.Now())); !fault.Is(err, fault.Transient) {
		t.Errorf("Tick = %v while nothing can be told, want that the sweep pauses", err)
	}
	w.owesErr = nil
	w.debtErr = fault.New(fault.Transient, fault.QueueFull, errors.New("full"))
	if err := r.Tick(t.Context(), reconcile.Full, "demo", reconcile.AdHoc(time.Now())); fault.Of(err).Reason != fault.QueueFull {
		t.Errorf("Tick = %v while no debt is taken, want that the sweep pauses", err)
	}
}

// TestTimestampsAreTheSameEvidence: the same time in another zone is no change that a sweep would write down.
func TestTimestampsAreTheSameEvidence(t *testing.T) {
	w := newWorld()
	ref := w.signedBy(t, activeKey, "app")
	w.change(ref, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by("stranger", "app")) })
	w.tags[ref] = w.by("stranger", "app") // so that it is checked each time
	w.stamped = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	r := w.reconciler(t)
	for _, tt := range []struct {
		name string
		at   time.Time
		want int
	}{
		{"the first", w.stamped, 1},
		{"the same", w.stamped, 0},
		{"in another zone", w.stamped.In(time.FixedZone("elsewhere", 3600)), 0},
		{"another one", w.stamped.Add(time.Hour), 1},
	} {
		w.stamped = tt.at
		if sum, events := w.sweep(t, r); sum.Verified != 1 || len(events) != tt.want {
			t.Errorf("%s: sweep %+v with %v, want a check and %d events", tt.name, sum, kinds(events), tt.want)
		}
	}
}

// TestCanariesAreNotSwept: neither kind of sweep looks at the images of a canary.
func TestCanariesAreNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.noFeed = true
		registry := prometheus.NewRegistry()
		r := w.reconciler(t, func(c *reconcile.Config) { c.Registerer = registry })
		w.minute(t, r)
		w.policy(func(p *policy.Policy) { p.Canary = true })
		w.push(t, "app", "v1", true)
		w.minute(t, r)
		if err := r.Tick(t.Context(), reconcile.Full, "demo", reconcile.AdHoc(time.Now())); err != nil {
			t.Errorf("Tick = %v", err)
		}
		if len(w.waiting) != 0 || len(w.events) != 0 || w.requests["page"] != 0 {
			t.Errorf("asked for %v, recorded %v, listed %d pages; want nothing", w.waiting, kinds(w.events), w.requests["page"])
		}
		if got := testutil.CollectAndCount(registry, "harborseal_sweeps_total"); got == 0 {
			t.Error("the ticks are not counted")
		}
		w.policy(func(p *policy.Policy) { p.Canary = false })
		w.minute(t, r)
		if len(w.waiting) != 1 {
			t.Errorf("asked for %v once it is no canary, want the push", w.waiting)
		}
	})
}
