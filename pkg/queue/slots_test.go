package queue_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

// turn is what a waiter got: its lane and its number within it.
type turn struct {
	lane   artifact.Lane
	number int
}

// queueUp starts n waiters of a lane, one after another, that report their turn and give the slot back when told to.
func queueUp(s *queue.Slots, lane artifact.Lane, n int, turns chan<- turn, leave <-chan struct{}) {
	for i := range n {
		go func() {
			release, err := s.Acquire(context.Background(), lane, "demo")
			if err != nil {
				return
			}
			turns <- turn{lane, i}
			<-leave
			release()
		}()
		synctest.Wait()
	}
}

func TestSlotsShareWhileBothLanesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlots(1, nil)
		holder, err := s.Acquire(t.Context(), artifact.Live, "demo")
		if err != nil {
			t.Fatal(err)
		}
		turns, leave := make(chan turn), make(chan struct{})
		queueUp(s, artifact.Bulk, 20, turns, leave)
		queueUp(s, artifact.Live, 20, turns, leave)
		holder()
		got := map[artifact.Lane][]int{}
		for i := range 40 {
			next := <-turns
			got[next.lane] = append(got[next.lane], next.number)
			// Live has 20 waiters: for 25 turns both lanes wait, and every fifth turn is bulk's.
			if want := (i + 1) / 5; i < 25 && len(got[artifact.Bulk]) != want {
				t.Errorf("after %d turns: %d for bulk, want %d", i+1, len(got[artifact.Bulk]), want)
			}
			leave <- struct{}{}
		}
		for lane, numbers := range got {
			for i, number := range numbers {
				if number != i {
					t.Errorf("%s: turn %d went to waiter %d: not first come, first served", lane, i, number)
				}
			}
		}
	})
}

func TestSlotsKeepSomeForLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlots(16, nil)
		turns, leave := make(chan turn, 100), make(chan struct{})
		queueUp(s, artifact.Bulk, 20, turns, leave)
		if got, want := len(turns), 14; got != want {
			t.Errorf("bulk holds %d of 16 slots, want %d", got, want)
		}
		queueUp(s, artifact.Live, 3, turns, leave)
		if got, want := len(turns), 16; got != want {
			t.Errorf("%d slots are held, want %d", got, want)
		}
		close(leave)
		synctest.Wait()
		if got, want := len(turns), 23; got != want {
			t.Errorf("%d waiters were served in the end, want %d", got, want)
		}
	})
}

func TestSlotsForgetWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlots(1, nil)
		release, err := s.Acquire(t.Context(), artifact.Live, "demo")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := s.Acquire(ctx, artifact.Live, "demo")
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; err == nil {
			t.Error("acquire of a cancelled context succeeded while the slot was held")
		}
		release()
		again, err := s.Acquire(t.Context(), artifact.Bulk, "demo")
		if err != nil {
			t.Fatalf("the slot is lost: %v", err)
		}
		again()
		if got := s.Held(); got != 0 {
			t.Errorf("%d slots are held, want none", got)
		}
	})
}

func TestSlotsNeverExceedTheirNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlots(4, nil)
		turns, leave := make(chan turn, 100), make(chan struct{})
		queueUp(s, artifact.Live, 10, turns, leave)
		if got := len(turns); got != 4 {
			t.Errorf("%d slots are held, want 4", got)
		}
		leave <- struct{}{}
		synctest.Wait()
		if got := len(turns); got != 5 {
			t.Errorf("%d slots were given after one came back, want 5", got)
		}
		close(leave)
	})
}

// queueUpOf is queueUp for a project.
func queueUpOf(s *queue.Slots, lane artifact.Lane, project string, n int, turns chan<- string, leave <-chan struct{}) {
	for range n {
		go func() {
			release, err := s.Acquire(context.Background(), lane, project)
			if err != nil {
				return
			}
			turns <- project
			<-leave
			release()
		}()
		synctest.Wait()
	}
}

func TestSlotsHaveCapsOfProjects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		capOf := func(project string) int { return map[string]int{"flood": 3, "small": 1}[project] }
		s := queue.NewSlots(16, capOf)
		turns, leaveFlood, leave := make(chan string, 2000), make(chan struct{}), make(chan struct{})
		queueUpOf(s, artifact.Live, "flood", 1000, turns, leaveFlood)
		if got := len(turns); got != 3 {
			t.Fatalf("the flood holds %d slots, want its cap, 3", got)
		}
		// The cap is one for both lanes.
		queueUpOf(s, artifact.Bulk, "flood", 10, turns, leaveFlood)
		queueUpOf(s, artifact.Bulk, "small", 2, turns, leave)
		queueUpOf(s, artifact.Live, "others", 5, turns, leave)
		got := map[string]int{}
		for len(turns) > 0 {
			got[<-turns]++
		}
		if got["flood"] != 3 || got["small"] != 1 || got["others"] != 5 {
			t.Errorf("got %v, want 3 of the flood, 1 of small and 5 of the others, which pass it", got)
		}
		leaveFlood <- struct{}{}
		synctest.Wait()
		if len(turns) != 1 || <-turns != "flood" {
			t.Error("a slot of the flood did not go to its next request")
		}
		close(leave)
		close(leaveFlood)
		synctest.Wait()
		if held := s.Held(); held != 0 || len(turns) != 1006+1 {
			t.Errorf("%d slots are held and %d were served in the end, want none and 1007", held, len(turns))
		}
	})
}

// While a flood waits at its cap, the lanes of the others share as ever.
func TestSlotsShareBesideAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := queue.NewSlots(2, func(project string) int { return map[string]int{"flood": 1}[project] })
		flood, leaveFlood := make(chan string, 1000), make(chan struct{})
		queueUpOf(s, artifact.Live, "flood", 200, flood, leaveFlood)
		queueUpOf(s, artifact.Bulk, "flood", 200, flood, leaveFlood)
		holder, err := s.Acquire(t.Context(), artifact.Live, "demo")
		if err != nil {
			t.Fatal(err)
		}
		turns, leave := make(chan turn), make(chan struct{})
		queueUp(s, artifact.Bulk, 20, turns, leave)
		queueUp(s, artifact.Live, 20, turns, leave)
		holder()
		got := map[artifact.Lane]int{}
		for i := range 40 {
			next := <-turns
			if next.number != got[next.lane] {
				t.Errorf("%s: turn %d went to waiter %d", next.lane, got[next.lane], next.number)
			}
			got[next.lane]++
			if want := (i + 1) / 5; i < 25 && got[artifact.Bulk] != want {
				t.Errorf("after %d turns: %d for bulk, want %d", i+1, got[artifact.Bulk], want)
			}
			leave <- struct{}{}
		}
		if len(flood) != 1 {
			t.Errorf("%d of the flood were served, want 1", len(flood))
		}
		close(leaveFlood)
	})
}

// A cap may change at any time: it counts for the next grant.
func TestSlotsFollowACap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limit := 2
		s := queue.NewSlots(8, func(string) int { return limit })
		turns, leave := make(chan string, 100), make(chan struct{})
		queueUpOf(s, artifact.Live, "demo", 20, turns, leave)
		for _, step := range []struct{ limit, want int }{{4, 5}, {1, 5}, {0, 11}} {
			limit = step.limit
			leave <- struct{}{}
			synctest.Wait()
			if got := len(turns); got != step.want {
				t.Errorf("with a cap of %d: %d were served, want %d", step.limit, got, step.want)
			}
		}
		close(leave)
	})
}
