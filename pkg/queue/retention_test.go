package queue_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

const year = 365 * 24 * time.Hour

// tamper changes the ledger's stream as somebody with NATS's own tools does.
func tamper(t *testing.T, server *queue.Server, change func(*jetstream.StreamConfig)) {
	t.Helper()
	js, err := jetstream.New(queue.RawConnection(t, server))
	if err != nil {
		t.Fatal(err)
	}
	handle, err := js.Stream(t.Context(), queue.LedgerStream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := handle.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// shortened gives the details of the events about the retention.
func shortened(t *testing.T, c *queue.Client) (details []string) {
	t.Helper()
	end, err := c.LedgerSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if end == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_ = c.Events(ctx, 0, func(_ context.Context, entries []artifact.Entry) error {
		for _, e := range entries {
			if e.Event.Kind == artifact.RetentionShortened {
				details = append(details, e.Event.Detail)
			}
			if e.Seq >= end {
				cancel()
			}
		}
		return nil
	})
	return details
}

func TestShortenedRetentionIsNoticedBeforeItIsRepaired(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		asked  time.Duration
		change func(*jetstream.StreamConfig)
		want   string
	}{
		{"unchanged", year, func(*jetstream.StreamConfig) {}, ""},
		{"the configuration asks for more", 2 * year, func(*jetstream.StreamConfig) {}, ""},
		{"shortened", year, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = time.Hour }, "1h0m0s instead of 8760h0m0s (MaxAge)"},
		{"longer", year, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = 2 * year }, ""},
		{"shortened on purpose", time.Hour, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = time.Hour }, ""},
		{"drops the oldest", year, func(cfg *jetstream.StreamConfig) { cfg.Discard = jetstream.DiscardOld }, "(Discard)"},
		{"keeps so many", year, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = 10 }, "(MaxMsgs)"},
		{"keeps so many of an image", year, func(cfg *jetstream.StreamConfig) { cfg.MaxMsgsPerSubject = 1 }, "(MaxMsgsPerSubject)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			first := queuetest.Connect(t, queue.Config{Server: server, Limits: queue.Limits{LedgerMaxAge: year}})
			if err := first.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			tamper(t, server, c.change)
			again := queuetest.Connect(t, queue.Config{Server: server, Limits: queue.Limits{LedgerMaxAge: c.asked}})
			for range 2 { // the second finds what was repaired
				if err := again.Setup(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got := shortened(t, again)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("recorded: %q, want %q once", got, c.want)
			}
			queue.ExpectRetention(t, again, c.asked)
		})
	}
}

func TestWatchRetention(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	registry := prometheus.NewRegistry()
	var log safeBuffer
	client := queuetest.Connect(t, queue.LookingAtRetention(queue.Config{
		Server: server, Limits: queue.Limits{LedgerMaxAge: year}, Registerer: registry, Logger: newLogger(&log),
	}, 10*time.Millisecond))
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.WatchRetention(ctx) }()
	is := func(seconds, short float64) func() bool {
		return func() bool {
			return gaugeOf(t, registry, "harborseal_ledger_retention_seconds") == seconds &&
				gaugeOf(t, registry, "harborseal_ledger_retention_shortened") == short
		}
	}
	eventually(t, "the metrics say a year", is(year.Seconds(), 0))
	tamper(t, server, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = time.Hour })
	eventually(t, "the metrics say an hour", is(3600, 1))
	eventually(t, "it is recorded", func() bool { return len(shortened(t, client)) == 1 })
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is repaired", is(year.Seconds(), 0))
	cancel()
	if err := receive(t, done, "the end"); err != nil {
		t.Error(err)
	}
	if got := shortened(t, client); len(got) != 1 {
		t.Errorf("recorded: %q, want it once", got)
	}
	if !strings.Contains(log.String(), "shortened the ledger's retention") {
		t.Error("the log says nothing")
	}
}

// gaugeOf reads a metric; -1 if it is not there.
func gaugeOf(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
