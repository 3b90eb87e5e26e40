package enroll_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
)

// scene is a call that may be cut short anywhere, and what was before.
type scene struct {
	name   string
	before func(t *testing.T, w *world, s *enroll.Service)
	call   func(ctx context.Context, s *enroll.Service) error
	// checked says that the drift check completes the call as well, once its first step has persisted.
	checked bool
}

// putAsAClientDoes reads the ETag first, as whoever repeats a call has to.
func putAsAClientDoes(ctx context.Context, s *enroll.Service, req enroll.PutRequest) error {
	v, err := s.Get(ctx, "demo")
	if err == nil {
		_, err = s.Put(ctx, alice, "demo", req, v.ETag)
	}
	return err
}

func scenes() []scene {
	enabled := func(t *testing.T, _ *world, s *enroll.Service) { t.Helper(); mustPut(t, s, all(), "") }
	spoiled := func(spoil func(*artifact.Webhook)) func(*testing.T, *world, *enroll.Service) {
		return func(t *testing.T, w *world, s *enroll.Service) {
			t.Helper()
			enabled(t, w, s)
			spoil(&w.webhooks["demo"][0])
		}
	}
	check := func(ctx context.Context, s *enroll.Service) error { return s.Check(ctx, "demo") }
	return []scene{
		{"enable", nil, func(ctx context.Context, s *enroll.Service) error { return putAsAClientDoes(ctx, s, all()) }, true},
		{
			"change", enabled, func(ctx context.Context, s *enroll.Service) error {
				return putAsAClientDoes(ctx, s, enroll.PutRequest{Spec: policy.Spec{Mode: policy.ModeObserve, MaxInFlight: 3}})
			}, true,
		},
		{"disable", enabled, func(ctx context.Context, s *enroll.Service) error {
			_, err := s.Delete(ctx, alice, "demo", "")
			return err
		}, true},
		{"block", enabled, func(ctx context.Context, s *enroll.Service) error {
			_, err := s.Block(ctx, alice, "demo", digestA, "CVE-2026-1")
			return err
		}, true},
		{"rotate", enabled, func(ctx context.Context, s *enroll.Service) error {
			_, err := s.Rotate(ctx, alice, "demo")
			return err
		}, false},
		{"repair of a disabled webhook", spoiled(func(w *artifact.Webhook) { w.Enabled = false }), check, false},
		{"repair of a removed webhook", func(t *testing.T, w *world, s *enroll.Service) {
			t.Helper()
			enabled(t, w, s)
			w.webhooks["demo"] = nil
		}, check, false},
		{"project made anew", func(t *testing.T, w *world, s *enroll.Service) {
			t.Helper()
			enabled(t, w, s)
			w.projects["demo"] = artifact.Project{ID: 8, Name: "demo"}
			w.webhooks["demo"] = nil
		}, check, false},
		{"enable a project made anew", func(t *testing.T, w *world, s *enroll.Service) {
			t.Helper()
			enabled(t, w, s)
			w.projects["demo"] = artifact.Project{ID: 8, Name: "demo"}
			w.webhooks["demo"] = nil
			mustCheck(t, s)
		}, func(ctx context.Context, s *enroll.Service) error { return putAsAClientDoes(ctx, s, all()) }, true},
		{"pause", enabled, func(ctx context.Context, s *enroll.Service) error {
			return s.SetPause(ctx, alice, "demo", true, "incident 7")
		}, false},
		{"declare", nil, func(ctx context.Context, s *enroll.Service) error {
			declared, err := policy.NewDeclared([]policy.Rule{{
				Projects: []string{"other"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"},
			}})
			if err != nil {
				return err
			}
			return s.Declare(ctx, declared)
		}, false},
	}
}

// prepare makes the world of a scene, and a receiver that has just started on it.
func (sc scene) prepare(t *testing.T) (*world, *enroll.Service) {
	t.Helper()
	w := newWorld()
	s, _ := w.receiver(t)
	if sc.before != nil {
		sc.before(t, w, s)
		w.advance(time.Minute)
	}
	w.steps = nil
	return w, s
}

func TestEveryStepMayFailAndBeRepeated(t *testing.T) {
	for _, sc := range scenes() {
		t.Run(sc.name, func(t *testing.T) {
			w, s := sc.prepare(t)
			if err := sc.call(t.Context(), s); err != nil {
				t.Fatalf("undisturbed: %v", err)
			}
			want, steps := w.end(t), slices.Clone(w.steps)
			if len(steps) < 2 {
				t.Fatalf("only the steps %q are taken: nothing is tested", steps)
			}
			for i, step := range steps {
				for _, persisted := range []bool{false, true} {
					name := fmt.Sprintf("%d %s, persisted %t", i, step, persisted)
					t.Run(name, func(t *testing.T) { sc.breakAndRepeat(t, breakage{i, persisted}, want) })
				}
			}
		})
	}
}

func (sc scene) breakAndRepeat(t *testing.T, b breakage, want string) {
	t.Helper()
	w, s := sc.prepare(t)
	w.broken = &b
	err := sc.call(t.Context(), s)
	if err != nil && !errors.Is(err, errBroken) {
		t.Fatalf("broken off: %v, want the breakage", err)
	}
	w.broken = nil
	// Another receiver, which remembers nothing, repeats the call.
	again, _ := w.receiver(t)
	if err := sc.call(t.Context(), again); err != nil {
		t.Fatalf("repeated: %v", err)
	}
	if got := w.end(t); got != want {
		t.Errorf("the end is\n%s\nwant\n%s", got, want)
	}
	if !sc.checked {
		return
	}
	// The drift check does it too, if the call got as far as its first step.
	w, s = sc.prepare(t)
	w.broken = &b
	first := len(w.entries["policy/demo"])
	_ = sc.call(t.Context(), s)
	w.broken = nil
	if len(w.entries["policy/demo"]) == first {
		return
	}
	again, _ = w.receiver(t)
	mustCheck(t, again)
	if got := w.end(t); got != want {
		t.Errorf("after the drift check the end is\n%s\nwant\n%s", got, want)
	}
}

// Another receiver's drift check may come between any two steps.
func TestAnotherReceiverBetweenAnyTwoSteps(t *testing.T) {
	for _, sc := range scenes() {
		if !sc.checked && sc.name != "rotate" {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			w, s := sc.prepare(t)
			if err := sc.call(t.Context(), s); err != nil {
				t.Fatalf("undisturbed: %v", err)
			}
			want, steps := w.end(t), len(w.steps)
			for i := range steps {
				w, s := sc.prepare(t)
				other, _ := w.receiver(t)
				taken := 0
				w.before = func(string) {
					if taken++; taken-1 == i {
						w.before = nil
						mustCheck(t, other)
					}
				}
				if err := sc.call(t.Context(), s); err != nil {
					t.Fatalf("with a check before step %d: %v", i, err)
				}
				if got := w.end(t); got != want {
					t.Errorf("with a check before step %d the end is\n%s\nwant\n%s", i, got, want)
				}
			}
		})
	}
}
