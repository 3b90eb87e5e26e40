package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// DeadLetter is a request that was given up, as the stream of dead letters keeps it.
type DeadLetter struct {
	Version int `json:"v"`
	// Reason is why: a fault.Reason. LastError says what exactly failed, without anything secret; letters of older programs have
	// it in the detail of the event alone.
	Reason    string `json:"reason"`
	LastError string `json:"last_error,omitempty"`
	// Event is the encoded event of kind dead; nothing for a request of which not even the reference could be read.
	Event json.RawMessage `json:"event,omitempty"`
	// Request is the request exactly as it was stored, decodable or not; at most its first 256 KiB.
	Request []byte `json:"request"`
	// Subject is where the request was stored.
	Subject   string    `json:"subject"`
	Attempts  uint64    `json:"attempts"`
	FirstSeen time.Time `json:"first_seen"`
	BuriedAt  time.Time `json:"buried_at"`
}

func (c *Client) storeLetter(ctx context.Context, subject string, letter DeadLetter) error {
	letter.Version = artifact.Version
	data, err := json.Marshal(letter)
	if err != nil {
		return fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("encoding a dead letter: %w", err))
	}
	if _, err := c.publish(ctx, streamDead, subject, data); err != nil {
		return fmt.Errorf("storing a dead letter: %w", err)
	}
	return nil
}

// DeadSince says when the dead letter of a reference was written; found is false if there is none.
func (c *Client) DeadSince(ctx context.Context, ref artifact.Ref) (since time.Time, found bool, err error) {
	msg, err := c.lastMessage(ctx, streamDead, DeadSubject(c.cfg.Harbor, ref))
	if err != nil || msg == nil {
		return time.Time{}, false, err
	}
	return msg.Time, true, nil
}

// ClearDead removes the dead letter of a reference, if there is one. Repeating it is safe.
func (c *Client) ClearDead(ctx context.Context, ref artifact.Ref) error {
	if c.cfg.Imported {
		return c.clearLast(ctx, ref)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.handle(ctx, streamDead)
	if err == nil {
		err = handle.Purge(ctx, jetstream.WithPurgeSubject(DeadSubject(c.cfg.Harbor, ref)))
	}
	if err != nil {
		c.handles.forget(streamDead)
		return askFault(fmt.Errorf("removing a dead letter: %w", err))
	}
	return nil
}

// lastMessage gives the newest message of a subject, nil if there is none. The stream's leader answers, so that what was
// acknowledged before is seen.
func (c *Client) lastMessage(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	return c.fetch(ctx, stream, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetLastMsgForSubject(ctx, subject)
	})
}

// fetch asks a stream for a message, nil if there is none.
func (c *Client) fetch(
	ctx context.Context, stream string, get func(context.Context, jetstream.Stream) (*jetstream.RawStreamMsg, error),
) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.handle(ctx, stream)
	if err != nil {
		return nil, askFault(fmt.Errorf("asking stream %s: %w", stream, err))
	}
	msg, err := get(ctx, handle)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // "there is none" is an answer, and the pointer says it
	}
	if err != nil {
		c.handles.forget(stream)
		return nil, askFault(fmt.Errorf("asking stream %s: %w", stream, err))
	}
	return msg, nil
}

// askFault gives an error of JetStream's API its kind.
func askFault(err error) error {
	if errors.Is(err, context.Canceled) {
		return fault.New(fault.Transient, fault.Canceled, err)
	}
	return fault.New(fault.Transient, fault.QueueUnavailable, err)
}
