package enroll_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

func TestBlocks(t *testing.T) {
	w := newWorld()
	s, b := w.receiver(t)
	if _, err := s.Block(t.Context(), alice, "demo", digestA, "bad"); !errors.Is(err, enroll.ErrNoPolicy) {
		t.Errorf("Block without a policy: %v, want ErrNoPolicy", err)
	}
	mustPut(t, s, all(), "")
	for _, wrong := range [][2]string{{"sha256:x", "why"}, {digestA, " "}, {digestA, "a\nb"}} {
		if _, err := s.Block(t.Context(), alice, "demo", wrong[0], wrong[1]); err == nil {
			t.Errorf("Block(%q) was accepted", wrong)
		}
	}
	for range 2 {
		w.advance(time.Minute)
		v, err := s.Block(t.Context(), alice, "demo", digestA, "CVE-2026-1")
		if err != nil || len(v.Blocks) != 1 || v.Blocks[0].By != "alice" {
			t.Fatalf("Block = %+v, %v", v.Blocks, err)
		}
	}
	if p, err := b.Policy(t.Context(), "demo"); err != nil || len(p.Blocks) != 1 {
		t.Errorf("blocks in the book = %+v, %v", p.Blocks, err)
	}
	for range 2 {
		if v, err := s.Unblock(t.Context(), alice, "demo", digestA); err != nil || len(v.Blocks) != 0 {
			t.Fatalf("Unblock = %+v, %v", v.Blocks, err)
		}
	}
	w.wantEvents(t, "after each twice", "policy_changed", "policy_changed", "policy_changed")
	if change := w.events[1].Change; strings.Contains(string(change.Before), digestA) || !strings.Contains(string(change.After), "CVE-2026-1") {
		t.Errorf("the block's event says %s -> %s", change.Before, change.After)
	}
	if len(w.ticks) != 3 {
		t.Errorf("ticks = %v, want a full sweep for each change", w.ticks)
	}
}

func TestLargestPolicyStaysBelowAMessage(t *testing.T) {
	w := newWorld()
	s, _ := w.receiver(t)
	mustPut(t, s, all(), "")
	reason := strings.Repeat("r", policy.MaxReason)
	full := policy.Document{Project: "demo", ProjectID: 7, Spec: all().Spec, Backfill: policy.Backfill{Choice: "all"}}
	for i := range policy.MaxBlocks - 1 {
		full.Blocks = append(full.Blocks, policy.Block{Digest: fmt.Sprintf("sha256:%064x", i), Reason: reason, By: "alice", At: w.now})
	}
	raw, err := full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	last := len(w.entries["policy/demo"]) - 1
	w.entries["policy/demo"][last].Value = raw
	if _, err := s.Block(t.Context(), alice, "demo", fmt.Sprintf("sha256:%064x", policy.MaxBlocks), reason); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Block(t.Context(), alice, "demo", digestA, "one too many"); err == nil {
		t.Error("one block too many was accepted")
	}
	document, err := w.GetPolicy(t.Context(), book.Policy, "demo")
	if err != nil || len(document.Value) > 1000<<10 {
		t.Errorf("the document has %d bytes, want less than the queue takes", len(document.Value))
	}
	for _, e := range w.events {
		if raw, err := artifact.EncodeEvent(e); err != nil || len(raw) > 16<<10 {
			t.Fatalf("an event has %d bytes (%v), want one block in it and not all", len(raw), err)
		}
	}
	w.wantEvents(t, "after the last block", "policy_changed", "policy_changed")
}
