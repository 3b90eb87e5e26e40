package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// errWentBack says that the bucket of policies is older than what was read from it.
var errWentBack = errors.New("the bucket of policies is older than what this program has read from it, as after the restore of a backup: start this program again")

// WatchPolicies hands the entries of this harbor's bucket of policies to apply, one at a time: first all as they are, then,
// after loaded was called once, each change as it comes. When loaded is called, everything that was confirmed before
// the reading began has been applied. It goes on across lost connections, restarts of the server and a bucket that
// was made anew, until ctx ends, and returns the error of ctx.
//
// When it was interrupted, lost, which may be nil, is called, and loaded again once everything was read anew: what was confirmed in between may
// not be known.
//
// Revisions of an entry only grow. What changed several times while there was no connection comes once, as it is then; what
// a bucket that was made anew no longer holds comes as deleted, with a revision above its last one. Deleted entries have
// no value. A value that is too large to be one comes as something that cannot be decoded, so that its project's policy is
// unknown and not an older one. Entries of kinds that this program does not know are passed over.
//
// Another error means that the bucket went back, as when an older copy of it was restored: revisions that were seen would
// come again for other values. It is permanent, and the program has to start again.
func (c *Client) WatchPolicies(ctx context.Context, apply func(book.Entry), loaded, lost func()) error {
	w := &watch{client: c, apply: apply, loaded: loaded, lost: lost, known: map[place]uint64{}, retry: newBackoff()}
	watching, end := context.WithCancel(ctx)
	var connection sync.WaitGroup
	defer connection.Wait()
	defer end()
	connection.Go(func() { w.watchConnection(watching) })
	for {
		err := w.read(ctx)
		w.interrupted(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errWentBack):
			return fault.New(fault.Permanent, fault.Rejected, fmt.Errorf("watching the policies: %w", err))
		}
		c.log.Warn().Err(err).Msg("watching the policies was interrupted, trying again")
		if err := w.retry.wait(ctx); err != nil {
			return err
		}
	}
}

// watchConnection says at once that changes may be missed when the connection is lost: the reading itself notices only when there
// is another one.
func (w *watch) watchConnection(ctx context.Context) {
	for {
		disconnected := w.client.nextDisconnect()
		select {
		case <-ctx.Done():
			return
		case <-disconnected:
			w.interrupted(ctx)
		}
	}
}

// interrupted says once that changes may be missed.
func (w *watch) interrupted(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isLoaded || ctx.Err() != nil {
		return
	}
	w.isLoaded = false
	if w.lost != nil {
		w.lost()
	}
}

// place is where an entry is kept.
type place struct {
	kind    book.Kind
	project string
}

// watch is one call of WatchPolicies. It belongs to the goroutine that called it, but for what mu guards.
type watch struct {
	client *Client
	apply  func(book.Entry)
	loaded func()
	lost   func() // may be nil

	mu       sync.Mutex
	isLoaded bool // guarded by mu: loaded was called, and lost was not since

	known  map[place]uint64 // revisions that were applied
	newest uint64           // the highest of them
	retry  *backoff
}

// read applies all entries as they are and then each change, until something breaks.
func (w *watch) read(ctx context.Context) error {
	filter := policyPrefix + "." + w.client.cfg.Harbor + ".>"
	last, goal, created, err := w.client.policyState(ctx, filter)
	if err != nil {
		return err
	}
	if last < w.newest {
		return errWentBack
	}
	if w.client.cfg.Imported {
		return w.readEach(ctx, filter, last, created)
	}
	return w.client.follow(ctx, streamPolicy, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		FilterSubject: filter,
	}, func(session context.Context, from *gapless) error {
		seen := map[place]bool{}
		complete := false
		for position := uint64(0); ; {
			if !complete && position >= goal {
				complete = true
				w.complete(seen, last)
			}
			msg, metadata, err := from.Next(jetstream.NextContext(session))
			if err != nil {
				return err
			}
			position = metadata.Sequence.Stream
			if at, found := w.take(stored{
				subject: msg.Subject(), seq: position, at: metadata.Timestamp, header: msg.Headers(), data: msg.Data(),
			}); found && !complete {
				seen[at] = true
			}
		}
	})
}

// policyState asks the stream's leader how far it is: the sequence of its last message, and the one of the last message of
// this harbor, 0 if there is none, and when it was created. Whoever reads up to that one has read everything that was confirmed before, also where a
// replica answers that lags behind.
func (c *Client) policyState(ctx context.Context, filter string) (last, goal uint64, created time.Time, err error) {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.js.Stream(asking, streamPolicy)
	if err != nil {
		return 0, 0, time.Time{}, fmt.Errorf("asking stream %s: %w", streamPolicy, err)
	}
	msg, err := c.lastMessage(ctx, streamPolicy, filter)
	if err != nil {
		return 0, 0, time.Time{}, err
	}
	if msg != nil {
		goal = msg.Sequence
	}
	info := handle.CachedInfo()
	return info.State.LastSeq, goal, info.Created, nil
}

// take applies one message.
func (w *watch) take(msg stored) (at place, found bool) {
	kind, project, err := parsePolicySubject(msg.subject)
	revision := msg.seq
	if err != nil {
		w.client.metrics.undecodable.WithLabelValues(streamPolicy).Inc()
		w.client.log.Error().Err(err).Str("subject", msg.subject).Uint64("seq", revision).Msg("policy cannot be read, passing over it")
		return place{}, false
	}
	at = place{kind, project}
	if !known(kind) {
		return at, false
	}
	entry := book.Entry{Kind: kind, Project: project, Revision: revision, At: msg.at.UTC()}
	if !isDeleted(msg.header) {
		entry.Value = msg.data
		if len(entry.Value) > maxPolicy || len(entry.Value) == 0 {
			w.client.metrics.undecodable.WithLabelValues(streamPolicy).Inc()
			w.client.log.Error().Str("subject", msg.subject).Uint64("seq", revision).Int("bytes", len(entry.Value)).
				Msg("policy is empty or too large, its project has none that can be read")
			entry.Value = []byte("unreadable")
		}
	}
	w.give(at, entry)
	return at, true
}

// give applies what is not known yet.
func (w *watch) give(at place, entry book.Entry) {
	if entry.Revision <= w.known[at] {
		return
	}
	w.known[at] = entry.Revision
	w.newest = max(w.newest, entry.Revision)
	w.apply(entry)
}

// complete ends a first look at everything: what is known and was not seen is gone, as of the sequence that the stream had
// reached before the look.
func (w *watch) complete(seen map[place]bool, last uint64) {
	for at := range w.known {
		if !seen[at] {
			w.give(at, book.Entry{Kind: at.kind, Project: at.project, Revision: last, At: time.Now().UTC()})
		}
	}
	w.retry.reset()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isLoaded && w.client.nats.IsConnected() {
		w.isLoaded = true
		w.loaded()
	}
}
