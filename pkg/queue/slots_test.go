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
			release, err := s.Acquire(context.Background(), lane)
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
		s := queue.NewSlots(1)
		holder, err := s.Acquire(t.Context(), artifact.Live)
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
		s := queue.NewSlots(16)
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
		s := queue.NewSlots(1)
		release, err := s.Acquire(t.Context(), artifact.Live)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := s.Acquire(ctx, artifact.Live)
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; err == nil {
			t.Error("acquire of a cancelled context succeeded while the slot was held")
		}
		release()
		again, err := s.Acquire(t.Context(), artifact.Bulk)
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
		s := queue.NewSlots(4)
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
