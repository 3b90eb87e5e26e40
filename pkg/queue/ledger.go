package queue

import (
	"context"
	"errors"
	"fmt"
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
)

// LastReceived gives the newest event of kind received of a reference, with its sequence; 0 if the ledger has none. It
// sees every event whose Record returned before.
func (c *Client) LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, event artifact.Event, err error) {
	msg, err := c.lastMessage(ctx, streamLedger, LedgerSubject(c.cfg.Harbor, artifact.Event{Kind: artifact.Received, Ref: ref}))
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

// LastQueued gives the sequence of the newest event of kind queued of a reference, 0 if the ledger has none: no index was
// met that names it. It sees every event whose Record returned before, and does not read the event.
func (c *Client) LastQueued(ctx context.Context, ref artifact.Ref) (seq uint64, err error) {
	msg, err := c.lastMessage(ctx, streamLedger, LedgerSubject(c.cfg.Harbor, artifact.Event{Kind: artifact.Queued, Ref: ref}))
	if err != nil || msg == nil {
		return 0, err
	}
	return msg.Sequence, nil
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

// read makes a consumer behind the position and reads until something breaks.
func (t *tail) read(ctx context.Context) error {
	if t.client.cfg.Imported {
		return t.readPages(ctx)
	}
	return t.client.follow(ctx, streamLedger, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   t.position + 1,
		FilterSubject: t.client.ledgerFilter(),
	}, func(session context.Context, from *gapless) error {
		for {
			entries, err := t.batch(session, from)
			if handErr := t.hand(ctx, entries); handErr != nil {
				return handErr
			}
			if err != nil {
				return err
			}
		}
	})
}

// readPages does the same without a consumer. Entries that were read before an error are good.
func (t *tail) readPages(ctx context.Context) error {
	session, end := untilClosed(ctx, t.client.nextReconnect())
	defer end()
	from, err := t.client.openPages(streamLedger, t.client.ledgerFilter(), storedPrefix+t.client.ledgerFilter())
	if err != nil {
		return err
	}
	defer from.close()
	for {
		page, more, err := from.next(session, t.position+1)
		entries := make([]artifact.Entry, 0, len(page))
		for _, m := range page {
			entries = append(entries, t.client.entry(m.subject, m.data, m.seq))
		}
		if handErr := t.hand(ctx, entries); handErr != nil {
			return handErr
		}
		if err == nil && !more {
			err = from.await(session, t.position)
		}
		if err != nil {
			return err
		}
	}
}

// hand gives entries to whoever reads, and moves the position once they were taken.
func (t *tail) hand(ctx context.Context, entries []artifact.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if t.failed = t.fn(ctx, entries); t.failed != nil {
		return t.failed
	}
	t.position = entries[len(entries)-1].Seq
	t.retry.reset()
	return nil
}

func (c *Client) ledgerFilter() string { return "ledger.v1." + c.cfg.Harbor + ".>" }

// batch waits for an entry and takes what comes right behind it. Entries that were read before an error are good.
func (t *tail) batch(ctx context.Context, from *gapless) ([]artifact.Entry, error) {
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
		msg, metadata, err := from.Next(wait)
		if errors.Is(err, nats.ErrTimeout) && len(entries) > 0 {
			break
		}
		if err != nil {
			return entries, err
		}
		if len(entries) == 0 {
			deadline = time.Now().Add(batchTime)
		}
		entries = append(entries, t.client.entry(msg.Subject(), msg.Data(), metadata.Sequence.Stream))
	}
	return entries, nil
}

// entry reads what the ledger holds. Who may record what is a matter of subjects: an event that says something else than
// the subject on which it came is not believed.
func (c *Client) entry(subject string, data []byte, seq uint64) artifact.Entry {
	event, err := artifact.DecodeEvent(data)
	if err == nil && LedgerSubject(c.cfg.Harbor, event) != subject {
		err = fmt.Errorf("event of kind %.40q on subject %q", event.Kind, subject)
	}
	if err != nil {
		c.metrics.undecodable.WithLabelValues(streamLedger).Inc()
		c.log.Error().Err(err).Uint64("seq", seq).Msg("event cannot be read, passing over it")
		return artifact.Entry{Seq: seq, Subject: subject, Data: data}
	}
	return artifact.Entry{Seq: seq, Event: event, Subject: subject, Data: data}
}
