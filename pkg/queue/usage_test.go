package queue_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	server := queuetest.StartServer(t, queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: 64 << 20})
	client := queuetest.NewClient(t, server)
	updateStream(t, bare(t, server), "LEDGER", func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = 1 << 20 })
	began := time.Now().Add(-time.Second)
	for i := range 3 {
		enqueue(t, client, request(ref(t, "demo/app", i), artifact.Live))
	}
	enqueue(t, client, request(ref(t, "demo/app", 9), artifact.Bulk))
	owe(t, client, ref(t, "demo/app", 1))
	record(t, client, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	k := consume(t, client, queue.ConsumeConfig{})
	for range 4 {
		d := k.next(t)
		if d.Request().Lane == artifact.Bulk {
			if err := d.Bury(t.Context(), deadEvent(d.Request().Ref)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var u queue.Usage
	want := map[artifact.Lane]uint64{artifact.Live: 3, artifact.Bulk: 0, artifact.Debt: 1}
	got := map[artifact.Lane]uint64{}
	eventually(t, "everything is counted", func() bool {
		var err error
		if u, err = client.Usage(t.Context()); err != nil {
			t.Fatalf("Usage = %v", err)
		}
		for lane, b := range u.Waiting {
			got[lane] = b.Count
		}
		return maps.Equal(got, want)
	})
	for lane, b := range u.Waiting {
		if b.Count > 0 && (b.Oldest.Before(began) || b.Oldest.After(time.Now().Add(time.Second))) || b.Count == 0 && !b.Oldest.IsZero() {
			t.Errorf("%s: %d, the oldest of %s", lane, b.Count, b.Oldest)
		}
	}
	if requests, debts := u.Outstanding(); requests != 3 || debts != 1 {
		t.Errorf("outstanding: %d requests, %d debts; want 3 and 1", requests, debts)
	}
	if u.DeadLetters != 1 {
		t.Errorf("%d dead letters, want 1", u.DeadLetters)
	}
	names := []string{"SIGN", "DEBT", "LEDGER", "DEAD", "SCAN", "KV_SIGNATURES", "KV_POLICIES", "KV_SWEEPS"}
	for i, s := range u.Streams {
		filled := slices.Contains([]string{"SIGN", "DEBT", "LEDGER", "DEAD"}, s.Name)
		if s.Name != names[i] || (s.Bytes > 0) != filled || (s.Messages > 0) != filled || (s.Limit == 1<<20) != (s.Name == "LEDGER") {
			t.Errorf("stream %+v, want %s", s, names[i])
		}
	}
	if len(u.Streams) != len(names) || u.StoreLimit != 64<<20 || u.StoreBytes <= 0 || u.DiskSize <= 0 || u.DiskFree <= 0 || u.DiskFree > u.DiskSize {
		t.Errorf("usage %+v", u)
	}
}

func deadEvent(r artifact.Ref) artifact.Event {
	e := event(r, artifact.Dead, "e-dead")
	e.Reason = string(fault.Denied)
	return e
}

// A client over the network knows the store by its account, and nothing of the disk.
func TestUsageOverTheNetwork(t *testing.T) {
	t.Parallel()
	serverCfg, clientCfg := network(t)
	server := queuetest.StartServer(t, serverCfg)
	clientCfg.URLs = []string{"nats://" + server.Addr()}
	client := queuetest.Connect(t, clientCfg)
	_, err := client.Usage(t.Context())
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, client, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	u, err := client.Usage(t.Context())
	if err != nil || u.StoreBytes <= 0 || u.DiskSize != 0 || u.DiskFree != 0 {
		t.Errorf("Usage = %+v, %v; want the bytes of the store, and none of the disk", u, err)
	}
}

// has says whether a metric is there.
func has(t *testing.T, registry *prometheus.Registry, name string) bool {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return true
		}
	}
	return false
}

// The metrics are there once something was measured, and stay when the queue no longer answers.
func TestUsageMetrics(t *testing.T) {
	t.Parallel()
	server := queuetest.StartServer(t, queue.ServerConfig{StoreDir: t.TempDir(), MaxStore: 64 << 20})
	registry := prometheus.NewPedanticRegistry()
	client := queuetest.Connect(t, queue.Config{Server: server, Registerer: registry})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if has(t, registry, "harborseal_log_debt") {
		t.Error("a debt is told of before anything was measured")
	}
	owe(t, client, ref(t, "demo/app", 1))
	wantDebts(t, client, 1)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- client.MeasureUsage(ctx) }()
	eventually(t, "something was measured", func() bool { return has(t, registry, "harborseal_log_debt") })
	cancel()
	if err := receive(t, stopped, "the end of the measurements"); err != nil {
		t.Errorf("MeasureUsage = %v", err)
	}
	for name, want := range map[string]float64{
		"harborseal_log_debt": 1, "harborseal_dead_letters": 0, "harborseal_queue_requests": 0,
		"harborseal_queue_oldest_request_timestamp_seconds": 0, "harborseal_queue_store_limit_bytes": 64 << 20, "harborseal_queue_stream_messages": 1,
	} {
		if got := value(t, registry, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{
		"harborseal_log_debt_oldest_timestamp_seconds", "harborseal_queue_stream_bytes", "harborseal_queue_store_bytes",
		"harborseal_queue_store_used_ratio", "harborseal_queue_disk_free_bytes", "harborseal_queue_disk_size_bytes",
		"harborseal_queue_usage_timestamp_seconds",
	} {
		if got := value(t, registry, name); got <= 0 {
			t.Errorf("%s = %v, want something", name, got)
		}
	}
}
