package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// restart stops all servers and starts them again on their stores and addresses.
func (d *deployed) restart(t *testing.T) {
	t.Helper()
	for _, n := range d.nodes {
		n.stop()
	}
	for _, n := range d.nodes {
		n.start(t)
	}
}

// recordMany records events as fast as they are taken, and gives the first sequence.
func recordMany(t *testing.T, c *queue.Client, from, n int) {
	t.Helper()
	work := make(chan int)
	failed := make(chan error, n)
	done := make(chan struct{})
	const writers = 32
	for range writers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range work {
				e := artifact.Event{
					ID: fmt.Sprintf("e-%d", i), Kind: artifact.Received, Time: time.Now().UTC(), Origin: artifact.OriginWebhook, CorrelationID: "c",
				}
				e.Ref, _ = artifact.NewRef("demo/app", fmt.Sprintf("sha256:%064x", i))
				if _, err := c.Record(context.Background(), e); err != nil {
					failed <- err
				}
			}
		}()
	}
	for i := range n {
		work <- from + i
	}
	close(work)
	for range writers {
		<-done
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
}

// Pages in full, and what comes while they are read: in order, without a gap, and soon.
func TestImportedEvents(t *testing.T) {
	d := deploy(t, 1, nil)
	signer, receiver := d.connect(t, "signer"), d.connect(t, "receiver")
	const before, during = 3500, 1500
	recordMany(t, receiver, 0, before)
	// Of another Harbor: sequences of this one have holes.
	other := d.config("signer")
	other.Harbor = "other"
	record(t, queuetest.Connect(t, other), event(ref(t, "demo/app", 1), artifact.Signed, "foreign"))
	r := read(t, receiver, 0)
	recordMany(t, receiver, before, during)
	entries, sizes := r.take(t, before+during)
	seen := map[string]bool{}
	last := uint64(0)
	for i, e := range entries {
		if e.Seq <= last || seen[e.Event.ID] || e.Event.ID == "" {
			t.Fatalf("entry %d is %q with sequence %d behind %d", i, e.Event.ID, e.Seq, last)
		}
		seen[e.Event.ID], last = true, e.Seq
	}
	if len(sizes) < (before+during)/1000 || len(seen) != before+during {
		t.Errorf("%d events in %d batches, want %d in at least %d", len(seen), len(sizes), before+during, (before+during)/1000)
	}
	fastest := time.Hour
	for i := range 5 {
		started := time.Now()
		record(t, signer, event(ref(t, "demo/late", i), artifact.Signed, fmt.Sprintf("late-%d", i)))
		r.take(t, 1)
		fastest = min(fastest, time.Since(started))
	}
	if limit := 50 * time.Millisecond; fastest > limit {
		t.Errorf("the fastest of 5 events came after %s, want less than %s", fastest, limit)
	}
	resumed, _ := read(t, receiver, before+1).take(t, 1)
	if resumed[0].Seq != before+2 {
		t.Errorf("a reader behind %d begins with %d", before+1, resumed[0].Seq)
	}
}

// Nobody tells of what is stored: it is found all the same.
func TestImportedEventsWithoutHints(t *testing.T) {
	d := deploy(t, 1, addOwner)
	signer, receiver := d.connect(t, "signer"), d.connect(t, "receiver")
	js := d.owner(t)
	for _, name := range []string{"LEDGER", "KV_POLICIES"} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.CachedInfo().Config
		cfg.RePublish.Source = "ledger.nothing"
		if name == "KV_POLICIES" {
			cfg.RePublish.Source = "$KV.POLICIES.nothing"
		}
		cfg.RePublish.Destination = "stored.nothing"
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	r, w := read(t, receiver, 0), watchPolicies(t, receiver)
	receive(t, w.loaded, "the first values")
	record(t, signer, event(ref(t, "demo/app", 1), artifact.Signed, "e"))
	putPolicy(t, receiver, book.Policy, "demo", "one", 0)
	r.take(t, 1)
	w.await(t, map[string]string{"policy/demo": "one"})
}

// Restarts of the server, and a bucket that is made anew: readers end with what is stored.
func TestImportedReadersSurvive(t *testing.T) {
	d := deploy(t, 1, addOwner)
	signer, receiver := d.connect(t, "signer"), d.connect(t, "receiver")
	record(t, receiver, event(ref(t, "demo/app", 1), artifact.Received, "e-1"))
	putPolicy(t, receiver, book.Policy, "demo", "one", 0)
	gone := putPolicy(t, receiver, book.Policy, "gone", "one", 0)
	r, w := read(t, receiver, 0), watchPolicies(t, receiver)
	r.take(t, 1)
	w.await(t, map[string]string{"policy/demo": "one", "policy/gone": "one"})

	d.restart(t)
	insist(t, func(ctx context.Context) error { return receiver.DeletePolicy(ctx, book.Policy, "gone", gone) })
	insist(t, func(ctx context.Context) error {
		_, err := receiver.Record(ctx, event(ref(t, "demo/app", 2), artifact.Received, "e-2"))
		return err
	})
	if entries, _ := r.take(t, 1); entries[0].Event.ID != "e-2" {
		t.Errorf("after the restart comes %q, want e-2", entries[0].Event.ID)
	}
	w.await(t, map[string]string{"policy/demo": "one"})

	if err := d.owner(t).DeleteStream(t.Context(), "KV_POLICIES"); err != nil {
		t.Fatal(err)
	}
	insist(t, signer.Setup)
	insist(t, func(ctx context.Context) error {
		_, err := receiver.PutPolicy(ctx, book.Policy, "new", []byte("one"), 0)
		return err
	})
	w.await(t, map[string]string{"policy/new": "one"})
}

// On three servers, any replica answers, and leaders go: order and completeness hold.
func TestImportedReadersOnACluster(t *testing.T) {
	d := deploy(t, 3, nil)
	d.connect(t, "signer")
	receiver := d.connect(t, "receiver")
	r, w := read(t, receiver, 0), watchPolicies(t, receiver)
	receive(t, w.loaded, "the first values")
	recordMany(t, receiver, 0, 500)
	r.take(t, 500)
	for i, n := range d.nodes {
		n.stop()
		n.start(t)
		insist(t, func(ctx context.Context) error {
			_, err := receiver.Record(ctx, event(ref(t, "demo/restarts", i), artifact.Received, fmt.Sprintf("r-%d", i)))
			return err
		})
		insist(t, func(ctx context.Context) error {
			entry, err := receiver.GetPolicy(ctx, book.Policy, "demo")
			if err == nil {
				_, err = receiver.PutPolicy(ctx, book.Policy, "demo", fmt.Appendf(nil, "%d", i), entry.Revision)
			}
			return err
		})
		if entries, _ := r.take(t, 1); entries[0].Event.ID != fmt.Sprintf("r-%d", i) {
			t.Errorf("after restart %d comes %q", i, entries[0].Event.ID)
		}
	}
	w.await(t, map[string]string{"policy/demo": "2"})
}

// A receiver waits for what signers make, and makes nothing.
func TestReceiversWaitForSigners(t *testing.T) {
	d := deploy(t, 1, addOwner)
	receiver := queuetest.Connect(t, d.config("receiver"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := receiver.Setup(ctx)
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
	wantErrorWith(t, err, "which signers make")

	// What signers made that are older than accounts.
	signer := d.connect(t, "signer")
	js := d.owner(t)
	stream, err := js.Stream(t.Context(), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowDirect, cfg.RePublish = false, nil
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	wantErrorWith(t, receiver.Setup(ctx), "upgrade and start the signers first")

	waiting := make(chan error, 1)
	go func() { waiting <- receiver.Setup(t.Context()) }()
	if err := signer.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, waiting, "the end of waiting"); err != nil {
		t.Error(err)
	}
	if names := streamNames(t, js); len(names) != 8 {
		t.Errorf("streams are %v, want 8", names)
	}
}

func streamNames(t *testing.T, js jetstream.JetStream) (names []string) {
	t.Helper()
	lister := js.StreamNames(t.Context())
	for name := range lister.Name() {
		names = append(names, name)
	}
	if err := lister.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// The ledger may be read from any replica, and what has to be the newest is not: it is asked of the leader.
func TestNewestIsAskedOfTheLeader(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	connection := queue.RawConnection(t, server)
	var direct, leader atomic.Int32
	for subject, count := range map[string]*atomic.Int32{"$JS.API.DIRECT.>": &direct, "$JS.API.STREAM.MSG.GET.LEDGER": &leader} {
		if _, err := connection.Subscribe(subject, func(*nats.Msg) { count.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := connection.Flush(); err != nil {
		t.Fatal(err)
	}
	r := ref(t, "demo/app", 1)
	want := record(t, client, event(r, artifact.Received, "e"))
	if seq, _, err := client.LastReceived(t.Context(), r); seq != want || err != nil {
		t.Errorf("LastReceived = %d, %v; want %d", seq, err, want)
	}
	eventually(t, "the leader was asked", func() bool { return leader.Load() == 1 })
	if n := direct.Load(); n != 0 {
		t.Errorf("%d questions to any replica, want none", n)
	}
}
