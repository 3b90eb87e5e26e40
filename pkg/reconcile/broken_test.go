package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
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
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{10, 11, 100} {
				w := newWorld()
				w.verifyErr = tt.err
				for i := range n {
					w.add(t, fmt.Sprint("broken", i), 1)
				}
				plain := w.add(t, "plain", 0)
				summary, err := newReconciler(t, w, "demo").Sweep(t.Context(), "demo", enabled, "s")
				ends := n > tt.most
				if errors.Is(err, cause) != ends {
					t.Errorf("%d of them: error %v, want one: %t", n, err, ends)
				}
				if _, asked := w.waiting[plain]; asked == ends {
					t.Errorf("%d of them: the one behind them was asked for: %t, want %t", n, asked, !ends)
				}
				if asked := min(n, tt.most); len(w.waiting) < asked || summary.Unverifiable < asked {
					t.Errorf("%d of them: %d were asked for, %d counted, want %d at least", n, len(w.waiting), summary.Unverifiable, asked)
				}
			}
		})
	}
}

// TestBrokenSignaturesDoNotHideAnOutage: each kind is counted for itself.
func TestBrokenSignaturesDoNotHideAnOutage(t *testing.T) {
	w := newWorld()
	for i := range 111 {
		w.add(t, fmt.Sprint("broken", i), 1)
	}
	asked := 0
	set, err := policy.NewSet(policy.SetConfig{Projects: []string{"demo"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := reconcile.New(reconcile.Config{
		Harbor: w, Queue: w, Policies: set, Patterns: []string{"demo"}, Logger: zerolog.Nop(),
		Signed: func(context.Context, policy.Policy, artifact.Listed) (bool, error) {
			if asked++; asked%10 == 0 {
				return false, fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
			}
			return false, fault.New(fault.Permanent, fault.TooLarge, errors.New("too many bundles"))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Sweep(t.Context(), "demo", enabled, "s"); fault.Of(err).Reason != fault.Unavailable || asked != 110 {
		t.Errorf("error %v after %d, want %s at the eleventh of an outage, the 110th", err, asked, fault.Unavailable)
	}
}
