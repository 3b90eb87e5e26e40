package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestBrokenSignaturesDoNotHideTheRest: what is wrong with one digest tells nothing about the others, however many there
// are. What may be an outage, or a refused account, ends the sweep before it fills the queue.
func TestBrokenSignaturesDoNotHideTheRest(t *testing.T) {
	cause := errors.New("cannot tell")
	permanent := func(reason fault.Reason) error { return fault.New(fault.Permanent, reason, cause) }
	for _, tt := range []struct {
		name string
		err  error
		most int // how many of them a sweep bears
	}{
		{"unknown", cause, 10},
		{"no answer", fault.New(fault.Transient, fault.Timeout, cause), 10},
		{"right missing", permanent(fault.Denied), 10},
		{"refused account", permanent(fault.Unauthorized), 10},
		{"too large", permanent(fault.TooLarge), 1000},
		{"malformed", fmt.Errorf("verifying: %w", permanent(fault.Malformed)), 1000},
		{"a panic", nil, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{10, 11, 100} {
				w := newWorld()
				w.verifyErr = func(artifact.Ref) error {
					if tt.err == nil {
						panic("broken")
					}
					return tt.err
				}
				for i := range n {
					w.signedBy(t, "stranger", fmt.Sprint("broken", i))
				}
				plain := w.add(t, "plain", nil)
				_ = w.reconciler(t).Tick(t.Context(), "full", "demo", -1)
				_, asked := w.waiting[plain]
				if ends := n > tt.most; asked == ends {
					t.Errorf("%d of them: the one behind them was asked for: %t, want %t", n, asked, !ends)
				}
				if got, want := len(w.waiting), min(n, tt.most); got < want {
					t.Errorf("%d of them: %d were asked for, want %d at least", n, got, want)
				}
			}
		})
	}
}

// TestAlertsHoldWhereNothingCanBeTold: a signature that may have vanished is not made anew by accident.
func TestAlertsHoldWhereNothingCanBeTold(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) { p.Restore = policy.RestoreAlert })
	ref := w.signedBy(t, "stranger", "app")
	w.tellSigned(t, ref, activeKey, "app")
	w.verifyErr = func(artifact.Ref) error { return errors.New("no answer") }
	if _, events := w.sweep(t, w.reconciler(t)); len(events) != 0 || len(w.waiting) != 0 {
		t.Errorf("events %v and %d requests, want none before it is known", kinds(events), len(w.waiting))
	}
}

func TestWithoutTheLedgerASweepPauses(t *testing.T) {
	w := newWorld()
	for i := range 8 {
		w.add(t, fmt.Sprint("m", i), nil)
	}
	r := w.reconciler(t)
	asked := 0
	w.onKnown = func() {
		if asked++; asked == 3 {
			w.memoryErr = fault.New(fault.Transient, fault.QueueUnavailable, errors.New("nobody answers"))
		}
	}
	err := r.Tick(t.Context(), "full", "demo", -5)
	if f := fault.Of(err); f.Kind != fault.Transient || f.RetryAfter <= 0 || len(w.waiting) != 4 || len(w.events) != 0 {
		t.Fatalf("Tick: %v after %d requests and %d events, want a delay after two pages", err, len(w.waiting), len(w.events))
	}
	w.memoryErr = nil
	clear(w.requests)
	sum, _ := w.tick(t, r, -5)
	if sum.Population != 8 || sum.Requested != 8 || sum.Digest != digestOf(w) || w.requests["page"] != 2 {
		t.Errorf("the same worker: %+v after %d pages, want all of it from the third page on", sum, w.requests["page"])
	}
}

func TestOneProjectDoesNotHoldUpTheOthers(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int // how often the tick comes back
	}{
		{"no right", fault.New(fault.Permanent, fault.Denied, errors.New("403")), 0},
		{"broken listing", fault.New(fault.Transient, fault.Unavailable, errors.New("502")), 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.add(t, "m", nil)
			w.listErr["demo"] = tt.err
			r := w.reconciler(t)
			back := 0
			for r.Tick(t.Context(), "full", "demo", -5) != nil && back < 100 {
				back++
			}
			if back != tt.want {
				t.Errorf("the tick came back %d times, want %d", back, tt.want)
			}
		})
	}
}

func TestAFullQueuePauses(t *testing.T) {
	w := newWorld()
	blocked := w.add(t, "blocked", nil)
	w.policy(func(p *policy.Policy) { p.Blocks = []policy.Block{{Digest: blocked.Digest(), By: "a", Reason: "b"}} })
	w.add(t, "plain", nil)
	r := w.reconciler(t)
	for range 20 {
		w.onPage = func(int) error {
			w.queueErr = fault.New(fault.Transient, fault.QueueFull, errors.New("full"))
			return nil
		}
		if err := r.Tick(t.Context(), "full", "demo", -5); fault.Of(err).Reason != fault.QueueFull {
			t.Fatalf("Tick error %v, want %s so that the tick is repeated", err, fault.QueueFull)
		}
		w.queueErr = nil
	}
	w.onPage = nil
	if sum, _ := w.tick(t, r, -5); sum.Requested != 1 || sum.Blocked != 1 {
		t.Errorf("%+v, want one asked for and one blocked when there is room", sum)
	}
}

func TestAStoppedSweepIsGivenBackAtOnce(t *testing.T) {
	w := newWorld()
	for i := range 6 {
		w.add(t, fmt.Sprint("m", i), nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.onPage = func(number int) error {
		if number == 3 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	if err := w.reconciler(t).Tick(ctx, "full", "demo", -5); !errors.Is(err, context.Canceled) {
		t.Fatalf("Tick: %v, want the context's error", err)
	}
	w.onPage = nil
	clear(w.requests)
	// Another worker need not wait for a sign of life.
	sum, _ := w.tick(t, w.reconciler(t), -5)
	if sum.Population != 6 || sum.Requested != 6 || sum.Digest != "" || w.requests["page"] != 1 {
		t.Errorf("%+v after %d pages, want all of it, no digest, the last page alone", sum, w.requests["page"])
	}
}
