package queue_test

import (
	"context"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// Whatever reads, listens or pulls does so with one subscription each, however often the server went away: one that is left behind
// takes what is sent to it, and nobody reads that.
func TestRestartsLeaveNoSubscriptions(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	consume(t, client, queue.ConsumeConfig{Handle: func(ctx context.Context, d *queue.Delivery) { _ = d.Done(ctx) }})
	read(t, client, 0)
	watcher := watchPolicies(t, client)
	announcing, leave := context.WithCancel(context.Background())
	var member sync.WaitGroup
	member.Go(func() {
		if err := client.Announce(announcing, "signers"); err != nil {
			t.Errorf("Announce = %v", err)
		}
	})
	t.Cleanup(func() { leave(); member.Wait() })

	// All pumps, the two readers, the group, and the inbox of requests.
	const want = 2*queue.Partitions + 4
	settled := func() bool { return queue.Subscriptions(client) == want }
	eventually(t, "everything listens", settled)
	for round := range 4 {
		server = startAgain(t, server, serverCfg)
		r := ref(t, "demo/app", round)
		insist(t, func(ctx context.Context) error {
			_, err := client.Enqueue(ctx, request(r, artifact.Live))
			return err
		})
	}
	<-watcher.loaded
	eventually(t, "as much listens as before", settled)
}
