package queue_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// door is a gate that tests open and shut.
type door struct {
	mu   sync.Mutex
	open chan struct{} // closed while it is open; guarded by mu
}

func newDoor() *door {
	d := &door{open: make(chan struct{})}
	close(d.open)
	return d
}

func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = make(chan struct{})
}

func (d *door) reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.open)
}

func (d *door) wait(ctx context.Context) error {
	d.mu.Lock()
	open := d.open
	d.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A gate that shuts stops the work at once: not one more request comes to a handler, what had been asked for before is given
// back, and counts as no try. When it opens, the work goes on at once.
func TestGate(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate := newDoor()
	k := consume(t, client, queue.ConsumeConfig{Gate: gate.wait})
	enqueue(t, client, request(ref(t, "demo/app", 0), artifact.Live))
	first := k.next(t)
	if err := first.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(first.finish)
	gate.shut()
	for i := 1; i <= 5; i++ {
		enqueue(t, client, request(ref(t, "demo/app", i), artifact.Live))
	}
	// One pull was under way: its request comes, and goes back.
	eventually(t, "what had been asked for is given back", func() bool {
		return value(t, registry, "harborseal_queue_held_total") == 1
	})
	select {
	case d := <-k.deliveries:
		t.Fatalf("%s came to a handler while the gate was shut", d.Request().Ref)
	case <-time.After(300 * time.Millisecond):
	}
	if got := value(t, registry, "harborseal_queue_held_total"); got != 1 {
		t.Errorf("%v requests came while the gate was shut, want 1", got)
	}
	gate.reopen()
	opened := time.Now()
	for range 5 {
		d := k.next(t)
		if d.Tries() != 1 {
			t.Errorf("%s: try %d, attempt %d; want try 1", d.Request().Ref, d.Tries(), d.Attempts())
		}
	}
	if waited := time.Since(opened); waited > 2*time.Second {
		t.Errorf("the work went on after %s, want at once", waited)
	}
}

// A gate that fails is asked again, and an end of the program is not held up by one that is shut.
func TestGateThatFailsOrNeverOpens(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	var asked atomic.Int64
	k := consume(t, client, queue.ConsumeConfig{Gate: func(context.Context) error {
		if asked.Add(1) <= 3*2*queue.Partitions {
			return errors.New("cannot tell")
		}
		return nil
	}})
	k.next(t)
	gate := newDoor()
	gate.shut()
	k = consume(t, client, queue.ConsumeConfig{Gate: gate.wait})
	k.stop()
	receive(t, k.stopped, "the end of Consume")
}

// A request that was pulled, and waited for its slot when the gate shut, goes back instead of failing.
func TestGateAppliesToThoseThatWaitForASlot(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: queuetest.NewServer(t), Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate := newDoor()
	k := consume(t, client, queue.ConsumeConfig{Slots: 1, Gate: gate.wait})
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	first := k.next(t)
	enqueue(t, client, request(ref(t, "demo/app", 2), artifact.Live))
	eventually(t, "the second waits for the slot", func() bool {
		return value(t, registry, "harborseal_queue_waiting_for_slot") == 1
	})
	gate.shut()
	if err := first.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(first.finish)
	select {
	case d := <-k.deliveries:
		t.Fatalf("%s came to a handler while the gate was shut", d.Request().Ref)
	case <-time.After(300 * time.Millisecond):
	}
	gate.reopen()
	if second := k.next(t); second.Tries() != 1 {
		t.Errorf("try %d, want 1", second.Tries())
	}
}

// What is held never comes to a handler, holds no slot, comes back within its delay, and has not failed.
func TestHold(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	const delay = 400 * time.Millisecond
	var down atomic.Bool
	var mu sync.Mutex
	var asked []time.Time
	down.Store(true)
	k := consume(t, client, queue.ConsumeConfig{Slots: 1, Hold: func(r artifact.Request) (time.Duration, bool) {
		if r.Ref.Project() != "logged" {
			return 0, false
		}
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, time.Now())
		return delay, down.Load()
	}})
	enqueue(t, client, request(ref(t, "logged/app", 1), artifact.Live))
	times := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(asked)
	}
	eventually(t, "the request has come back three times", func() bool { return times() >= 4 })
	enqueue(t, client, request(ref(t, "plain/app", 2), artifact.Live))
	plain := k.next(t)
	if plain.Request().Ref.Project() != "plain" {
		t.Fatalf("%s came to a handler while it was held", plain.Request().Ref)
	}
	if err := plain.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(plain.finish)
	down.Store(false)
	d := k.next(t)
	if d.Attempts() < 4 || d.Tries() != 1 {
		t.Errorf("attempt %d, try %d; want at least attempt 4, and try 1", d.Attempts(), d.Tries())
	}
	mu.Lock()
	for i := 1; i < len(asked); i++ {
		if waited := asked[i].Sub(asked[i-1]); waited < delay/2 || waited > delay+time.Second {
			t.Errorf("it came back after %s, want between %s and %s", waited, delay/2, delay)
		}
	}
	mu.Unlock()
	// From here on it fails: that counts.
	if err := d.Retry(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	close(d.finish)
	if again := k.next(t); again.Tries() != 2 {
		t.Errorf("try %d after a failure, want 2", again.Tries())
	}
}

// A request that was never held has as many tries as attempts.
func TestTriesWithoutHold(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	k := consume(t, client, queue.ConsumeConfig{})
	for want := uint64(1); want <= 3; want++ {
		d := k.next(t)
		if d.Tries() != want || d.Attempts() != want {
			t.Errorf("try %d, attempt %d; want %d", d.Tries(), d.Attempts(), want)
		}
		if err := d.Retry(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		close(d.finish)
	}
}

// Very many requests that are held at once come back one after another; a few are not delayed by it.
func TestPace(t *testing.T) {
	t.Parallel()
	p := queue.NewPace(100)
	now := time.Unix(1_700_000_000, 0)
	for i := range 1000 {
		if got, want := p.Next(now), time.Duration(i)*10*time.Millisecond; (got - want).Abs() > time.Millisecond {
			t.Fatalf("the %d-th comes after %s, want %s", i, got, want)
		}
	}
	if got := p.Next(now.Add(4 * time.Second)); (got - 6*time.Second).Abs() > time.Millisecond {
		t.Errorf("4 s later: %s, want 6s", got)
	}
	if got := p.Next(now.Add(time.Minute)); got != 0 {
		t.Errorf("a minute later: %s, want none", got)
	}
	if got := p.Next(now); got > 20*time.Millisecond {
		t.Errorf("a clock that was set back gives %s", got)
	}
}
