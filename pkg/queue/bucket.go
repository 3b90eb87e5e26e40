package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// operationHeader marks the messages of a key-value bucket that are no values, as NATS's own clients write them.
const (
	operationHeader = "KV-Operation"
	operationDelete = "DEL"
)

// isDeleted says whether a message of a bucket says that its entry was deleted.
func isDeleted(header nats.Header) bool { return header.Get(operationHeader) != "" }

// put stores a value of a bucket as the successor of the revision that is expected: 0 for none. An entry that was deleted
// is none as well. The error of a caller who was overtaken wraps policy.ErrConflict.
//
// The stream compares and stores in one step, so that of two who expect the same revision, one is refused.
func (c *Client) put(ctx context.Context, stream, subject string, value []byte, expect uint64) (revision uint64, err error) {
	revision, err = c.swap(ctx, stream, &nats.Msg{Subject: subject, Data: value}, expect)
	if expect != 0 || !errors.Is(err, policy.ErrConflict) {
		return revision, err
	}
	msg, lastErr := c.lastMessage(ctx, stream, subject)
	if lastErr != nil {
		return 0, lastErr
	}
	if msg == nil || !isDeleted(msg.Header) {
		return 0, err
	}
	return c.swap(ctx, stream, &nats.Msg{Subject: subject, Data: value}, msg.Sequence)
}

// remove marks an entry of a bucket as deleted, under the rules of put. There may be none.
func (c *Client) remove(ctx context.Context, stream, subject string, expect uint64) error {
	last, err := c.lastMessage(ctx, stream, subject)
	if err != nil {
		return err
	}
	if last == nil || isDeleted(last.Header) {
		return nil
	}
	msg := &nats.Msg{Subject: subject, Header: nats.Header{}}
	msg.Header.Set(operationHeader, operationDelete)
	_, err = c.swap(ctx, stream, msg, expect)
	return err
}

func (c *Client) swap(ctx context.Context, stream string, msg *nats.Msg, expect uint64) (revision uint64, err error) {
	ack, err := c.publishMsg(ctx, stream, msg, jetstream.WithExpectLastSequencePerSubject(expect))
	if errors.Is(err, errOvertaken) {
		return 0, fault.New(fault.Transient, fault.ConcurrentWriter, fmt.Errorf("expected revision %d: %w", expect, policy.ErrConflict))
	}
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// tooLarge is the fault of a value beyond its limit; nil if it is within.
func tooLarge(size, limit int) error {
	if size <= limit {
		return nil
	}
	return fault.Newf(fault.Permanent, fault.TooLarge, "the value has %d bytes, at most %d are allowed", size, limit)
}
