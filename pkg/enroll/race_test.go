package enroll_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// TestACheckUndoesNoDelete disables the project while a drift check makes its webhook anew, and while a change does.
func TestACheckUndoesNoDelete(t *testing.T) {
	for name, call := range map[string]func(s *enroll.Service, etag string) error{
		"a check": func(s *enroll.Service, _ string) error { return s.Check(t.Context(), "demo") },
		"a change": func(s *enroll.Service, etag string) error {
			req := all()
			req.MaxInFlight = 3
			if _, err := s.Put(t.Context(), alice, "demo", req, etag); !errors.Is(err, policy.ErrConflict) {
				return fmt.Errorf("Put: %w, want ErrConflict", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			s, _ := w.receiver(t)
			etag := mustPut(t, s, all(), "").ETag
			mustCheck(t, s)
			w.webhooks["demo"] = nil
			done := false
			w.before = func(step string) {
				if step != "create webhook" || done {
					return
				}
				done = true
				if v, err := s.Delete(t.Context(), alice, "demo", ""); err != nil || v.Enabled {
					t.Errorf("Delete = %+v, %v", v, err)
				}
			}
			if err := call(s, etag); err != nil {
				t.Error(err)
			}
			if !done {
				t.Fatal("no webhook was made: the test is about nothing")
			}
			if hooks := w.hooks(); len(hooks) != 0 {
				t.Errorf("webhooks = %+v, want none: the project is disabled", hooks)
			}
			if state := w.stateOf(t); state.WebhookID != 0 || len(state.Problems) != 0 {
				t.Errorf("state = %+v, want no webhook and no problem", state)
			}
		})
	}
}

// TestARuleOnTagsAsksForTheRight: what a rule of the file says about tags needs a right of the signer, which the drift check
// asks for as the pre-checks do.
func TestARuleOnTagsAsksForTheRight(t *testing.T) {
	for name, spec := range map[string]policy.Spec{
		"tags":     {Mode: policy.ModeSign, Tags: policy.Globs{Include: []string{"v*"}}},
		"untagged": {Mode: policy.ModeSign, Untagged: policy.UntaggedExclude},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			var asked []preflight.Request
			signer := w.signer
			w.signer = func(r preflight.Request) ([]preflight.Check, error) {
				asked = append(asked, r)
				return signer(r)
			}
			s, _ := w.receiver(t)
			declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"demo"}, Spec: spec, Backfill: policy.Backfill{Choice: "all"}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Declare(t.Context(), declared); err != nil {
				t.Fatal(err)
			}
			mustCheck(t, s)
			if len(asked) != 1 || !asked[0].Tags {
				t.Errorf("the signers were asked %+v, want once, with tags", asked)
			}
		})
	}
}

// TestSweepsAreLimited asks for sweeps as fast as it can.
func TestSweepsAreLimited(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	clear(w.ticks)
	for range 6 {
		w.advance(time.Millisecond)
		if err := s.Sweep(t.Context(), alice, "demo"); err != nil {
			t.Fatalf("Sweep: %v", err)
		}
	}
	var often *enroll.TooOftenError
	if err := s.Sweep(t.Context(), alice, "demo"); !errors.As(err, &often) || often.RetryAfter <= 0 || often.RetryAfter > 10*time.Second {
		t.Errorf("the seventh sweep: %v, want a TooOftenError of at most 10 s", err)
	}
	if len(w.ticks) != 6 {
		t.Errorf("%d ticks, want 6", len(w.ticks))
	}
	// A block counts at once, however many there were: its sweep comes with the drift check.
	w.advance(time.Millisecond)
	v, err := s.Block(t.Context(), alice, "demo", digestA, "cve")
	if err != nil || len(v.Blocks) != 1 {
		t.Fatalf("Block = %+v, %v", v.Blocks, err)
	}
	if len(w.ticks) != 6 {
		t.Errorf("%d ticks after a block, want 6", len(w.ticks))
	}
	mustCheck(t, s)
	if len(w.ticks) != 7 || w.ticks[fmt.Sprintf("full demo %d", -v.ChangedAt.UnixNano())] != 1 {
		t.Errorf("ticks = %v, want the sweep of the block", w.ticks)
	}
	w.advance(10 * time.Second)
	if err := s.Sweep(t.Context(), alice, "demo"); err != nil {
		t.Errorf("after ten seconds: %v", err)
	}
}
