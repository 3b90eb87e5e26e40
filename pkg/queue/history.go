package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// api is under what prefix this client asks JetStream.
func (c *Client) api() string {
	if c.cfg.Imported {
		return importedAPI
	}
	return strings.TrimSuffix(jetstream.DefaultAPIPrefix, ".")
}

// History gives the newest events of a reference, at most so many, newest first, and says whether the ledger holds older ones. What
// cannot be read comes as an entry with a zero event. It sees every event whose Record returned before, unless a replica that lags
// behind answers. It is for people who ask about one manifest: it reads all events of it.
//
// The error is a transient fault.
func (c *Client) History(ctx context.Context, ref artifact.Ref, limit int) (newest []artifact.Entry, more bool, err error) {
	if ref.IsZero() || limit < 1 {
		return nil, false, fault.New(fault.Permanent, fault.Malformed, errors.New("reading the history of nothing"))
	}
	// The kind stands where any is taken: one filter for all events of the reference.
	filter := LedgerSubject(c.cfg.Harbor, artifact.Event{Kind: "*", Ref: ref})
	from := &pages{client: c, stream: streamLedger, filter: filter, inbox: c.nats.NewInbox()}
	if from.answers, err = c.nats.SubscribeSync(from.inbox); err != nil {
		return nil, false, askFault(fmt.Errorf("reading the history: %w", err))
	}
	defer func() { _ = from.answers.Unsubscribe() }() // Closed with the connection otherwise.
	var last []artifact.Entry
	for position, going := uint64(0), true; going; {
		var page []stored
		if page, going, err = from.next(ctx, position+1); err != nil {
			return nil, false, askFault(fmt.Errorf("reading the history: %w", err))
		}
		for _, m := range page {
			last = append(last, c.past(m))
			position = m.seq
		}
		if len(last) > limit {
			last, more = slices.Clone(last[len(last)-limit:]), true
		}
	}
	slices.Reverse(last)
	return last, more, nil
}

// past reads an event as the reader of all events does, which has counted and logged before what cannot be read.
func (c *Client) past(m stored) artifact.Entry {
	entry := artifact.Entry{Seq: m.seq, Subject: m.subject, Data: m.data}
	if event, err := artifact.DecodeEvent(m.data); err == nil && LedgerSubject(c.cfg.Harbor, event) == m.subject {
		entry.Event = event
	}
	return entry
}
