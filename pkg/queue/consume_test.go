package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

// waiting is how many messages a stream holds.
func waiting(t *testing.T, js jetstream.JetStream, stream string) uint64 {
	t.Helper()
	handle, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return handle.CachedInfo().State.Msgs
}

// deadLetter gives the dead letter of a reference as it is stored.
func deadLetter(t *testing.T, js jetstream.JetStream, r artifact.Ref) (letter queue.DeadLetter) {
	t.Helper()
	handle, err := js.Stream(t.Context(), "DEAD")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := handle.GetLastMsgForSubject(t.Context(), queue.DeadSubject("default", r))
	if err != nil {
		t.Fatalf("dead letter of %s: %v", r, err)
	}
	if err := json.Unmarshal(msg.Data, &letter); err != nil {
		t.Fatal(err)
	}
	return letter
}

func TestConsumeHandsOutEverything(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	before := time.Now().Add(-time.Second)
	want := map[artifact.Ref]artifact.Lane{}
	for i := range 40 {
		lane := artifact.Live
		if i%4 == 0 {
			lane = artifact.Bulk
		}
		r := ref(t, fmt.Sprintf("project-%d/app", i%7), i)
		want[r] = lane
		enqueue(t, client, request(r, lane))
	}
	k := consume(t, client, queue.ConsumeConfig{Slots: 4})
	for range 40 {
		d := k.next(t)
		r := d.Request()
		if want[r.Ref] != r.Lane || r.CorrelationID != "c-1" || d.Attempts() != 1 || d.FirstSeen().Before(before) {
			t.Errorf("got %+v, attempt %d, seen %s", r, d.Attempts(), d.FirstSeen())
		}
		delete(want, r.Ref)
		if err := d.Done(t.Context()); err != nil {
			t.Errorf("Done = %v", err)
		}
		close(d.finish)
	}
	if len(want) > 0 {
		t.Errorf("not handed out: %v", want)
	}
	if got := waiting(t, bare(t, server), "SIGN"); got != 0 {
		t.Errorf("%d requests are left", got)
	}
}

func TestRetryComesAgain(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	k := consume(t, client, queue.ConsumeConfig{})
	first := k.next(t)
	if err := first.Retry(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	close(first.finish)
	second := k.next(t)
	if got := second.Attempts(); got != 2 {
		t.Errorf("attempts = %d, want 2", got)
	}
	delay := 300 * time.Millisecond
	given := time.Now()
	if err := second.Retry(t.Context(), delay); err != nil {
		t.Fatal(err)
	}
	close(second.finish)
	third := k.next(t)
	if waited := time.Since(given); waited < delay || third.Attempts() != 3 {
		t.Errorf("attempt %d after %s, want attempt 3 after at least %s", third.Attempts(), waited, delay)
	}
	if !first.FirstSeen().Equal(third.FirstSeen()) {
		t.Errorf("first seen %s, then %s; want the same", first.FirstSeen(), third.FirstSeen())
	}
	wantFault(t, second.Done(t.Context()), fault.Permanent, fault.Rejected)
}

// A program that was killed never acknowledges.
func TestVanishedConsumer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.Connect(t, queue.Config{Server: server, AckWait: time.Second})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := request(ref(t, "demo/app", 1), artifact.Live)
	enqueue(t, client, r)
	durable, err := bare(t, server).Consumer(t.Context(), "SIGN", fmt.Sprintf("sign-default-live-%02d", queue.Partition("demo")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Next(jetstream.FetchMaxWait(patience)); err != nil {
		t.Fatalf("the program that will vanish got nothing: %v", err)
	}
	d := consume(t, client, queue.ConsumeConfig{}).next(t)
	if d.Request().Ref != r.Ref || d.Attempts() != 2 {
		t.Errorf("got %s, attempt %d; want %s, attempt 2", d.Request().Ref, d.Attempts(), r.Ref)
	}
}

// Both a request in work and one that waits for a slot stay with this program for longer than the ack wait.
func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.Connect(t, queue.Config{Server: server, AckWait: 600 * time.Millisecond})
	if err := client.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Two partitions, so that the second request is received while the first holds the only slot.
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Bulk))
	k := consume(t, client, queue.ConsumeConfig{Slots: 1})
	first := k.next(t)
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		eventually(t, "both requests were received", func() bool { return ackPending(t, server, lane, "demo") == 1 })
	}
	other := consume(t, queuetest.Connect(t, queue.Config{Server: server}), queue.ConsumeConfig{})
	select {
	case d := <-other.deliveries:
		t.Fatalf("another program got %s, attempt %d", d.Request().Lane, d.Attempts())
	case <-time.After(2 * time.Second): // What is tested is that nothing happens for more than three ack waits.
	}
	if err := first.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(first.finish)
	if second := k.next(t); second.Attempts() != 1 || second.Request().Lane == first.Request().Lane {
		t.Errorf("got %s, attempt %d; want the other lane, attempt 1", second.Request().Lane, second.Attempts())
	}
}

func TestBuryAndClear(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	r := request(ref(t, "demo/app", 1), artifact.Live)
	if _, dead, err := client.DeadSince(t.Context(), r.Ref); dead || err != nil {
		t.Errorf("DeadSince = %t, %v before", dead, err)
	}
	k := consume(t, client, queue.ConsumeConfig{})
	for attempt, reason := range []string{"denied", "too_old"} {
		enqueue(t, client, r)
		d := k.next(t)
		why := event(r.Ref, artifact.Dead, fmt.Sprintf("dead-%d", attempt))
		why.Reason = reason
		if err := d.Bury(t.Context(), why); err != nil {
			t.Fatalf("Bury = %v", err)
		}
		close(d.finish)
	}
	letter := deadLetter(t, bare(t, server), r.Ref)
	got, err := artifact.DecodeRequest(letter.Request)
	if err != nil || got.Ref != r.Ref || got.CorrelationID != r.CorrelationID {
		t.Errorf("request of the dead letter = %+v, %v", got, err)
	}
	why, err := artifact.DecodeEvent(letter.Event)
	if err != nil || why.ID != "dead-1" || letter.Reason != "too_old" || letter.Attempts != 1 {
		t.Errorf("dead letter = %+v, event %+v, %v; want the newest", letter, why, err)
	}
	if n := waiting(t, bare(t, server), "DEAD"); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	if n := waiting(t, bare(t, server), "SIGN"); n != 0 {
		t.Errorf("%d requests are left, want 0", n)
	}
	if since, dead, err := client.DeadSince(t.Context(), r.Ref); !dead || err != nil || time.Since(since) > time.Minute {
		t.Errorf("DeadSince = %s, %t, %v; want a moment ago", since, dead, err)
	}
	for range 2 {
		if err := client.ClearDead(t.Context(), r.Ref); err != nil {
			t.Errorf("ClearDead = %v", err)
		}
	}
	if _, dead, err := client.DeadSince(t.Context(), r.Ref); dead || err != nil {
		t.Errorf("DeadSince = %t, %v after it was cleared", dead, err)
	}
}

func TestBuryOfAnInvalidEventKeepsTheRequest(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	d := consume(t, client, queue.ConsumeConfig{}).next(t)
	wantFault(t, d.Bury(t.Context(), artifact.Event{}), fault.Permanent, fault.Malformed)
	if n := waiting(t, bare(t, server), "SIGN"); n != 1 {
		t.Errorf("%d requests are left, want 1", n)
	}
}

// Without a place for the dead letter the request must stay.
func TestBuryWithoutRoomKeepsTheRequest(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r := request(ref(t, "demo/app", 1), artifact.Live)
	enqueue(t, client, r)
	if err := js.DeleteStream(t.Context(), "DEAD"); err != nil {
		t.Fatal(err)
	}
	d := consume(t, client, queue.ConsumeConfig{}).next(t)
	wantFault(t, d.Bury(t.Context(), event(r.Ref, artifact.Dead, "dead-1")), fault.Transient, fault.QueueUnavailable)
	if n := waiting(t, js, "SIGN"); n != 1 {
		t.Errorf("%d requests are left, want 1", n)
	}
	if err := d.Retry(t.Context(), time.Hour); err != nil {
		t.Errorf("Retry after a failed Bury = %v", err)
	}
}

func TestHandlersWithBugs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		handle func(*queue.Delivery)
	}{
		{"undecided", func(*queue.Delivery) {}},
		{"panics", func(*queue.Delivery) { panic("a bug") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := queuetest.NewServer(t)
			client := queuetest.NewClient(t, server)
			called := make(chan artifact.Ref, 10)
			consume(t, client, queue.ConsumeConfig{Slots: 1, Handle: func(_ context.Context, d *queue.Delivery) {
				called <- d.Request().Ref
				tt.handle(d)
			}})
			bad, next := ref(t, "demo/app", 1), ref(t, "demo/app", 2)
			enqueue(t, client, request(bad, artifact.Live))
			if got := receive(t, called, "the first request"); got != bad {
				t.Fatalf("got %s, want %s", got, bad)
			}
			enqueue(t, client, request(next, artifact.Live))
			if got := receive(t, called, "the second request"); got != next {
				t.Errorf("got %s, want %s: work goes on, and the first waits for its delay", got, next)
			}
			if n := waiting(t, bare(t, server), "SIGN"); n != 2 {
				t.Errorf("%d requests are kept, want 2", n)
			}
		})
	}
}

func TestDrainGivesBackWhatWaits(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	k := consume(t, client, queue.ConsumeConfig{Slots: 1, Drain: time.Minute})
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	inWork := k.next(t)
	// Received, and waiting for the slot.
	waits := request(ref(t, "demo/app", 1), artifact.Bulk)
	enqueue(t, client, waits)
	eventually(t, "the second request was received", func() bool { return ackPending(t, server, artifact.Bulk, "demo") == 1 })

	k.stop()
	other := consume(t, queuetest.Connect(t, queue.Config{Server: server}), queue.ConsumeConfig{})
	if got := other.next(t); got.Request().Lane != artifact.Bulk || got.Attempts() != 2 {
		t.Errorf("the other program got %s, attempt %d; want bulk, attempt 2", got.Request().Lane, got.Attempts())
	}
	select {
	case <-inWork.ctx.Done():
		t.Error("the handler was cancelled before the drain time")
	case <-k.stopped:
		t.Error("Consume returned before its handler")
	default:
	}
	if err := inWork.Done(t.Context()); err != nil {
		t.Errorf("Done while draining = %v", err)
	}
	close(inWork.finish)
	receive(t, k.stopped, "Consume to return")
}

func TestDrainEnds(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	k := consume(t, client, queue.ConsumeConfig{Drain: 50 * time.Millisecond})
	inWork := k.next(t)
	k.stop()
	receive(t, k.stopped, "Consume to return")
	if inWork.ctx.Err() == nil {
		t.Error("the handler was not cancelled")
	}
	if got := consume(t, client, queue.ConsumeConfig{}).next(t); got.Attempts() != 2 {
		t.Errorf("attempts = %d, want 2, at once", got.Attempts())
	}
}

// ackPending is how many requests of a partition are held by somebody.
func ackPending(t *testing.T, server *queue.Server, lane artifact.Lane, project string) int {
	t.Helper()
	name := fmt.Sprintf("sign-default-%s-%02d", lane, queue.Partition(project))
	durable, err := bare(t, server).Consumer(t.Context(), "SIGN", name)
	if err != nil {
		t.Fatal(err)
	}
	return durable.CachedInfo().NumAckPending
}

func TestConsumeNeedsAHandler(t *testing.T) {
	t.Parallel()
	client := queuetest.NewClient(t, queuetest.NewServer(t))
	wantErrorWith(t, client.Consume(t.Context(), queue.ConsumeConfig{}), "no handler")
}

func TestConsumeSurvivesADeletedConsumer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	k := consume(t, client, queue.ConsumeConfig{})
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Live))
	d := k.next(t)
	if err := d.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("sign-default-live-%02d", queue.Partition("demo"))
	if err := bare(t, server).DeleteConsumer(t.Context(), "SIGN", name); err != nil {
		t.Fatal(err)
	}
	enqueue(t, client, request(ref(t, "demo/app", 2), artifact.Live))
	if got, want := k.next(t).Request().Ref, ref(t, "demo/app", 2); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
