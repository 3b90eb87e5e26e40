package queue_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func TestHandlesAreKept(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	raw := queue.RawConnection(t, server)
	asked := make(chan *nats.Msg, 100)
	if _, err := raw.ChanSubscribe("$JS.API.STREAM.INFO.*", asked); err != nil {
		t.Fatal(err)
	}
	if err := raw.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	r := ref(t, "demo/app", 1)
	record(t, client, event(r, artifact.Received, "e-1"))
	for range 3 {
		if err := client.ClearDead(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.DeadSince(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if seq, _, err := client.LastReceived(t.Context(), r); seq != 1 || err != nil {
			t.Fatalf("LastReceived = %d, %v; want 1", seq, err)
		}
	}
	// The server routes what one connection publishes in its order, and the answer to the last request came behind it.
	if err := raw.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if got := len(asked); got != 2 {
		t.Errorf("asked %d times for the state of a stream, want once for each of 2", got)
	}
}

// A stream that was created anew with other settings is found again after the first error.
func TestHandleOfAStreamThatIsGone(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	js := bare(t, server)
	r := ref(t, "demo/app", 1)
	// With this setting, a handle asks in a way that a stream without it does not answer.
	updateStream(t, js, "DEAD", func(cfg *jetstream.StreamConfig) { cfg.AllowDirect = true })
	if _, _, err := client.DeadSince(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	cfg := streamConfig(t, js, "DEAD")
	if err := js.DeleteStream(t.Context(), "DEAD"); err != nil {
		t.Fatal(err)
	}
	_, _, err := client.DeadSince(t.Context(), r)
	wantFault(t, err, "transient", "queue_unavailable")
	cfg.AllowDirect = false
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, found, err := client.DeadSince(t.Context(), r); found || err != nil {
		t.Errorf("DeadSince = %t, %v", found, err)
	}
	if err := client.ClearDead(t.Context(), r); err != nil {
		t.Errorf("ClearDead = %v", err)
	}
}
