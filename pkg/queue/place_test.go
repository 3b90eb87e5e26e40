package queue_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/queue/queuetest"
)

func placeOf(t *testing.T, p *queue.Places, r artifact.Ref) queue.Place {
	t.Helper()
	place, err := p.Place(t.Context(), r)
	if err != nil {
		t.Fatalf("Place(%s) = %v", r, err)
	}
	return place
}

// TestPlaces follows requests from the end of a lane into work and out of it, as a receiver with an account of its own sees them.
func TestPlaces(t *testing.T) {
	d := deploy(t, 1, nil)
	signer := d.connect(t, "signer")
	if err := signer.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	receiver := d.connect(t, "receiver")
	places := receiver.Places()

	mine := ref(t, "demo/app", 99)
	if got := placeOf(t, places, mine); got != (queue.Place{}) {
		t.Errorf("without a request: %+v, want none", got)
	}
	for i := range 5 {
		enqueue(t, receiver, request(ref(t, "other/app", i), artifact.Live))
		enqueue(t, receiver, request(ref(t, "demo/app", i), artifact.Live))
		enqueue(t, receiver, request(ref(t, "demo/bulk", i), artifact.Bulk))
	}
	enqueue(t, receiver, request(mine, artifact.Live))
	enqueue(t, receiver, request(ref(t, "demo/app", 100), artifact.Live)) // behind it
	// Ten are ahead. The server does not tell those of a partition that came before from those that came after.
	eventually(t, "ten or eleven are ahead", func() bool { n := placeOf(t, receiver.Places(), mine).Ahead; return n == 10 || n == 11 })
	if got := placeOf(t, receiver.Places(), mine); got.Lane != artifact.Live || got.HandedOut || time.Since(got.Since) > time.Minute {
		t.Errorf("place %+v, want a place in the live lane since just now", got)
	}
	if got := placeOf(t, receiver.Places(), ref(t, "demo/bulk", 0)); got.Lane != artifact.Bulk || got.Ahead > 2 {
		t.Errorf("the first in the bulk lane: %+v, want no more ahead than all before it in the stream", got)
	}

	k := consume(t, signer, queue.ConsumeConfig{Slots: 20})
	for range 17 {
		h := k.next(t)
		if h.Request().Ref == mine {
			eventually(t, "it is handed out", func() bool { got := placeOf(t, receiver.Places(), mine); return got.HandedOut && got.Ahead == 0 })
		}
		if err := h.Done(h.ctx); err != nil {
			t.Fatal(err)
		}
		close(h.finish)
	}
	if got := placeOf(t, receiver.Places(), mine); got != (queue.Place{}) {
		t.Errorf("after its work: %+v, want none", got)
	}
}

// TestPlacesWithoutAServer: a queue that is away is a transient fault.
func TestPlacesWithoutAServer(t *testing.T) {
	t.Parallel()
	server := queuetest.NewServer(t)
	client := queuetest.NewClient(t, server)
	enqueue(t, client, request(ref(t, "demo/app", 1), artifact.Bulk))
	places := client.Places()
	if got := placeOf(t, places, ref(t, "demo/app", 1)); got.Lane != artifact.Bulk {
		t.Errorf("place %+v, want one in the bulk lane", got)
	}
	client.Close()
	_, err := places.Place(t.Context(), ref(t, "demo/app", 1))
	wantFault(t, err, fault.Transient, fault.QueueUnavailable)
}
