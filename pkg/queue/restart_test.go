package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// network is the configuration of a server with a listener, and of its clients.
func network(t *testing.T) (queue.ServerConfig, queue.Config) {
	t.Helper()
	password := secretFile(t, "correct horse")
	server := queue.ServerConfig{
		StoreDir: filepath.Join(t.TempDir(), "store"), Listen: "127.0.0.1:0", Users: []queue.User{{Name: "signer", PasswordFile: password}},
	}
	return server, queue.Config{Username: "signer", PasswordFile: password, AckWait: 2 * time.Second}
}

// startAgain stops a server and starts it on the same address and store.
func startAgain(t *testing.T, server *queue.Server, cfg queue.ServerConfig) *queue.Server {
	t.Helper()
	cfg.Listen = server.Addr()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	return queuetest.StartServer(t, cfg)
}

func TestServerRestarts(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	publisher, worker := queuetest.Connect(t, clientCfg), queuetest.Connect(t, clientCfg)
	if err := publisher.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	const n = 300
	var mu sync.Mutex
	signed := map[artifact.Ref]int{}
	consume(t, worker, queue.ConsumeConfig{Slots: 8, Handle: func(ctx context.Context, d *queue.Delivery) {
		mu.Lock()
		signed[d.Request().Ref]++
		mu.Unlock()
		if err := d.Done(ctx); err != nil {
			_ = d.Retry(ctx, 0) // The connection may be away: it comes again after the ack wait.
		}
	}})
	events := read(t, worker, 0)

	published := make(chan struct{})
	var refused int
	go func() {
		defer close(published)
		for i := range n {
			r := ref(t, fmt.Sprintf("project-%d/app", i%5), i)
			refused += insist(t, func(ctx context.Context) error {
				_, err := publisher.Record(ctx, event(r, artifact.Received, fmt.Sprintf("e-%d", i)))
				return err
			})
			refused += insist(t, func(ctx context.Context) error {
				_, err := publisher.Enqueue(ctx, request(r, artifact.Live))
				return err
			})
		}
	}()
	handled := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(signed)
	}
	eventually(t, "some requests are done", func() bool { return handled() > n/10 })
	server = startAgain(t, server, serverCfg)
	eventually(t, "more requests are done", func() bool { return handled() > n/2 })
	startAgain(t, server, serverCfg)
	receive(t, published, "all requests to be published")
	eventually(t, "all requests are done", func() bool { return handled() == n })
	if refused == 0 {
		t.Error("no publish was refused: the restarts were not noticed")
	}
	entries, _ := events.take(t, n)
	for i, e := range entries {
		if e.Seq != uint64(i+1) || e.Event.ID != fmt.Sprintf("e-%d", i) {
			t.Fatalf("entry %d = %d, %s: an event is lost, doubled or out of order", i, e.Seq, e.Event.ID)
		}
	}
}

// insist repeats a publish until it succeeds, as Harbor does, and counts the refusals.
func insist(t *testing.T, publish func(context.Context) error) (refused int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := publish(ctx)
		cancel()
		if err == nil {
			return refused
		}
		if !fault.Is(err, fault.Transient) || time.Now().After(deadline) {
			t.Errorf("publish = %v, want a transient fault that passes", err)
			return refused
		}
		refused++
		<-time.After(20 * time.Millisecond)
	}
}

// What was stored before the stop is there after it, locks and all.
func TestStoreSurvivesARestart(t *testing.T) {
	t.Parallel()
	cfg := queue.ServerConfig{StoreDir: t.TempDir()}
	server := queuetest.StartServer(t, cfg)
	client := queuetest.NewClient(t, server)
	r := request(ref(t, "demo/app", 1), artifact.Live)
	enqueue(t, client, r)
	seq := record(t, client, event(r.Ref, artifact.Received, "e-1"))
	client.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	client = queuetest.NewClient(t, queuetest.StartServer(t, cfg))
	if !enqueue(t, client, r) {
		t.Error("the request is lost")
	}
	if got := record(t, client, event(r.Ref, artifact.Received, "e-1")); got != seq {
		t.Errorf("the repeated event has sequence %d, want %d", got, seq)
	}
	if got := consume(t, client, queue.ConsumeConfig{}).next(t).Request().Ref; got != r.Ref {
		t.Errorf("got %s, want %s", got, r.Ref)
	}
}

// A reader whose consumer went with the server must not wait until a heartbeat is missed, which takes 10 seconds.
func TestEventsComeAtOnceAfterARestart(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := read(t, client, 0)
	record(t, client, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	events.take(t, 1)
	startAgain(t, server, serverCfg)
	insist(t, func(ctx context.Context) error {
		_, err := client.Record(ctx, event(ref(t, "demo/app", 2), artifact.Received, "e-2"))
		return err
	})
	recorded := time.Now()
	entries, _ := events.take(t, 1)
	if waited := time.Since(recorded); waited > 5*time.Second || entries[0].Seq != 2 {
		t.Errorf("entry %d after %s, want 2 at once", entries[0].Seq, waited)
	}
}
