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
	// codeStoreFailed is the error code of three different answers, told apart by their description alone.
	codeStoreFailed = jetstream.ErrorCode(10077)
	// duplicateDescription is the description of code 10077 that says that a message of the subject is stored. It is given
	// even if the stream is full as well. A test pins it against the embedded server.
	duplicateDescription = "maximum messages per subject exceeded"
	// codeInsufficientResources says that the server's store is full.
	codeInsufficientResources = jetstream.ErrorCode(10023)
	// codeStorageExceeded and codeAccountExceeded say that the account's share of the store is full.
	codeStorageExceeded = jetstream.ErrorCode(10047)
	codeAccountExceeded = jetstream.ErrorCode(10002)
)

// errDuplicate says that a message of the same subject is stored already.
var errDuplicate = errors.New(duplicateDescription)

// errOvertaken says that the last message of the subject is not the one that a publish was to follow.
var errOvertaken = errors.New("the last message of the subject is another one")

// answered says whether the server took a publish or refused it as it should: nothing is broken.
func answered(err error) bool {
	return err == nil || errors.Is(err, errDuplicate) || errors.Is(err, errOvertaken)
}

// Record appends an event to the ledger and gives its sequence. An event whose id was recorded within the last 10 minutes
// is not stored again: the sequence is that of the first. An event about a project is never stored twice, however long ago
// its id was recorded, as long as the ledger holds it.
//
// A crash or an error before the answer leaves open whether the event is stored; recording it again is safe.
func (c *Client) Record(ctx context.Context, event artifact.Event) (seq uint64, err error) {
	data, err := artifact.EncodeEvent(event)
	if err != nil {
		return 0, fault.New(fault.Permanent, fault.Malformed, err)
	}
	subject, opts := LedgerSubject(c.cfg.Harbor, event), []jetstream.PublishOpt{jetstream.WithMsgID(event.ID)}
	if event.Kind.OfProject() {
		// The subject is the event's own: whatever it holds is this event.
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(0))
	}
	ack, err := c.publish(ctx, streamLedger, subject, data, opts...)
	if errors.Is(err, errOvertaken) {
		return c.recorded(ctx, subject)
	}
	if err == nil && ack.Duplicate {
		return c.recordedAs(ctx, ack.Sequence, subject, data)
	}
	if err != nil {
		return 0, fmt.Errorf("recording an event: %w", err)
	}
	return ack.Sequence, nil
}

// recordedAs gives the sequence of an event whose id the ledger knows. Ids can be foreseen, and the server compares nothing else:
// whoever may write any event could use up the ids of others. So what has the id must be of the same subject, or the event is
// recorded without one.
func (c *Client) recordedAs(ctx context.Context, seq uint64, subject string, data []byte) (uint64, error) {
	msg, err := c.fetch(ctx, streamLedger, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetMsg(ctx, seq)
	})
	if err != nil {
		return 0, fmt.Errorf("recording an event: %w", err)
	}
	if msg != nil && msg.Subject == subject {
		return seq, nil
	}
	c.log.Error().Uint64("seq", seq).Str("subject", subject).Msg("the id of an event is that of another one in the ledger, recording it without")
	ack, err := c.publish(ctx, streamLedger, subject, data)
	if err != nil {
		return 0, fmt.Errorf("recording an event: %w", err)
	}
	return ack.Sequence, nil
}

// recorded gives the sequence of an event that the ledger holds already.
func (c *Client) recorded(ctx context.Context, subject string) (uint64, error) {
	msg, err := c.lastMessage(ctx, streamLedger, subject)
	if err != nil {
		return 0, fmt.Errorf("recording an event: %w", err)
	}
	if msg == nil {
		return 0, fault.Newf(fault.Transient, fault.QueueUnavailable, "recording an event: it was recorded before, and cannot be read")
	}
	return msg.Sequence, nil
}

// Enqueue puts a request into the queue. duplicate says that one of the same reference and lane is there already; it may
// be waiting or in work, and may be this request's own earlier attempt. Both are success.
//
// A crash or an error before the answer leaves open whether the request is stored; enqueueing it again is safe.
func (c *Client) Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error) {
	data, err := artifact.EncodeRequest(request)
	if err != nil {
		return false, fault.New(fault.Permanent, fault.Malformed, err)
	}
	// No message id: within its window, a later push would be swallowed by an earlier, finished one.
	_, err = c.publish(ctx, streamSign, SignSubject(c.cfg.Harbor, request.Lane, request.Ref), data)
	if errors.Is(err, errDuplicate) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueueing a request: %w", err)
	}
	return false, nil
}

// publish makes one attempt and waits for JetStream's answer, at most for 5 seconds. The error is a fault, errDuplicate
// or errOvertaken.
func (c *Client) publish(
	ctx context.Context, stream, subject string, data []byte, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	return c.publishMsg(ctx, stream, &nats.Msg{Subject: subject, Data: data}, opts...)
}

// publishMsg is publish for a message with headers.
func (c *Client) publishMsg(
	ctx context.Context, stream string, msg *nats.Msg, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ack, err := c.send(ctx, msg, append(opts, jetstream.WithExpectStream(stream), jetstream.WithRetryAttempts(0))...)
	c.metrics.publishSeconds.WithLabelValues(stream).Observe(time.Since(started).Seconds())
	err = publishFault(err)
	if !answered(err) {
		c.metrics.publishErrors.WithLabelValues(stream, string(fault.Of(err).Reason)).Inc()
	}
	c.writes.note(stream, err)
	return ack, err
}

func (c *Client) send(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	// nats.go would keep the message for the next connection and let the caller wait for it.
	if !c.nats.IsConnected() {
		return nil, nats.ErrDisconnected
	}
	return c.js.PublishMsg(ctx, msg, opts...)
}

// publishFault gives an error of a publish its kind.
func publishFault(err error) error {
	if err == nil {
		return nil
	}
	if apiErr, found := errors.AsType[*jetstream.APIError](err); found {
		switch apiErr.ErrorCode {
		case codeStoreFailed:
			if apiErr.Description == duplicateDescription {
				return errDuplicate
			}
			return fault.New(fault.Transient, fault.QueueFull, err)
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return errOvertaken
		case codeInsufficientResources, codeStorageExceeded, codeAccountExceeded:
			return fault.New(fault.Transient, fault.QueueFull, err)
		case jetstream.JSErrCodeStreamMessageExceedsMaximum:
			return fault.New(fault.Permanent, fault.TooLarge, err)
		default:
			return fault.New(fault.Transient, fault.QueueUnavailable, err)
		}
	}
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.New(fault.Permanent, fault.TooLarge, err)
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Transient, fault.Canceled, err)
	}
	return fault.New(fault.Transient, fault.QueueUnavailable, err)
}

// refusalMemory is how long a refused publish counts against [Client.Writable]. It must end, because a program that is
// not ready gets no traffic by which it could find out.
const refusalMemory = 5 * time.Second

// writeState remembers which streams refused their last publish. The zero value is ready.
type writeState struct {
	mu      sync.Mutex
	refused map[string]refusal // guarded by mu; by stream
}

type refusal struct {
	err  error
	when time.Time
}

func (w *writeState) note(stream string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if answered(err) {
		delete(w.refused, stream)
		return
	}
	if reason := fault.Of(err).Reason; reason != fault.QueueFull && reason != fault.QueueUnavailable {
		return
	}
	if w.refused == nil {
		w.refused = map[string]refusal{}
	}
	w.refused[stream] = refusal{err: err, when: time.Now()}
}

func (w *writeState) last(stream string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, found := w.refused[stream]; found && time.Since(r.when) < refusalMemory {
		return r.err
	}
	return nil
}

// Writable says whether a push would be stored now, as far as can be told without storing something: there is a
// connection, the streams of events and requests answer, have a leader and are not at their own limit of bytes, neither
// refused its last publish within the last seconds, and the embedded server, if there is one, reports no broken stream and
// has room. It costs two requests.
func (c *Client) Writable(ctx context.Context) error {
	if !c.nats.IsConnected() {
		return fault.New(fault.Transient, fault.QueueUnavailable, nats.ErrDisconnected)
	}
	if err := c.serverWritable(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, name := range []string{streamLedger, streamSign} {
		handle, err := c.js.Stream(ctx, name)
		if err != nil {
			return fault.Newf(fault.Transient, fault.QueueUnavailable, "asking for stream %s: %w", name, err)
		}
		if cluster := handle.CachedInfo().Cluster; cluster != nil && cluster.Leader == "" {
			return fault.Newf(fault.Transient, fault.QueueUnavailable, "stream %s has no leader", name)
		}
		if err := roomLeft(handle.CachedInfo()); err != nil {
			return err
		}
		if err := c.writes.last(name); err != nil {
			return fmt.Errorf("last publish to stream %s: %w", name, err)
		}
	}
	return nil
}

// fullSlack is how far below its limit of bytes a stream counts as full: the room that a large event of this program takes.
// Without it, a stream whose rest holds no event would be called writable for ever.
const fullSlack = 4 << 10

// roomLeft compares a stream with its own limit of bytes. Where it has none, the limit of the store is what counts.
func roomLeft(info *jetstream.StreamInfo) error {
	limit := info.Config.MaxBytes
	if limit <= 0 || info.State.Bytes+fullSlack <= uint64(limit) {
		return nil
	}
	return fault.Newf(fault.Transient, fault.QueueFull, "stream %s holds %d bytes of at most %d", info.Config.Name, info.State.Bytes, limit)
}

func (c *Client) serverWritable() error {
	if c.cfg.Server == nil {
		return nil
	}
	if err := c.cfg.Server.Healthy(); err != nil {
		return fault.New(fault.Transient, fault.QueueUnavailable, err)
	}
	used, limit, err := c.cfg.Server.Storage()
	if err != nil {
		return fault.New(fault.Transient, fault.QueueUnavailable, err)
	}
	if c.cfg.Server.Full() {
		return fault.Newf(fault.Transient, fault.QueueFull, "too little is free of the volume of the store")
	}
	if limit > 0 && used >= limit {
		return fault.Newf(fault.Transient, fault.QueueFull, "the store holds %d bytes of at most %d", used, limit)
	}
	return nil
}
