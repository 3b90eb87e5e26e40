package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
)

// The same action means the same content in every run of a seed, and another number another one.
func TestContentFollowsFromSeed(t *testing.T) {
	digests := make(map[string]string)
	for _, tt := range []struct {
		name   string
		seed   uint64
		action plan.Action
	}{
		{"an image", 1, plan.Action{Project: "a", Repository: "app", Number: 1}},
		{"another number", 1, plan.Action{Project: "a", Repository: "app", Number: 2}},
		{"another seed", 2, plan.Action{Project: "a", Repository: "app", Number: 1}},
		{"another project", 1, plan.Action{Project: "b", Repository: "app", Number: 1}},
		{"an index", 1, plan.Action{Project: "a", Repository: "app", Number: 1, Index: true}},
	} {
		one, err := (&world{seed: tt.seed}).subject(tt.action)
		if err != nil {
			t.Fatal(err)
		}
		again, err := (&world{seed: tt.seed}).subject(tt.action)
		if err != nil {
			t.Fatal(err)
		}
		if one.Digest != again.Digest {
			t.Errorf("%s: got %s and %s, want one digest", tt.name, one.Digest, again.Digest)
		}
		if got, want := len(one.Children), map[bool]int{true: 2}[tt.action.Index]; got != want {
			t.Errorf("%s: got %d children, want %d", tt.name, got, want)
		}
		for _, p := range one.All() {
			if other, there := digests[p.Digest]; there {
				t.Errorf("%s has the digest of %s", tt.name, other)
			}
			digests[p.Digest] = tt.name
		}
	}
}

// What was written is what is judged, and what was not acknowledged does not count.
func TestJournal(t *testing.T) {
	j, err := newJournal(filepath.Join(t.TempDir(), journalFile))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	digest := "sha256:" + strings.Repeat("a", 64)
	j.write(checker.Step{Kind: checker.StepPush, Began: now, Ended: now, Accepted: true, Repository: "a/app", Digest: digest})
	j.write(checker.Step{Kind: checker.StepPush, Began: now, Ended: now, Repository: "a/app", Digest: digest})
	steps, err := j.steps()
	if err != nil || len(steps) != 2 || !steps[0].Accepted || steps[1].Accepted {
		t.Errorf("got %+v, %v, want two pushes, the first acknowledged", steps, err)
	}
	if got := j.count(checker.StepPush); got != 1 {
		t.Errorf("got %d acknowledged pushes, want 1", got)
	}
	j.write(checker.Step{Kind: "dance", Began: now})
	if _, err := j.steps(); err == nil {
		t.Error("got no error for a step of an unknown kind")
	}
	if err := j.close(); err != nil {
		t.Error(err)
	}
}

func TestFlagsThatAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-duration", "5s"}, {"more"}, {"-history", "nowhere"}, {"-seed", "x"}} {
		var out bytes.Buffer
		if err := run(context.Background(), args, &out, &out); err == nil {
			t.Errorf("got no error for %q", args)
		}
	}
}
