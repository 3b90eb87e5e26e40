package queue_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/queue"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ref makes a reference that differs for each n.
func ref(t *testing.T, repository string, n int) artifact.Ref {
	t.Helper()
	r, err := artifact.NewRef(repository, fmt.Sprintf("sha256:%064x", n))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(r artifact.Ref, lane artifact.Lane) artifact.Request {
	return artifact.Request{
		Ref: r, Lane: lane, Origin: artifact.OriginWebhook, CorrelationID: "c-1", RequestedAt: time.Unix(1_700_000_000, 0).UTC(),
	}
}

func event(r artifact.Ref, kind artifact.Kind, id string) artifact.Event {
	return artifact.Event{
		ID: id, Kind: kind, Ref: r, Time: time.Unix(1_700_000_000, 0).UTC(), Origin: artifact.OriginWebhook, CorrelationID: "c-1",
	}
}

// newLogger writes all levels.
func newLogger(w io.Writer) zerolog.Logger { return zerolog.New(w).Level(zerolog.TraceLevel) }

func enqueue(t *testing.T, c *queue.Client, r artifact.Request) (duplicate bool) {
	t.Helper()
	duplicate, err := c.Enqueue(t.Context(), r)
	if err != nil {
		t.Fatalf("Enqueue(%s) = %v", r.Ref, err)
	}
	return duplicate
}

func record(t *testing.T, c *queue.Client, e artifact.Event) uint64 {
	t.Helper()
	seq, err := c.Record(t.Context(), e)
	if err != nil {
		t.Fatalf("Record(%s) = %v", e.ID, err)
	}
	return seq
}

// wantFault checks the kind and reason of an error.
func wantFault(t *testing.T, err error, kind fault.Kind, reasons ...fault.Reason) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %s %v", kind, reasons)
	}
	got := fault.Of(err)
	for _, reason := range reasons {
		if got.Kind == kind && got.Reason == reason {
			return
		}
	}
	t.Errorf("got %s %s (%v), want %s %v", got.Kind, got.Reason, err, kind, reasons)
}

func wantErrorWith(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %v, want one with %q", err, part)
	}
}

// consumer is a running Consume whose deliveries the test decides.
type consumer struct {
	deliveries chan held
	stop       context.CancelFunc // ends Consume's context
	release    chan struct{}      // closed at the end of the test, to let all handlers return
	stopped    chan struct{}      // closed when Consume has returned
}

// held is a delivery in a handler that waits for the test.
type held struct {
	*queue.Delivery
	ctx    context.Context //nolint:containedctx // the handler's context is what some tests look at
	finish chan struct{}   // closed to let the handler return
}

// consume starts a consumer and stops it at the end of the test. Without a handler in cfg, deliveries go to the test.
func consume(t *testing.T, c *queue.Client, cfg queue.ConsumeConfig) *consumer {
	t.Helper()
	return startConsumer(t, c.Consume, cfg)
}

func startConsumer(t *testing.T, run func(context.Context, queue.ConsumeConfig) error, cfg queue.ConsumeConfig) *consumer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	k := &consumer{
		deliveries: make(chan held, 1000), stop: cancel, release: make(chan struct{}), stopped: make(chan struct{}),
	}
	if cfg.Handle == nil {
		cfg.Handle = func(ctx context.Context, d *queue.Delivery) {
			h := held{Delivery: d, ctx: ctx, finish: make(chan struct{})}
			k.deliveries <- h
			select {
			case <-h.finish:
			case <-k.release:
			case <-ctx.Done():
			}
		}
	}
	go func() {
		defer close(k.stopped)
		if err := run(ctx, cfg); err != nil {
			t.Errorf("Consume = %v", err)
		}
	}()
	t.Cleanup(func() {
		k.stop()
		close(k.release)
		<-k.stopped
	})
	return k
}

// next waits for a delivery.
func (k *consumer) next(t *testing.T) held {
	t.Helper()
	return receive(t, k.deliveries, "a delivery")
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
		panic("unreachable")
	}
}

// eventually repeats a check until it holds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !check() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited %s until %s", patience, what)
		}
	}
}
