package queue_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

// slot enters and wants the slot at once.
func slot(t *testing.T, s *queue.Slots, lane artifact.Lane, project string) *queue.Claim {
	t.Helper()
	c, granted := s.Enter(lane, project)
	if !isClosed(granted) {
		t.Fatalf("%s, %s: no slot", lane, project)
	}
	return c
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A project at its cap and bulk at its limit, all slots waiting for a place, all places for a slot: a bulk request takes the
// slot of a live one of its own project, because nothing else would ever go on.
func TestSlotsLendAcrossLanesInsteadOfADeadlock(t *testing.T) {
	t.Parallel()
	limit := 0
	s := queue.NewSlotsAside(8, 2, func(project string) int { return map[string]int{"capped": limit}[project] })
	first, second := slot(t, s, artifact.Bulk, "capped"), slot(t, s, artifact.Bulk, "capped")
	live := slot(t, s, artifact.Live, "capped")
	s.Release(slot(t, s, artifact.Bulk, "plain")) // so that it is known not to step aside
	for _, c := range []*queue.Claim{first, second} {
		if !isClosed(s.AskForPlace(c)) {
			t.Fatal("no place")
		}
	}
	var plain []*queue.Claim
	for range 7 {
		plain = append(plain, slot(t, s, artifact.Bulk, "plain"))
	}
	limit = 1
	wantPlace := s.AskForPlace(live)
	for _, c := range plain {
		s.AskForPlace(c)
	}
	back := s.AskForSlot(first)
	if isClosed(back) || isClosed(wantPlace) {
		t.Fatal("a slot was given beyond cap or share while one was still aside")
	}
	s.AskForSlot(second)
	if !isClosed(back) || !isClosed(wantPlace) {
		t.Error("deadlock: the first that came back has no slot, or the live one has no place")
	}
}

// While all places are taken by requests that hang, those of projects that step aside are not begun, and the others find
// their slots.
func TestSlotsOfOthersStayFreeWhileAllPlacesAreTaken(t *testing.T) {
	t.Parallel()
	s := queue.NewSlotsAside(4, 3, nil)
	hanging := slot(t, s, artifact.Live, "logged")
	s.AskForPlace(hanging) // from now on it is known what the project does
	for range 2 {
		s.AskForPlace(slot(t, s, artifact.Live, "logged"))
	}
	if got := s.Aside(); got != 3 {
		t.Fatalf("%d are aside, want all 3 places taken", got)
	}
	_, fourth := s.Enter(artifact.Live, "logged")
	if isClosed(fourth) {
		t.Error("a request was begun that would wait for a place in a slot")
	}
	// Of a project that is not known, the first request finds out what it does.
	first := slot(t, s, artifact.Live, "plain")
	if _, granted := s.Enter(artifact.Live, "plain"); isClosed(granted) {
		t.Error("two requests were begun of a project of which nothing is known")
	}
	s.Release(first)
	for i := range 2 { // the fourth slot is for the one that comes back
		if _, granted := s.Enter(artifact.Live, "plain"); !isClosed(granted) {
			t.Fatalf("request %d of another project found no slot", i)
		}
	}
	if !isClosed(s.AskForSlot(hanging)) {
		t.Fatal("who comes back finds no slot")
	}
	if isClosed(fourth) {
		t.Error("a request was begun although the one that came back may step aside again")
	}
	s.Release(hanging)
	if !isClosed(fourth) {
		t.Error("a place is free, and the request that would step aside is not begun")
	}
}

// A project that no longer steps aside is not kept waiting for places for long.
func TestSlotsForgetThatAProjectStepsAside(t *testing.T) {
	t.Parallel()
	s := queue.NewSlotsAside(8, 1, nil)
	changed := slot(t, s, artifact.Live, "changed")
	s.AskForPlace(changed)
	s.AskForSlot(changed)
	s.Release(changed)
	for range 15 {
		s.Release(slot(t, s, artifact.Live, "changed"))
	}
	s.AskForPlace(slot(t, s, artifact.Live, "logged"))
	if _, granted := s.Enter(artifact.Live, "changed"); isClosed(granted) {
		t.Error("begun while the project is still reckoned with")
	}
	s = queue.NewSlotsAside(8, 1, nil)
	changed = slot(t, s, artifact.Live, "changed")
	s.AskForPlace(changed)
	s.AskForSlot(changed)
	s.Release(changed)
	for range 16 {
		s.Release(slot(t, s, artifact.Live, "changed"))
	}
	s.AskForPlace(slot(t, s, artifact.Live, "logged"))
	slot(t, s, artifact.Live, "changed")
	slot(t, s, artifact.Live, "changed")
}

func TestSlotsAsideGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlotsAside(2, 1, nil)
		first, second := slot(t, s, artifact.Live, "a"), slot(t, s, artifact.Live, "a")
		if err := s.StepAside(t.Context(), first); err != nil {
			t.Fatalf("StepAside = %v with a free place", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- s.StepAside(ctx, second) }()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("StepAside = %v, want that the context was cancelled", err)
		}
		if s.Held() != 1 || s.Aside() != 1 {
			t.Errorf("%d slots and %d places are held, want one each", s.Held(), s.Aside())
		}
		s.Release(second)
		<-s.AskForSlot(first)
		s.Release(first)
		if s.Held() != 0 || s.Aside() != 0 {
			t.Errorf("%d slots and %d places are held in the end, want none", s.Held(), s.Aside())
		}
	})
}
