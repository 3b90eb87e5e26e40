package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// reader is a running Events.
type reader struct {
	batches chan []artifact.Entry
	ended   chan error
}

// read starts a reader behind a sequence and stops it at the end of the test.
func read(t *testing.T, c *queue.Client, after uint64) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{batches: make(chan []artifact.Entry, 10_000), ended: make(chan error, 1)}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.ended <- c.Events(ctx, after, func(_ context.Context, entries []artifact.Entry) error {
			r.batches <- entries
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-stopped
		if err := <-r.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Events = %v, want context.Canceled", err)
		}
	})
	return r
}

// take waits for n entries and gives them with the sizes of their batches.
func (r *reader) take(t *testing.T, n int) (entries []artifact.Entry, sizes []int) {
	t.Helper()
	for len(entries) < n {
		batch := receive(t, r.batches, fmt.Sprintf("entry %d", len(entries)))
		sizes = append(sizes, len(batch))
		entries = append(entries, batch...)
	}
	return entries, sizes
}

func TestEventsInOrderAndInBatches(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	const n = 2500
	for i := range n {
		record(t, client, event(ref(t, "demo/app", i), artifact.Received, fmt.Sprintf("e-%d", i)))
	}
	entries, sizes := read(t, client, 0).take(t, n)
	for i, e := range entries {
		if e.Seq != uint64(i+1) || e.Event.ID != fmt.Sprintf("e-%d", i) {
			t.Fatalf("entry %d = %d, %s", i, e.Seq, e.Event.ID)
		}
	}
	for _, size := range sizes {
		if size < 1 || size > 1000 {
			t.Errorf("batch of %d entries, want 1 to 1000", size)
		}
	}
	if len(sizes) > 200 {
		t.Errorf("%d batches for %d events: they are not collected", len(sizes), n)
	}
	first, last, created, err := client.LedgerState(t.Context())
	if err != nil || first != 1 || last != n || time.Since(created) > time.Hour {
		t.Errorf("LedgerState = %d, %d, %s, %v; want 1, %d, now", first, last, created, err, n)
	}
}

func TestEventsComeAtOnce(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	r := read(t, client, 0)
	fastest := time.Hour
	for i := range 5 {
		started := time.Now()
		record(t, client, event(ref(t, "demo/app", i), artifact.Received, fmt.Sprintf("e-%d", i)))
		r.take(t, 1)
		fastest = min(fastest, time.Since(started))
	}
	if limit := 50 * time.Millisecond; fastest > limit {
		t.Errorf("the fastest of 5 events came after %s, want less than %s", fastest, limit)
	}
}

func TestEventsResume(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	for i := range 10 {
		record(t, client, event(ref(t, "demo/app", i), artifact.Received, fmt.Sprintf("e-%d", i)))
	}
	r := read(t, client, 7)
	entries, _ := r.take(t, 3)
	if entries[0].Seq != 8 || entries[0].Event.ID != "e-7" {
		t.Errorf("first entry = %d, %s; want 8, e-7", entries[0].Seq, entries[0].Event.ID)
	}
	record(t, client, event(ref(t, "demo/app", 10), artifact.Received, "e-10"))
	if entries, _ = r.take(t, 1); entries[0].Seq != 11 {
		t.Errorf("new entry has sequence %d, want 11", entries[0].Seq)
	}
}

func TestEventsEndWithTheReadersError(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	record(t, client, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	broken := errors.New("the database is away")
	err := client.Events(t.Context(), 0, func(context.Context, []artifact.Entry) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("Events = %v, want %v", err, broken)
	}
}

func TestEventsPassOverWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	for _, data := range []string{"not JSON", `{"v":99}`, ""} {
		if _, err := js.Publish(t.Context(), queue.LedgerSubject("default", event(r, artifact.Received, "e")), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	// Of another Harbor on the same server: no business of this reader.
	if _, err := js.Publish(t.Context(), queue.LedgerSubject("other", event(r, artifact.Received, "e")), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	record(t, client, event(r, artifact.Received, "e-1"))
	entries, _ := read(t, client, 0).take(t, 4)
	for i, e := range entries[:3] {
		if e.Seq != uint64(i+1) || e.Event.ID != "" {
			t.Errorf("entry %d = %+v, want sequence %d and a zero event", i, e, i+1)
		}
	}
	if e := entries[3]; e.Seq != 5 || e.Event.ID != "e-1" {
		t.Errorf("last entry = %+v, want sequence 5 and e-1", e)
	}
}

// Events about a project, or about all, are recorded and read as all others are.
func TestEventsOfProjects(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	changed, everywhere := ofProject("my.project"), ofProject("")
	changed.ID = artifact.EventID(changed.Kind, artifact.Ref{}, "my.project", "1")
	everywhere.ID = artifact.EventID(artifact.Paused, artifact.Ref{}, "", "1")
	everywhere.Kind = artifact.Paused
	seq := record(t, client, changed)
	if again := record(t, client, changed); again != seq {
		t.Errorf("recorded again: sequence %d, want that of the first, %d", again, seq)
	}
	record(t, client, everywhere)
	entries, _ := read(t, client, 0).take(t, 2)
	for i, want := range []artifact.Event{changed, everywhere} {
		if got := entries[i].Event; got.ID != want.ID || got.Kind != want.Kind || got.Project != want.Project || !got.Ref.IsZero() {
			t.Errorf("entry %d is %+v, want %+v", i, got, want)
		}
	}
	wrong := changed
	wrong.Ref = ref(t, "my.project/app", 1)
	_, err := client.Record(t.Context(), wrong)
	wantFault(t, err, fault.Permanent, fault.Malformed)
}

func TestLastQueued(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r := ref(t, "demo/app", 1)
	record(t, client, event(r, artifact.Received, "e-1"))
	record(t, client, event(ref(t, "demo/app", 2), artifact.Queued, "e-2"))
	if seq, err := client.LastQueued(t.Context(), r); seq != 0 || err != nil {
		t.Errorf("LastQueued = %d, %v; want none", seq, err)
	}
	record(t, client, event(r, artifact.Queued, "e-3"))
	want := record(t, client, event(r, artifact.Queued, "e-4"))
	if seq, err := client.LastQueued(t.Context(), r); seq != want || err != nil {
		t.Errorf("LastQueued = %d, %v; want %d", seq, err, want)
	}
}
