package enroll_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestEachSlotIsProposedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.projects["glob-a"] = artifact.Project{ID: 9, Name: "glob-a"}
		w.projects["plain"] = artifact.Project{ID: 10, Name: "plain"}
		clock := func(c *enroll.Config) { c.Now = time.Now }
		s, _ := w.receiver(t, clock)
		second, _ := w.receiver(t, clock)
		mustPut(t, s, all(), "")
		declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"glob-*"}, Spec: policy.Spec{Mode: policy.ModeObserve}, Backfill: policy.Backfill{Choice: "all"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Declare(t.Context(), declared); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		clear(w.ticks)
		w.mu.Unlock()
		done := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		for _, one := range []*enroll.Service{s, second} {
			go func() { done <- one.Run(ctx) }()
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		checked, outOfTurn := map[string]int{}, 0
		for tick, times := range w.ticks {
			if strings.Contains(tick, " -") {
				outOfTurn++ // whoever declared the policies, if the other one had proposed the slot already
				continue
			}
			checked[strings.Join(strings.Fields(tick)[:2], " ")]++
			if times != 2 {
				t.Errorf("tick %s was proposed %d times, want once by each receiver", tick, times)
			}
		}
		if len(checked) != 2 || checked["drift demo"] != 3 || checked["drift glob-a"] != 3 {
			t.Errorf("ticks = %v, want three for each enabled project", checked)
		}
		if outOfTurn != 0 && outOfTurn != 2 {
			t.Errorf("%d checks out of turn, want one for each enabled project, or none", outOfTurn)
		}
	})
}

// A rule that is new is not to wait for the next slot: here, another receiver has had the checks of this one already.
func TestNewRulesAreCheckedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		clock := func(c *enroll.Config) { c.Now = time.Now }
		before, _ := w.receiver(t, clock)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- before.Run(ctx) }()
		declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"demo"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"}}})
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, before, all(), "")
		synctest.Wait()
		after, _ := w.receiver(t, clock)
		if err := after.Declare(t.Context(), declared); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // within the slot
		w.mu.Lock()
		clear(w.ticks)
		for _, project := range []string{"demo"} {
			w.ticks[fmt.Sprintf("drift %s %d", project, time.Now().UnixNano()/int64(5*time.Minute))] = 1
		}
		w.mu.Unlock()
		go func() { done <- after.Run(ctx) }()
		synctest.Wait()
		w.mu.Lock()
		outOfTurn := 0
		for tick := range w.ticks {
			if strings.Contains(tick, " -") {
				outOfTurn++
			}
		}
		w.mu.Unlock()
		if outOfTurn != 1 {
			t.Errorf("%d checks out of turn, want one: ticks %v", outOfTurn, w.ticks)
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
}

func TestTicks(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	slot := w.now.UnixNano() / int64(5*time.Minute)
	w.webhooks["demo"] = nil
	if err := s.Tick(t.Context(), "demo", slot-2); err != nil || len(w.hooks()) != 0 {
		t.Errorf("a tick that has waited for too long: %v, webhooks %+v; want it skipped", err, w.hooks())
	}
	w.away = fault.Newf(fault.Transient, fault.Unreachable, "no route")
	if err := s.Tick(t.Context(), "demo", slot); err != nil {
		t.Errorf("a tick while Harbor is away: %v, want it left to the next one", err)
	}
	w.away = nil
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Tick(ended, "demo", slot); !errors.Is(err, context.Canceled) {
		t.Errorf("a tick that was cut short: %v, want another receiver to take it", err)
	}
	w.webhooks["demo"] = nil
	if err := s.Tick(t.Context(), "demo", slot-1); err != nil || len(w.hooks()) != 1 {
		t.Errorf("a tick: %v, webhooks %+v; want ours repaired", err, w.hooks())
	}
}

func TestPause(t *testing.T) {
	w := newWorld()
	s, b := w.receiver(t)
	mustPut(t, s, all(), "")
	if err := s.SetPause(t.Context(), alice, "demo", false, ""); err != nil {
		t.Errorf("resuming what was not paused: %v", err)
	}
	if err := s.SetPause(t.Context(), alice, "demo", true, ""); err == nil {
		t.Error("a pause without a reason was accepted")
	}
	for range 2 {
		if err := enroll.SetPause(t.Context(), w, alice, "", true, "incident 7"); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := b.Policy(t.Context(), "demo"); err != nil || p.Pause == nil || p.Pause.By != "alice" {
		t.Errorf("policy = %+v, %v; want signing paused", p, err)
	}
	if v, err := s.Get(t.Context(), "demo"); err != nil || v.Paused == nil || v.Paused.Reason != "incident 7" {
		t.Errorf("view = %+v, %v; want the pause in it", v.Paused, err)
	}
	for range 2 {
		if err := s.SetPause(t.Context(), alice, "", false, ""); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := b.Policy(t.Context(), "demo"); err != nil || p.Pause != nil {
		t.Errorf("policy = %+v, %v; want signing resumed", p, err)
	}
	w.wantEvents(t, "after each twice", "policy_changed", "paused", "resumed")
	if e := w.events[1]; e.Project != "" || e.Actor != "alice" || e.Detail != "incident 7" || e.Change.From != "192.0.2.1" {
		t.Errorf("event = %+v, want who, why and from where", e)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	for range 2 {
		w.advance(time.Second)
		if err := s.Sweep(t.Context(), alice, "demo"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.ticks) != 3 {
		t.Errorf("ticks = %v, want one for enabling and one for each call", w.ticks)
	}
}
