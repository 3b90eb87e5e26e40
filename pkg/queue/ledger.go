package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// batchSize and batchTime bound a batch of events.
	batchSize = 1000
	batchTime = 100 * time.Millisecond
	// batchGap ends a batch when no further event has come for so long.
	batchGap = 2 * time.Millisecond
	// tailIdle is when the server forgets the consumer of a reader that has vanished.
	tailIdle = time.Minute
)

// LastReceived gives the newest event of kind received of a reference, with its sequence; 0 if the ledger has none. It
// sees every event whose Record returned before.
func (c *Client) LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, event artifact.Event, err error) {
	msg, err := c.lastMessage(ctx, streamLedger, LedgerSubject(c.cfg.Harbor, artifact.Received, ref))
	if err != nil || msg == nil {
		return 0, artifact.Event{}, err
	}
	event, err = artifact.DecodeEvent(msg.Data)
	if err != nil {
		c.metrics.undecodable.WithLabelValues(streamLedger).Inc()
		kind, reason := fault.Permanent, fault.Malformed
		if errors.Is(err, artifact.ErrNewerVersion) {
			// A newer receiver is there already: the work is left to a newer signer, or to this one after its upgrade.
			kind, reason = fault.Transient, fault.NewerVersion
		}
		return msg.Sequence, artifact.Event{}, fault.New(kind, reason, fmt.Errorf("event %d: %w", msg.Sequence, err))
	}
	return msg.Sequence, event, nil
}

// LedgerSeq is the sequence of the ledger's newest event, 0 if it never had one.
func (c *Client) LedgerSeq(ctx context.Context) (uint64, error) {
	_, last, _, err := c.LedgerState(ctx)
	return last, err
}

// LedgerState gives the first and last sequence of the ledger and when it was created. A reader that knows more than
// lastSeq, or another time of creation, has read another ledger.
func (c *Client) LedgerState(ctx context.Context) (firstSeq, lastSeq uint64, created time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.js.Stream(ctx, streamLedger)
	if err != nil {
		return 0, 0, time.Time{}, askFault(fmt.Errorf("asking stream %s: %w", streamLedger, err))
	}
	info := handle.CachedInfo()
	return info.State.FirstSeq, info.State.LastSeq, info.Created, nil
}

// Events hands this harbor's events with a sequence above after to fn, in order and without gaps, and goes on with new
// ones as they come, across lost connections and restarts of the server, until ctx ends or fn fails; it returns that
// error. A batch holds 1 to 1000 entries; an event waits at most a few milliseconds for others.
//
// What is malformed or of a newer version is logged and counted, and handed over as an entry with a zero event, so that
// the reader's position moves on. Nothing is acknowledged: the position is the reader's own, a crash before fn has stored
// it repeats the batch.
func (c *Client) Events(ctx context.Context, after uint64, fn func(ctx context.Context, entries []artifact.Entry) error) error {
	t := &tail{client: c, position: after, fn: fn, retry: newBackoff()}
	for {
		err := t.read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case t.failed != nil:
			return t.failed
		}
		c.log.Warn().Err(err).Uint64("after", t.position).Msg("reading the ledger was interrupted, trying again")
		if err := t.retry.wait(ctx); err != nil {
			return err
		}
	}
}

// tail is one reader of the ledger. It belongs to the goroutine that called Events.
type tail struct {
	client   *Client
	position uint64 // of the last entry that fn took
	fn       func(ctx context.Context, entries []artifact.Entry) error
	failed   error // of fn
	retry    *backoff
}

// read makes a consumer behind the position and reads until something breaks. It starts anew after each reconnect,
// because the consumer may be gone, and after each gap, because what was on its way to a lost connection does not come
// again: the consumer knows no acknowledgements.
func (t *tail) read(ctx context.Context) error {
	reconnected := t.client.nextReconnect()
	setup, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := t.client.js.CreateConsumer(setup, streamLedger, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       t.position + 1,
		FilterSubject:     "ledger.v1." + t.client.cfg.Harbor + ".>",
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: tailIdle,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return fmt.Errorf("creating a consumer of the ledger: %w", err)
	}
	defer t.forget(ctx, consumer.CachedInfo().Name)
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(2*batchSize), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("pulling from the ledger: %w", err)
	}
	defer messages.Stop()

	session, end := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-reconnected:
			end()
		case <-session.Done():
		}
	})
	defer watcher.Wait()
	defer end()
	for next := uint64(1); ; {
		entries, err := t.batch(session, messages, &next)
		if len(entries) > 0 {
			if t.failed = t.fn(ctx, entries); t.failed != nil {
				return t.failed
			}
			t.position = entries[len(entries)-1].Seq
			t.retry.reset()
		}
		if err != nil {
			return err
		}
	}
}

// batch waits for an entry and takes what comes right behind it. next is the consumer's own number of the next message.
// Entries that were read before an error are good.
func (t *tail) batch(ctx context.Context, messages jetstream.MessagesContext, next *uint64) ([]artifact.Entry, error) {
	var entries []artifact.Entry
	var deadline time.Time
	wait := jetstream.NextContext(ctx)
	for len(entries) < batchSize {
		if len(entries) > 0 {
			left := time.Until(deadline)
			if left <= 0 {
				break
			}
			wait = jetstream.NextMaxWait(min(batchGap, left))
		}
		msg, err := messages.Next(wait)
		if errors.Is(err, nats.ErrTimeout) && len(entries) > 0 {
			break
		}
		if err != nil {
			return entries, err
		}
		metadata, err := msg.Metadata()
		if err != nil {
			return entries, err
		}
		if metadata.Sequence.Consumer != *next {
			return entries, fmt.Errorf("message %d of the consumer instead of %d", metadata.Sequence.Consumer, *next)
		}
		*next++
		if len(entries) == 0 {
			deadline = time.Now().Add(batchTime)
		}
		entries = append(entries, t.client.entry(msg, metadata.Sequence.Stream))
	}
	return entries, nil
}

func (c *Client) entry(msg jetstream.Msg, seq uint64) artifact.Entry {
	event, err := artifact.DecodeEvent(msg.Data())
	if err != nil {
		c.metrics.undecodable.WithLabelValues(streamLedger).Inc()
		c.log.Error().Err(err).Uint64("seq", seq).Msg("event cannot be read, passing over it")
		return artifact.Entry{Seq: seq}
	}
	return artifact.Entry{Seq: seq, Event: event}
}

// forget removes a consumer that is no longer read. Without it, the server does so after a minute.
func (t *tail) forget(ctx context.Context, name string) {
	if !t.client.nats.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := t.client.js.DeleteConsumer(ctx, streamLedger, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.client.log.Debug().Err(err).Msg("cannot remove a consumer of the ledger")
	}
}
