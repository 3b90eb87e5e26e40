package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// asider hands deliveries to a test that have stepped aside.
type asider struct {
	aside   chan *queue.Delivery
	goOn    chan struct{} // closed to let fn return
	back    chan error
	release chan struct{} // closed to let the handlers return
	letGo   func()        // closes goOn, once
	letEnd  func()        // closes release, once
}

func newAsider() *asider {
	a := &asider{
		aside: make(chan *queue.Delivery, 100), goOn: make(chan struct{}), back: make(chan error, 100), release: make(chan struct{}),
	}
	a.letGo = sync.OnceFunc(func() { close(a.goOn) })
	a.letEnd = sync.OnceFunc(func() { close(a.release) })
	return a
}

// end lets everything return, so that a test that fails does not hang.
func (a *asider) end() {
	a.letGo()
	a.letEnd()
}

// handle steps aside with each request, and ends it when it is back.
func (a *asider) handle(ctx context.Context, d *queue.Delivery) {
	err := d.Aside(ctx, func(context.Context) error {
		a.aside <- d
		<-a.goOn
		return nil
	})
	if err == nil {
		err = d.Done(context.WithoutCancel(ctx))
	}
	a.back <- err
	<-a.release
}

// While a request is aside, another one has its slot, and the server gives it to nobody else for longer than the ack wait.
func TestAsideHoldsNoSlotAndKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, AckWait: 500 * time.Millisecond, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := newAsider()
	consume(t, client, queue.ConsumeConfig{Slots: 1, Handle: a.handle})
	defer a.end()
	for i := range 3 {
		enqueue(t, client, request(ref(t, "demo/app", i), artifact.Live))
	}
	for range 3 {
		receive(t, a.aside, "a request that stepped aside")
	}
	for name, want := range map[string]float64{"harborseal_queue_in_flight": 0, "harborseal_queue_aside": 3} {
		if got := value(t, registry, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	select {
	case d := <-a.aside:
		t.Fatalf("%s was handed out again, attempt %d", d.Request().Ref, d.Attempts())
	case <-time.After(1500 * time.Millisecond):
	}
	a.letGo()
	if err := receive(t, a.back, "the first that has its slot again"); err != nil {
		t.Fatalf("Aside and Done = %v", err)
	}
	for name, want := range map[string]float64{"harborseal_queue_in_flight": 1, "harborseal_queue_aside": 2} {
		if got := value(t, registry, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
}

// When pulling has ended, who is aside gets its slot again and can finish: Consume waits for it.
func TestAsideOutlivesTheEndOfPulling(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	a := newAsider()
	a.letEnd()
	k := consume(t, client, queue.ConsumeConfig{Slots: 1, Handle: a.handle})
	defer a.end()
	for i := range 4 {
		enqueue(t, client, request(ref(t, "demo/app", i), artifact.Live))
		receive(t, a.aside, "a request that stepped aside")
	}
	k.stop()
	a.letGo()
	for range 4 {
		if err := receive(t, a.back, "a request that is back"); err != nil {
			t.Errorf("Aside and Done = %v", err)
		}
	}
	receive(t, k.stopped, "the end of Consume")
	if got := waiting(t, bare(t, server), "SIGN"); got != 0 {
		t.Errorf("%d requests are left, want none", got)
	}
}

// A drain that takes too long cancels those that are aside and those that wait for a place; their requests go back.
func TestAsideEndsWithTheDrain(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	errs := make(chan error, 10)
	aside := make(chan struct{}, 10)
	k := consume(t, client, queue.ConsumeConfig{Slots: 2, Aside: 1, Drain: 50 * time.Millisecond, Handle: func(ctx context.Context, d *queue.Delivery) {
		aside <- struct{}{}
		errs <- d.Aside(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("waiting outside: %w", ctx.Err())
		})
	}})
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	enqueue(t, client, request(ref(t, "other/app", 2), artifact.Live))
	receive(t, aside, "the first")
	receive(t, aside, "the second, which finds no place")
	k.stop()
	receive(t, k.stopped, "the end of Consume")
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("Aside = %v, want that it was cancelled", err)
		}
	}
	again := consume(t, client, queue.ConsumeConfig{})
	again.next(t)
	again.next(t)
}

// The error of fn comes back, and what it does to its own context and whether it panics matters to nobody else.
func TestAsideGivesTheErrorOfItsFunction(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	want := errors.New("the log is away")
	errs, again := make(chan error, 1), make(chan uint64, 1)
	consume(t, client, queue.ConsumeConfig{Slots: 1, Aside: 1, Handle: func(ctx context.Context, d *queue.Delivery) {
		if d.Request().Ref.Repository() == "demo/panics" && d.Attempts() == 1 {
			again <- d.Attempts()
			_ = d.Aside(ctx, func(context.Context) error { panic("a bug") })
		}
		errs <- d.Aside(ctx, func(ctx context.Context) error {
			return d.Aside(ctx, func(context.Context) error { return want }) // within another one it just runs
		})
		_ = d.Done(ctx)
	}})
	enqueue(t, client, request(ref(t, "demo/panics", 1), artifact.Live))
	receive(t, again, "the request whose handler panics")
	enqueue(t, client, request(ref(t, "demo/app", 2), artifact.Live))
	if err := receive(t, errs, "the error"); !errors.Is(err, want) {
		t.Errorf("Aside = %v, want the error of its function; slot and place of the one that panicked must be free", err)
	}
}

// Never more requests are in work than slots and places, whatever they do, and all of them are done in the end: many requests
// of several projects and both lanes that step aside, some of them twice.
func TestAsideUnderLoad(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	const n, slots, places, limit = 300, 3, 4, 2
	var mu sync.Mutex
	atWork, aside, most, byProject := 0, 0, 0, map[string]int{}
	note := func(work, away int, project string) {
		mu.Lock()
		defer mu.Unlock()
		atWork, aside = atWork+work, aside+away
		byProject[project] += work
		most = max(most, aside)
		if atWork > slots || aside > places || byProject[project] > limit {
			t.Errorf("%d hold slots, %d of them of %s, %d are aside; want at most %d, %d and %d",
				atWork, byProject[project], project, aside, slots, limit, places)
		}
	}
	done := make(chan struct{}, n)
	consume(t, client, queue.ConsumeConfig{
		Slots: slots, Aside: places, Cap: func(string) int { return limit },
		Handle: func(ctx context.Context, d *queue.Delivery) {
			project := d.Request().Ref.Project()
			note(1, 0, project)
			digest := d.Request().Ref.Digest()
			for range 1 + int(digest[len(digest)-1])%2 {
				note(-1, 0, project)
				err := d.Aside(ctx, func(context.Context) error {
					note(0, 1, project)
					defer note(0, -1, project)
					<-time.After(time.Millisecond)
					return nil
				})
				if err != nil {
					t.Errorf("Aside = %v", err)
				}
				note(1, 0, project)
			}
			note(-1, 0, project)
			if err := d.Done(ctx); err != nil {
				t.Errorf("Done = %v", err)
			}
			done <- struct{}{}
		},
	})
	for i := range n {
		lane := []artifact.Lane{artifact.Live, artifact.Bulk}[i%2]
		enqueue(t, client, request(ref(t, fmt.Sprintf("project-%d/app", i%5), i), lane))
	}
	for i := range n {
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("%d of %d are done: the rest is stuck", i, n)
		}
	}
	if most < 2 {
		t.Errorf("at most %d were aside at once: nothing was tried", most)
	}
}
