package queue

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// NewestOf gives the newest event of a kind, of any kind if that is empty; false if the ledger has none. What cannot be read comes
// as an entry with a zero event. It sees every event whose Record returned before.
//
// The error is a transient fault.
func (c *Client) NewestOf(ctx context.Context, kind artifact.Kind) (entry artifact.Entry, found bool, err error) {
	filter := c.ledgerFilter()
	if kind != "" {
		filter = "ledger.v1." + c.cfg.Harbor + "." + string(kind) + ".>"
	}
	msg, err := c.lastMessage(ctx, streamLedger, filter)
	if err != nil || msg == nil {
		return artifact.Entry{}, false, err
	}
	return c.past(stored{subject: msg.Subject, seq: msg.Sequence, data: msg.Data}), true, nil
}

// EventAt gives the event with a sequence; false if the ledger does not hold it, or it is another harbor's. What cannot be read comes as
// an entry with a zero event.
//
// The error is a transient fault.
func (c *Client) EventAt(ctx context.Context, seq uint64) (entry artifact.Entry, found bool, err error) {
	if seq == 0 {
		return artifact.Entry{}, false, nil // the server takes it for a mistake
	}
	msg, err := c.fetch(ctx, streamLedger, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetMsg(ctx, seq)
	})
	if err != nil || msg == nil || !strings.HasPrefix(msg.Subject, strings.TrimSuffix(c.ledgerFilter(), ">")) {
		return artifact.Entry{}, false, err
	}
	return c.past(stored{subject: msg.Subject, seq: msg.Sequence, data: msg.Data}), true, nil
}
