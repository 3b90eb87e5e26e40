package queue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// mates gives two projects whose requests are in one partition.
func mates(t *testing.T) (one, other string) {
	t.Helper()
	for i := range 1000 {
		if name := fmt.Sprintf("mate-%d", i); queue.Partition(name) == queue.Partition("flood") {
			return "flood", name
		}
	}
	t.Fatal("no mate in 1000 names")
	return "", ""
}

func capFlood(project string) int {
	if project == "flood" {
		return 2
	}
	return 0
}

// A thousand waiting requests of a project at its cap hold up nobody: not even who comes behind them in their partition.
func TestCappedProjectHoldsUpNobody(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	flood, mate := mates(t)
	const n = 1000
	for i := range n {
		enqueue(t, client, request(ref(t, flood+"/app", i), artifact.Live))
	}
	k := consume(t, client, queue.ConsumeConfig{Slots: 8, Cap: capFlood})
	first, second := k.next(t), k.next(t)
	eventually(t, "all others are parked", func() bool { return value(t, registry, "harborseal_queue_waiting_for_slot") == n-2 })

	started := time.Now()
	for i, r := range []artifact.Request{
		request(ref(t, mate+"/app", 1), artifact.Live), request(ref(t, mate+"/app", 2), artifact.Bulk), request(ref(t, "else/app", 1), artifact.Live),
	} {
		enqueue(t, client, r)
		d := k.next(t)
		if got := d.Request().Ref; got != r.Ref {
			t.Fatalf("request %d: got %s, want %s", i, got, r.Ref)
		}
		if err := d.Done(t.Context()); err != nil {
			t.Errorf("Done = %v", err)
		}
		close(d.finish)
	}
	if waited := time.Since(started); waited > 2*time.Second {
		t.Errorf("the others waited %s", waited)
	}
	// The flood goes on at its own pace, and no request of it is handed out a second time while it waits.
	for i, d := range []held{first, second} {
		if err := d.Done(t.Context()); err != nil {
			t.Errorf("Done = %v", err)
		}
		close(d.finish)
		next := k.next(t)
		if next.Request().Ref.Project() != flood || next.Attempts() != 1 {
			t.Errorf("turn %d: got %s, attempt %d; want the next of the flood", i, next.Request().Ref, next.Attempts())
		}
	}
	select {
	case d := <-k.deliveries:
		t.Errorf("%s is worked on beyond the cap", d.Request().Ref)
	default:
	}
}

// What is parked goes back at once when the program stops.
func TestParkedRequestsAreGivenBack(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 50
	for i := range n {
		enqueue(t, client, request(ref(t, "flood/app", i), artifact.Bulk))
	}
	k := consume(t, client, queue.ConsumeConfig{Slots: 8, Cap: capFlood})
	for range 2 {
		d := k.next(t)
		if err := d.Done(t.Context()); err != nil {
			t.Errorf("Done = %v", err)
		}
		defer close(d.finish)
	}
	eventually(t, "all others are parked", func() bool { return value(t, registry, "harborseal_queue_waiting_for_slot") == n-2 })
	k.stop()
	next := consume(t, queuetest.NewClient(t, server), queue.ConsumeConfig{Slots: n})
	started := time.Now()
	for range n - 2 {
		d := next.next(t)
		if err := d.Done(t.Context()); err != nil {
			t.Errorf("Done = %v", err)
		}
		close(d.finish)
	}
	if waited := time.Since(started); waited > 10*time.Second {
		t.Errorf("they came after %s, want at once and not after the ack wait", waited)
	}
	eventually(t, "none waits at the first", func() bool { return value(t, registry, "harborseal_queue_waiting_for_slot") == 0 })
}

// What is parked is neither lost nor stuck after the connection was lost and found.
func TestParkedRequestsOutliveARestart(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	registry := prometheus.NewRegistry()
	publisher := queuetest.Connect(t, clientCfg)
	clientCfg.Registerer = registry
	worker := queuetest.Connect(t, clientCfg)
	if err := publisher.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 40
	for i := range n {
		enqueue(t, publisher, request(ref(t, "flood/app", i), artifact.Live))
	}
	k := consume(t, worker, queue.ConsumeConfig{Slots: 8, Cap: capFlood})
	working := []held{k.next(t), k.next(t)}
	eventually(t, "all others are parked", func() bool { return value(t, registry, "harborseal_queue_waiting_for_slot") == n-2 })
	server = startAgain(t, server, serverCfg)
	seen := map[artifact.Ref]bool{working[0].Request().Ref: true, working[1].Request().Ref: true}
	for len(working) > 0 {
		d := working[0]
		working = working[1:]
		eventually(t, "the request is done", func() bool { return d.Done(t.Context()) == nil })
		close(d.finish)
		if len(seen) < n {
			next := k.next(t)
			seen[next.Request().Ref] = true
			working = append(working, next)
		}
	}
	eventually(t, "the queue is empty", func() bool { return waiting(t, bare(t, server), "SIGN") == 0 })
}
