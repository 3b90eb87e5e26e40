package queue_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// node is one server of a cluster.
type node struct {
	opts *server.Options
	nats *server.Server
}

// start starts a node, or starts it again on its store and addresses.
func (n *node) start(t *testing.T) {
	t.Helper()
	var err error
	if n.nats, err = server.NewServer(n.opts.Clone()); err != nil {
		t.Fatal(err)
	}
	n.nats.Start()
	if !n.nats.ReadyForConnections(patience) {
		t.Fatalf("node %s is not ready", n.opts.ServerName)
	}
}

func (n *node) stop() {
	n.nats.Shutdown()
	n.nats.WaitForShutdown()
}

// freePorts finds ports of the loopback interface that nobody uses now.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close() //nolint:errcheck // nothing was sent
		address, err := netip.ParseAddrPort(listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, int(address.Port()))
	}
	return ports
}

// startCluster starts three nodes and gives them by name with the URLs for clients.
func startCluster(t *testing.T) (nodes map[string]*node, urls []string) {
	t.Helper()
	nodes = map[string]*node{}
	ports := freePorts(t, 6) // Each node has to know where the others will be.
	var routes []*url.URL
	for _, port := range ports[3:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i := range 3 {
		n := &node{opts: &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[3+i]},
		}}
		nodes[n.opts.ServerName] = n
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		n.start(t)
		t.Cleanup(func() { n.stop() })
	}
	return nodes, urls
}

// leaderOf names the node that leads a stream.
func leaderOf(t *testing.T, urls []string, stream string) string {
	t.Helper()
	connection, err := nats.Connect(strings.Join(urls, ","))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	js, err := jetstream.New(connection)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return handle.CachedInfo().Cluster.Leader
}

// Two of three nodes away: no majority. The leader of SIGN is one of them. What is acknowledged survives, and what is not
// is a transient fault; with the majority back, everything works without a restart of the client.
func TestLeaderAway(t *testing.T) {
	t.Parallel()
	nodes, urls := startCluster(t)
	client := queuetest.Connect(t, queue.Config{URLs: urls, Replicas: 3, AckWait: 2 * time.Second})
	setup, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := client.Setup(setup); err != nil {
		t.Fatal(err)
	}
	waits := request(ref(t, "demo/app", 1), artifact.Live)
	insist(t, func(ctx context.Context) error {
		_, err := client.Enqueue(ctx, waits)
		return err
	})

	away := []*node{nodes[leaderOf(t, urls, "SIGN")]}
	for _, n := range nodes {
		if n != away[0] {
			away = append(away, n)
			break
		}
	}
	for _, n := range away {
		n.stop()
	}
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := client.Enqueue(ctx, request(ref(t, "demo/app", 100+i), artifact.Live))
		cancel()
		wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	wantFault(t, client.Writable(ctx), fault.Transient, fault.QueueUnavailable)

	away[0].start(t)
	again := request(ref(t, "demo/app", 100), artifact.Live)
	insist(t, func(ctx context.Context) error {
		_, err := client.Enqueue(ctx, again) // Its first try may have been stored: then it is a duplicate, which is success.
		return err
	})
	eventually(t, "the queue is writable", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return client.Writable(ctx) == nil
	})
	if !enqueue(t, client, waits) {
		t.Error("the acknowledged request is lost")
	}
	k := consume(t, client, queue.ConsumeConfig{})
	left := map[artifact.Ref]bool{waits.Ref: true, again.Ref: true}
	for len(left) > 0 {
		d := k.next(t)
		delete(left, d.Request().Ref)
		insist(t, d.Done)
		close(d.finish)
	}
}

// On a cluster, the loser of a race may be told so before the winner's signature can be read.
func TestKeepAgreesOnACluster(t *testing.T) {
	t.Parallel()
	_, urls := startCluster(t)
	var clients []*queue.Client
	for _, url := range urls {
		clients = append(clients, queuetest.Connect(t, queue.Config{URLs: []string{url}, Replicas: 3}))
	}
	setup, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := clients[0].Setup(setup); err != nil {
		t.Fatal(err)
	}
	agree(t, clients, 50, func(int) {})
}

// The leader of the bucket of policies goes and comes back while they change: of two changes of one revision one counts, and
// watchers end with what does.
func TestPoliciesOnACluster(t *testing.T) {
	t.Parallel()
	nodes, urls := startCluster(t)
	var clients []*queue.Client
	for range 3 {
		clients = append(clients, queuetest.Connect(t, queue.Config{URLs: urls, Replicas: 3}))
	}
	setup, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := clients[0].Setup(setup); err != nil {
		t.Fatal(err)
	}
	watchers := []*watcher{watchPolicies(t, clients[0]), watchPolicies(t, clients[1])}
	var total atomic.Int32
	for round := range 9 {
		switch round {
		case 3:
			nodes[leaderOf(t, urls, "KV_POLICIES")].stop()
		case 6:
			for _, n := range nodes {
				n.stop() // Only one of them is away already.
				n.start(t)
			}
		}
		var revision uint64
		insist(t, func(ctx context.Context) error {
			entry, err := clients[2].GetPolicy(ctx, book.Policy, "demo")
			revision = entry.Revision
			return err
		})
		var wins atomic.Int32
		var programs sync.WaitGroup
		for i, client := range clients {
			programs.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := client.PutPolicy(ctx, book.Policy, "demo", fmt.Appendf(nil, "round %d of %d", round, i), revision)
				if err == nil {
					wins.Add(1)
					total.Add(1)
				} else if !fault.Is(err, fault.Transient) {
					t.Errorf("round %d: PutPolicy = %v", round, err)
				}
			})
		}
		programs.Wait()
		if wins.Load() > 1 {
			t.Errorf("round %d: %d changes of revision %d succeeded, want one at most", round, wins.Load(), revision)
		}
	}
	if total.Load() < 3 {
		t.Errorf("%d changes succeeded in all, want at least those of the rounds before a node went away", total.Load())
	}
	// What was not confirmed may still come: the question is asked again each time.
	eventually(t, "both watchers know what counts", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		entry, err := clients[2].GetPolicy(ctx, book.Policy, "demo")
		want := map[string]string{"policy/demo": string(entry.Value)}
		return err == nil && maps.Equal(watchers[0].values(), want) && maps.Equal(watchers[1].values(), want)
	})
}
