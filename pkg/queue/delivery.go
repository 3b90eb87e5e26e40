package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// verdict is how far a delivery has come.
type verdict int

const (
	undecided verdict = iota
	attempted         // an acknowledgement was tried and failed; whether it arrived is open
	decided           // the server has it, or will get it with what nats.go sends next
)

// errDecided says that a delivery was acknowledged before. It is a bug of the caller.
var errDecided = errors.New("the delivery was acknowledged already")

// Delivery is one request, handed to one handler. Exactly one of [Delivery.Done], [Delivery.Retry] and [Delivery.Bury]
// must succeed before the handler returns. While the handler runs, the server is told that the request is worked on.
//
// A Delivery belongs to its handler; its methods are safe for concurrent use.
type Delivery struct {
	client   *Client
	msg      jetstream.Msg
	metadata *jetstream.MsgMetadata
	request  artifact.Request
	lane     artifact.Lane
	ackWait  time.Duration
	stopped  chan struct{} // closed when no more signs of life are to be sent
	done     sync.WaitGroup
	slots    *slots      // where claim holds a slot; nil without one
	claim    *claim      // set before the handler is called
	away     atomic.Bool // whether it has stepped aside

	mu      sync.Mutex
	verdict verdict // guarded by mu
	stop    bool    // guarded by mu; whether stopped is closed
}

// Request is what is asked for.
func (d *Delivery) Request() artifact.Request { return d.request }

// Attempts is how often the request was handed out, this time included: at least 1. Deliveries that were interrupted
// before a handler saw them count.
func (d *Delivery) Attempts() uint64 { return d.metadata.NumDelivered }

// Tries is how often the request was handed to a handler since it was last given back by Gate or Hold of the [ConsumeConfig], as
// far as this program knows, this time included: at least 1, and [Delivery.Attempts] for one that was always handed on. Whoever judges
// failures goes by it: what was held, or found no room to wait in, has not failed. It is forgotten when this program restarts, and
// other programs do not know of it.
func (d *Delivery) Tries() uint64 {
	if others := d.client.holds.get(d.key()) + d.client.ways.get(d.key()); others < d.Attempts() {
		return d.Attempts() - others
	}
	return 1
}

// isRetry says whether the request was tried before, as far as this program knows. One that gave way was.
func (d *Delivery) isRetry() bool { return d.Tries() > 1 || d.client.ways.get(d.key()) > 0 }

// FirstSeen is when the request was stored, by the server's clock.
func (d *Delivery) FirstSeen() time.Time { return d.metadata.Timestamp }

// Done removes the request and waits for the server's confirmation. After it, a new request of the same reference is
// stored.
//
// A crash before it leads to a redelivery, also one between sending and confirmation if the server did not get it. After
// it nothing is left to do. An error leaves open whether the server got it: Done may be called again, and a handler that
// returns instead gets the request again, if it is still there.
func (d *Delivery) Done(ctx context.Context) error {
	err := d.decide("done", func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return d.msg.DoubleAck(ctx)
	})
	if err == nil {
		d.client.holds.remove(d.key())
		d.client.ways.remove(d.key())
	}
	return err
}

// Retry gives the request back, to be handed out again after the delay; at once if it is 0. Until then it holds no slot,
// and other requests of the same reference are duplicates of it.
//
// It is not confirmed. A crash before it, or a loss on the way, leads to the same redelivery, after the ack wait.
func (d *Delivery) Retry(_ context.Context, delay time.Duration) error {
	return d.decide("retry", func() error {
		if delay <= 0 {
			return d.msg.Nak()
		}
		return d.msg.NakWithDelay(delay)
	})
}

// Bury moves the request into the dead letters, together with the event of kind dead that says why, replacing an older
// dead letter of the reference. It does not record the event in the ledger: the caller does that before.
//
// The dead letter is stored and confirmed before the request is removed. A crash before leads to a redelivery; a crash
// between leads to a redelivery as well, and to the same dead letter again; after it nothing is left to do. An error
// leaves the request in the queue, unless only the confirmation of its removal was lost.
func (d *Delivery) Bury(ctx context.Context, event artifact.Event) error {
	encoded, err := artifact.EncodeEvent(event)
	if err != nil {
		return fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("burying a request: %w", err))
	}
	letter := d.letter(event.Reason, event.Detail)
	letter.Event = encoded
	return d.bury(ctx, DeadSubject(d.client.cfg.Harbor, d.request.Ref), letter)
}

// maxLetterRequest is how much of a request a dead letter keeps: the letter must fit into a message whatever the request is.
const maxLetterRequest = 256 << 10

func (d *Delivery) letter(reason, lastError string) DeadLetter {
	stored := d.msg.Data()
	if len(stored) > maxLetterRequest {
		lastError = fmt.Sprintf("%s (of the %d bytes of the request, the first %d are kept)", lastError, len(stored), maxLetterRequest)
		stored = stored[:maxLetterRequest]
	}
	return DeadLetter{
		Reason: reason, LastError: lastError, Request: stored, Subject: d.msg.Subject(), Attempts: d.Attempts(),
		FirstSeen: d.FirstSeen().UTC(), BuriedAt: time.Now().UTC(),
	}
}

func (d *Delivery) bury(ctx context.Context, subject string, letter DeadLetter) error {
	return d.decide("bury", func() error {
		if err := d.client.storeLetter(ctx, subject, letter); err != nil {
			return err
		}
		// nats.go sends a termination without waiting for the confirmation that the server gives to any acknowledgement.
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		_, err := d.client.nats.RequestWithContext(ctx, d.msg.Reply(), []byte("+TERM "+letter.Reason))
		return err
	})
}

// decide runs an acknowledgement, at most one at a time, and stops the signs of life after it.
func (d *Delivery) decide(action string, send func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.verdict == decided {
		return fault.New(fault.Permanent, fault.Rejected, errDecided)
	}
	if err := send(); err != nil {
		d.verdict = attempted
		d.client.metrics.ackErrors.WithLabelValues(action).Inc()
		return ackFault(fmt.Errorf("acknowledging a request (%s): %w", action, err))
	}
	d.verdict = decided
	d.stopLocked()
	return nil
}

// ackFault keeps the fault that a failed publish carries.
func ackFault(err error) error {
	if _, found := errors.AsType[*fault.Error](err); found {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return fault.New(fault.Transient, fault.Canceled, err)
	}
	return fault.New(fault.Transient, fault.QueueUnavailable, err)
}

func (d *Delivery) state() verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.verdict
}

// keepAlive tells the server that the request is worked on, until the delivery is decided or ended: a request that waits
// for a slot or for a slow registry would be handed to somebody else otherwise. Lost signs are harmless, the next follows.
func (d *Delivery) keepAlive() {
	d.done.Go(func() {
		ticker := time.NewTicker(d.ackWait / 3)
		defer ticker.Stop()
		for {
			select {
			case <-d.stopped:
				return
			case <-ticker.C:
			}
			d.showLife()
		}
	})
}

// showLife sends one sign of life, never behind an acknowledgement: it would undo the delay of a retry.
func (d *Delivery) showLife() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop {
		return
	}
	if err := d.msg.InProgress(); err != nil {
		d.client.metrics.ackErrors.WithLabelValues("in_progress").Inc()
	}
}

// end stops the signs of life and waits for the goroutine that sends them.
func (d *Delivery) end() {
	d.mu.Lock()
	d.stopLocked()
	d.mu.Unlock()
	d.done.Wait()
}

func (d *Delivery) stopLocked() {
	if !d.stop {
		d.stop = true
		close(d.stopped)
	}
}

// giveBack returns an undecided delivery to the queue.
func (d *Delivery) giveBack(ctx context.Context, delay time.Duration) {
	if d.state() == decided {
		return
	}
	if err := d.Retry(ctx, delay); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		d.client.log.Warn().Err(err).Str("subject", d.msg.Subject()).Msg("cannot give a request back, it returns after the ack wait")
	}
}
