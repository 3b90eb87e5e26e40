package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func propose(t *testing.T, c *queue.Client, kind, key string, slot int64) (accepted bool) {
	t.Helper()
	accepted, err := c.Propose(t.Context(), kind, key, slot)
	if err != nil {
		t.Fatalf("Propose = %v", err)
	}
	return accepted
}

// consumeTicks runs ConsumeTicks until stop is called, at the latest at the end of the test.
func consumeTicks(t *testing.T, c *queue.Client, kind string, handle func(context.Context, queue.Tick) error) (stop func()) {
	t.Helper()
	return consumeTicksAtOnce(t, c, kind, 1, handle)
}

func consumeTicksAtOnce(
	t *testing.T, c *queue.Client, kind string, atOnce int, handle func(context.Context, queue.Tick) error,
) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := c.ConsumeTicks(ctx, kind, atOnce, handle); err != nil {
			t.Errorf("ConsumeTicks = %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-stopped
	}
	t.Cleanup(stop)
	return stop
}

func TestTicksAreAcceptedOnce(t *testing.T) {
	t.Parallel()
	cfg := queue.ServerConfig{StoreDir: t.TempDir()}
	server := queuetest.StartServer(t, cfg)
	client := queuetest.NewClient(t, server)
	other := queuetest.NewClient(t, server)
	if !propose(t, client, "sweep", "my.project", 7) {
		t.Fatal("the first proposal was refused")
	}
	if propose(t, other, "sweep", "my.project", 7) {
		t.Error("the second proposal was accepted")
	}
	for _, different := range []queue.Tick{{"sweep", "my.project", 8}, {"sweep", "my", 7}, {"sweep", "", 7}, {"full", "my.project", 7}} {
		if !propose(t, client, different.Kind, different.Key, different.Slot) {
			t.Errorf("%+v was refused", different)
		}
	}

	done := make(chan queue.Tick, 10)
	stop := consumeTicks(t, client, "full", func(_ context.Context, tick queue.Tick) error {
		done <- tick
		return nil
	})
	if got, want := receive(t, done, "the tick"), (queue.Tick{Kind: "full", Key: "my.project", Slot: 7}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	stop()
	if propose(t, client, "full", "my.project", 7) {
		t.Error("the proposal was accepted again after the work was done")
	}
	client.Close()
	other.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	restarted := queuetest.NewClient(t, queuetest.StartServer(t, cfg))
	if propose(t, restarted, "full", "my.project", 7) {
		t.Error("the proposal was accepted again after a restart")
	}
	consumeTicks(t, restarted, "full", func(_ context.Context, tick queue.Tick) error {
		done <- tick
		return nil
	})
	if !propose(t, restarted, "full", "my.project", 8) {
		t.Error("the next slot was refused after a restart")
	}
	if got := receive(t, done, "the next tick"); got.Slot != 8 {
		t.Errorf("got slot %d, want 8: the acknowledged one must not come again", got.Slot)
	}
}

func TestTicksAreWorkedOnOneAtATime(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	first, second := queuetest.NewClient(t, server), queuetest.NewClient(t, server)
	js := bare(t, server)
	working := make(chan int64, 10)
	finish := make(chan struct{})
	handle := func(ctx context.Context, tick queue.Tick) error {
		working <- tick.Slot
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for slot := range int64(3) {
		propose(t, first, "sweep", "demo", slot)
	}
	consumeTicks(t, first, "sweep", handle)
	consumeTicks(t, second, "sweep", handle)
	for slot := range int64(3) {
		if got := receive(t, working, "a tick"); got != slot {
			t.Errorf("got slot %d, want %d", got, slot)
		}
		// The other program asks for a tick and gets none.
		eventually(t, "the other program waits", func() bool {
			durable, err := js.Consumer(t.Context(), "SCAN", "scan-default-sweep")
			return err == nil && durable.CachedInfo().NumWaiting == 1
		})
		if len(working) > 0 {
			t.Error("two ticks at once")
		}
		finish <- struct{}{}
	}
}

// A program that stops gives its tick to another one at once.
func TestInterruptedTickGoesToAnother(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	first, second := queuetest.NewClient(t, server), queuetest.NewClient(t, server)
	propose(t, first, "sweep", "demo", 1)
	started := make(chan struct{}, 1)
	stop := consumeTicks(t, first, "sweep", func(ctx context.Context, _ queue.Tick) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	receive(t, started, "the tick")
	stop()
	done := make(chan queue.Tick, 1)
	consumeTicks(t, second, "sweep", func(_ context.Context, tick queue.Tick) error {
		done <- tick
		return nil
	})
	receive(t, done, "the tick at the other program")
}

func TestFailedTickComesAgain(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	propose(t, client, "sweep", "demo", 1)
	calls := make(chan queue.Tick, 10)
	failed := false
	consumeTicks(t, client, "sweep", func(_ context.Context, tick queue.Tick) error {
		calls <- tick
		if !failed {
			failed = true
			return fault.After(10*time.Millisecond, fault.Unavailable, errors.New("a fault of the day"))
		}
		return nil
	})
	first, second := receive(t, calls, "the first attempt"), receive(t, calls, "the second attempt")
	if first != second {
		t.Errorf("got %+v, then %+v", first, second)
	}
}

// A panic ends neither this program nor, with the same tick, the next one.
func TestTickThatPanicsIsDropped(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	var log logBuffer
	client := queuetest.Connect(t, queue.Config{Server: server, Logger: newLogger(&log)})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	propose(t, client, "sweep", "demo", 1)
	propose(t, client, "sweep", "demo", 2)
	calls := make(chan int64, 10)
	consumeTicks(t, client, "sweep", func(_ context.Context, tick queue.Tick) error {
		calls <- tick.Slot
		if tick.Slot == 1 {
			panic("one row of one listing")
		}
		return nil
	})
	if first, second := receive(t, calls, "the first tick"), receive(t, calls, "the second tick"); first != 1 || second != 2 {
		t.Errorf("got slots %d and %d, want 1 and 2", first, second)
	}
	js := bare(t, server)
	eventually(t, "both are acknowledged", func() bool {
		durable, err := js.Consumer(t.Context(), "SCAN", "scan-default-sweep")
		return err == nil && durable.CachedInfo().AckFloor.Consumer == 2
	})
	for _, want := range []string{"one row of one listing", "callTick", `"slot":1`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not hold %q: %s", want, log.String())
		}
	}
}

func TestTicksOfABadKind(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	for _, kind := range []string{"", "a.b", "*", ">", "a b", "A"} {
		_, err := client.Propose(t.Context(), kind, "demo", 1)
		wantFault(t, err, fault.Permanent, fault.Malformed)
		if err := client.ConsumeTicks(t.Context(), kind, 1, nil); err == nil {
			t.Errorf("ConsumeTicks(%q) has no error", kind)
		}
	}
	if err := client.ConsumeTicks(t.Context(), "sweep", 0, nil); err == nil {
		t.Error("ConsumeTicks of none at once has no error")
	}
}

// As many ticks of a kind are out as were asked for, over all programs, and each program works on one at a time.
func TestTicksAtOnce(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	js := bare(t, server)
	working, finish := make(chan queue.Tick, 10), make(chan struct{})
	handle := func(ctx context.Context, tick queue.Tick) error {
		working <- tick
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	atOnce := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d may be out at once", n), func() bool {
			durable, err := js.Consumer(t.Context(), "SCAN", "scan-default-full")
			return err == nil && durable.CachedInfo().Config.MaxAckPending == n
		})
	}
	first := queuetest.NewClient(t, server)
	for i := range int64(4) {
		propose(t, first, "full", fmt.Sprint("project-", i), 1)
	}
	// An older program has made the consumer for one at a time.
	stop := consumeTicks(t, first, "full", handle)
	atOnce(1)
	receive(t, working, "the first tick")
	stop()
	for range 3 {
		c := queuetest.NewClient(t, server)
		consumeTicksAtOnce(t, c, "full", 2, handle)
	}
	atOnce(2)
	receive(t, working, "one tick")
	receive(t, working, "another tick")
	eventually(t, "the third program waits", func() bool {
		durable, err := js.Consumer(t.Context(), "SCAN", "scan-default-full")
		return err == nil && durable.CachedInfo().NumAckPending == 2 && durable.CachedInfo().NumWaiting == 1
	})
	if len(working) > 0 {
		t.Error("three ticks at once")
	}
	finish <- struct{}{}
	receive(t, working, "the third tick")
	close(finish)
	receive(t, working, "the fourth tick")
}

// An ad hoc tick has a slot of its own below zero, which no interval has.
func TestTickOfANegativeSlot(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	slot := -time.Unix(1_763_814_000, 123_456_789).UnixNano()
	propose(t, client, "full", "my.project", slot)
	done := make(chan queue.Tick, 1)
	consumeTicks(t, client, "full", func(_ context.Context, tick queue.Tick) error {
		done <- tick
		return nil
	})
	if got, want := receive(t, done, "the tick"), (queue.Tick{Kind: "full", Key: "my.project", Slot: slot}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
