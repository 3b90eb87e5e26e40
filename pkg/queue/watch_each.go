package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// lastsAtOnce is how many entries are asked for at once when all are read.
const lastsAtOnce = 16

// errMadeAnew says that a stream is not the one that is being read.
var errMadeAnew = errors.New("the stream was made anew, or went back")

// readEach does what read does without a consumer: it asks the leader for each entry, and then for what follows, whenever it
// hears that something does, and every few seconds. last is a sequence that the bucket had reached before.
func (w *watch) readEach(ctx context.Context, filter string, last uint64, created time.Time) error {
	session, end := untilClosed(ctx, w.client.nextReconnect())
	defer end()
	heard, err := w.client.listenFor(storedPrefix + storedPolicies + "." + w.client.cfg.Harbor + ".>")
	if err != nil {
		return err
	}
	defer heard.close()
	entries, err := w.client.policyEntries(session, filter)
	if err != nil {
		return err
	}
	seen := map[place]bool{}
	for _, msg := range entries {
		if at, found := w.take(msg); found {
			seen[at] = true
		}
	}
	w.complete(seen, last)
	// What was stored while the entries were read is read again, and is known.
	for position := last; ; {
		if err := heard.await(session, position); err != nil {
			return err
		}
		if position, err = w.readOn(session, filter, position); err != nil {
			return err
		}
		now, _, still, err := w.client.policyState(session, filter)
		if err != nil {
			return err
		}
		if now < position || !still.Equal(created) {
			return errMadeAnew
		}
	}
}

// readOn applies everything behind a position, and gives the one that it has come to.
func (w *watch) readOn(ctx context.Context, filter string, position uint64) (uint64, error) {
	for {
		msg, err := w.client.nextMessage(ctx, streamPolicy, filter, position+1)
		if err != nil || msg == nil {
			return position, err
		}
		w.take(ofRaw(msg))
		position = msg.Sequence
	}
}

// policyEntries reads all entries from the leader, in their order. One that is changed meanwhile may be there with its later value.
func (c *Client) policyEntries(ctx context.Context, filter string) ([]stored, error) {
	subjects, err := c.subjectsOf(ctx, streamPolicy, filter)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([]*jetstream.RawStreamMsg, len(subjects))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range lastsAtOnce {
		workers.Go(func() {
			for asking.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(subjects)) {
					return
				}
				msg, err := c.lastMessage(asking, streamPolicy, subjects[i])
				if err != nil {
					cancel(err)
				}
				found[i] = msg
			}
		})
	}
	workers.Wait()
	if err := context.Cause(asking); err != nil {
		return nil, err
	}
	entries := make([]stored, 0, len(found))
	for _, msg := range found {
		if msg != nil {
			entries = append(entries, ofRaw(msg))
		}
	}
	slices.SortFunc(entries, func(a, b stored) int { return cmp.Compare(a.seq, b.seq) })
	return entries, nil
}

// subjectsOf lists the subjects of which a stream holds messages.
func (c *Client) subjectsOf(ctx context.Context, stream, filter string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("asking stream %s: %w", stream, err)
	}
	info, err := handle.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, fmt.Errorf("listing the subjects of stream %s: %w", stream, err)
	}
	return slices.Collect(maps.Keys(info.State.Subjects)), nil
}

func ofRaw(msg *jetstream.RawStreamMsg) stored {
	return stored{subject: msg.Subject, seq: msg.Sequence, at: msg.Time, header: msg.Header, data: msg.Data}
}
