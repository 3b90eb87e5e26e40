package queue_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func streamConfig(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	handle, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return handle.CachedInfo().Config
}

func TestSetupCreatesWhatFactsAskFor(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	queuetest.NewClient(t, server)
	js := bare(t, server)
	type settings struct {
		retention     jetstream.RetentionPolicy
		perSubject    int64
		discard       jetstream.DiscardPolicy
		perSubjectNew bool
		age           time.Duration
		maxMsgs       int64
		maxBytes      int64
		denied        bool
		compression   jetstream.StoreCompression
	}
	for name, want := range map[string]settings{
		"SIGN":          {jetstream.WorkQueuePolicy, 1, jetstream.DiscardNew, true, 0, -1, -1, false, jetstream.NoCompression},
		"DEBT":          {jetstream.WorkQueuePolicy, 1, jetstream.DiscardNew, true, 0, -1, -1, false, jetstream.NoCompression},
		"LEDGER":        {jetstream.LimitsPolicy, -1, jetstream.DiscardNew, false, 400 * 24 * time.Hour, -1, -1, true, jetstream.NoCompression},
		"DEAD":          {jetstream.LimitsPolicy, 1, jetstream.DiscardOld, false, 0, -1, -1, false, jetstream.NoCompression},
		"SCAN":          {jetstream.LimitsPolicy, 1, jetstream.DiscardNew, true, 48 * time.Hour, -1, -1, false, jetstream.NoCompression},
		"KV_SIGNATURES": {jetstream.LimitsPolicy, 1, jetstream.DiscardNew, false, 2 * time.Hour, -1, -1, false, jetstream.NoCompression},
		"KV_POLICIES":   {jetstream.LimitsPolicy, 64, jetstream.DiscardNew, false, 0, -1, -1, true, jetstream.NoCompression},
		"KV_SWEEPS":     {jetstream.LimitsPolicy, 1, jetstream.DiscardNew, false, 0, -1, -1, false, jetstream.NoCompression},
	} {
		c := streamConfig(t, js, name)
		got := settings{
			c.Retention, c.MaxMsgsPerSubject, c.Discard, c.DiscardNewPerSubject, c.MaxAge, c.MaxMsgs, c.MaxBytes,
			c.DenyDelete && c.DenyPurge, c.Compression,
		}
		if got != want || c.Storage != jetstream.FileStorage || c.Metadata["harborseal_schema"] != "1" {
			t.Errorf("%s: got %+v, storage %s, metadata %v; want %+v", name, got, c.Storage, c.Metadata, want)
		}
	}
	for name, want := range map[string]int{"SIGN": 2 * queue.Partitions, "DEBT": 1} {
		handle, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for info := range handle.ListConsumers(t.Context()).Info() {
			count++
			c := info.Config
			if c.AckPolicy != jetstream.AckExplicitPolicy || c.MaxDeliver != -1 || c.MaxAckPending != -1 || c.AckWait != time.Minute ||
				len(c.BackOff) != 0 || c.InactiveThreshold != 0 {
				t.Errorf("consumer %s: %+v", info.Name, c)
			}
		}
		if count != want {
			t.Errorf("%s has %d consumers, want %d", name, count, want)
		}
	}
}

func TestSetupAtOnce(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	var programs sync.WaitGroup
	for range 4 {
		client := queuetest.Connect(t, queue.Config{Server: server})
		programs.Go(func() {
			if err := client.Setup(t.Context()); err != nil {
				t.Errorf("Setup = %v", err)
			}
		})
	}
	programs.Wait()
}

// A second set-up must change nothing, and in particular nothing that another program or an operator has set.
func TestSetupIsIdempotent(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	queuetest.NewClient(t, server)
	js := bare(t, server)
	updateStream(t, js, "DEAD", func(cfg *jetstream.StreamConfig) {
		cfg.MaxBytes = 1 << 20
		cfg.Metadata["operator"] = "was here"
	})
	updateStream(t, js, "SIGN", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 4096 })
	updateStream(t, js, "SCAN", func(cfg *jetstream.StreamConfig) { cfg.DiscardNewPerSubject = false })

	if err := queuetest.Connect(t, queue.Config{Server: server}).Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := streamConfig(t, js, "DEAD"); c.MaxBytes != 1<<20 || c.Metadata["operator"] != "was here" {
		t.Errorf("the operator's settings are gone: %+v", c)
	}
	if c := streamConfig(t, js, "SIGN"); c.MaxMsgSize != 4096 {
		t.Errorf("the operator's limit is gone: %+v", c)
	}
	if c := streamConfig(t, js, "SCAN"); !c.DiscardNewPerSubject {
		t.Error("a setting that this program needs was not repaired")
	}
}

func TestSetupNeverShortensTheLedger(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	js := bare(t, server)
	for _, tt := range []struct{ configured, want time.Duration }{
		{1000 * time.Hour, 1000 * time.Hour},
		{2000 * time.Hour, 2000 * time.Hour},
		{10 * time.Hour, 2000 * time.Hour},
	} {
		client := queuetest.Connect(t, queue.Config{Server: server, Limits: queue.Limits{LedgerMaxAge: tt.configured}})
		if err := client.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := streamConfig(t, js, "LEDGER").MaxAge; got != tt.want {
			t.Errorf("configured %s: age %s, want %s", tt.configured, got, tt.want)
		}
	}
}

// A program that asks for no age, as signers do for the ledger's, changes none.
func TestSetupLeavesExistingAgesAlone(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	tests := []struct {
		name         string
		have, asked  time.Duration // 0 is for ever, and nothing asked for
		ledger, scan time.Duration
	}{
		{"nothing asked for", 30 * hour, 0, 30 * hour, 30 * hour},
		{"nothing asked for, kept for ever", 0, 0, 0, 0},
		{"kept for ever", 0, 10 * hour, 0, 0},
		{"shorter", 30 * hour, 10 * hour, 30 * hour, 30 * hour},
		{"longer", 30 * hour, 40 * hour, 40 * hour, 40 * hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			queuetest.NewClient(t, server)
			js := bare(t, server)
			for _, name := range []string{"LEDGER", "SCAN"} {
				updateStream(t, js, name, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = tt.have })
			}
			limits := queue.Limits{LedgerMaxAge: tt.asked, ScanMaxAge: tt.asked}
			if err := queuetest.Connect(t, queue.Config{Server: server, Limits: limits}).Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]time.Duration{"LEDGER": tt.ledger, "SCAN": tt.scan} {
				if got := streamConfig(t, js, name).MaxAge; got != want {
					t.Errorf("%s: age %s, want %s", name, got, want)
				}
			}
		})
	}
}

func TestNewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	queuetest.NewClient(t, server)
	js := bare(t, server)
	newer := map[string]string{"harborseal_schema": "2"}
	for _, name := range []string{"SIGN", "LEDGER"} {
		updateStream(t, js, name, func(cfg *jetstream.StreamConfig) {
			maps.Copy(cfg.Metadata, newer)
			cfg.Description = "of a newer version"
		})
	}
	durable, err := js.Consumer(t.Context(), "SIGN", "sign-default-bulk-03")
	if err != nil {
		t.Fatal(err)
	}
	changed := durable.CachedInfo().Config
	changed.AckWait = 7 * time.Minute
	if _, err := js.UpdateConsumer(t.Context(), "SIGN", changed); err != nil {
		t.Fatal(err)
	}

	client := queuetest.Connect(t, queue.Config{Server: server})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatalf("Setup = %v", err)
	}
	for _, name := range []string{"SIGN", "LEDGER"} {
		if c := streamConfig(t, js, name); c.Description != "of a newer version" || c.Metadata["harborseal_schema"] != "2" {
			t.Errorf("%s was changed: %q, %v", name, c.Description, c.Metadata)
		}
	}
	if info, err := durable.Info(t.Context()); err != nil || info.Config.AckWait != 7*time.Minute {
		t.Errorf("a consumer of the newer stream was changed: %+v, %v", info, err)
	}
	// It is used all the same.
	r := ref(t, "demo/app", 1)
	enqueue(t, client, request(r, artifact.Live))
	record(t, client, event(r, artifact.Received, "e-1"))
	if err := consume(t, client, queue.ConsumeConfig{}).next(t).Done(t.Context()); err != nil {
		t.Errorf("Done = %v", err)
	}
}

func TestLedgerRefusesDeleteAndPurge(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	seq := record(t, client, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	ledger, err := bare(t, server).Stream(t.Context(), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	wantErrorWith(t, ledger.DeleteMsg(t.Context(), seq), "err_code=10057")
	wantErrorWith(t, ledger.Purge(t.Context()), "err_code=10110")
	if _, err := ledger.GetMsg(t.Context(), seq); err != nil {
		t.Errorf("the event is gone: %v", err)
	}
}

func TestFullLedgerRefusesNewEvents(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.Connect(t, queue.Config{Server: server, Limits: queue.Limits{LedgerMaxBytes: 2000}})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := ref(t, "demo/app", 1)
	first := record(t, client, event(r, artifact.Received, "e-0"))
	var err error
	for i := 1; err == nil && i < 100; i++ {
		_, err = client.Record(t.Context(), event(r, artifact.Received, "e-"+string(rune('a'+i))))
	}
	wantFault(t, err, "transient", "queue_full")
	if got, _, _, err := client.LedgerState(t.Context()); err != nil || got != first {
		t.Errorf("first sequence %d, %v; want %d: the oldest event must stay", got, err, first)
	}
	wantFault(t, client.Writable(t.Context()), "transient", "queue_full")
}

// A full ledger stays full: also when nobody publishes, nobody may be told that a push would be stored.
func TestFullLedgerIsNotWritable(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	const limit = 64 << 10
	client := queuetest.Connect(t, queue.Config{Server: server, Limits: queue.Limits{LedgerMaxBytes: limit}})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Writable(t.Context()); err != nil {
		t.Errorf("Writable = %v with an empty ledger", err)
	}
	var err error
	for i := 0; err == nil && i < limit; i++ {
		_, err = client.Record(t.Context(), event(ref(t, "demo/app", i), artifact.Received, fmt.Sprint("e-", i)))
	}
	wantFault(t, err, "transient", "queue_full")
	queue.ForgetRefusals(client)
	wantFault(t, client.Writable(t.Context()), "transient", "queue_full")
	if err := queuetest.NewClient(t, server).Writable(t.Context()); err == nil {
		t.Error("a program that has published nothing yet calls it writable")
	}
	updateStream(t, bare(t, server), "LEDGER", func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = 2 * limit })
	if err := client.Writable(t.Context()); err != nil {
		t.Errorf("Writable = %v after the limit was raised", err)
	}
}
