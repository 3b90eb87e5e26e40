package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Place is where the request for a manifest stands in the queue.
type Place struct {
	// Lane is the one it is in: live, if it is in both. Empty means that no request is stored.
	Lane artifact.Lane
	// Since is when the request was stored, by the server's clock.
	Since time.Time
	// HandedOut says that a signer has had the request: it works on it, or has given it back to try again later.
	HandedOut bool
	// Ahead is an estimate of how many requests of the lane were stored before and are not handed out yet; 0 if HandedOut. It errs
	// towards more, because some that were stored after may be counted. It is no promise either: projects have caps of their own and
	// take turns, and what is tried again comes in between.
	Ahead uint64
}

// Places tells where requests stand. It is safe for concurrent use: however many ask, the server is asked how far the requests are
// handed out once a second at most.
type Places struct {
	client *Client

	mu    sync.Mutex
	known consumption // guarded by mu, which is held while the server is asked
	until time.Time   // guarded by mu
}

// consumptionAge is for how long it counts how far requests are handed out.
const consumptionAge = time.Second

// Places gives what tells where requests stand.
func (c *Client) Places() *Places { return &Places{client: c} }

// Place tells where the request for a manifest stands, with what a receiver may read: the last message of a subject, and the
// consumers of a stream. The error is a transient fault.
func (p *Places) Place(ctx context.Context, ref artifact.Ref) (Place, error) {
	c := p.client
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		msg, err := c.lastMessage(ctx, streamSign, SignSubject(c.cfg.Harbor, lane, ref))
		if err != nil {
			return Place{}, fmt.Errorf("looking for the request for %s: %w", ref, err)
		}
		if msg == nil {
			continue
		}
		// After the request: what was handed out may be newer than what is known of it, and then it is the better answer.
		at, err := p.consumption(ctx)
		if err != nil {
			return Place{}, err
		}
		place := Place{Lane: lane, Since: msg.Time.UTC()}
		place.HandedOut, place.Ahead = at.ahead(lane, Partition(ref.Project()), msg.Sequence)
		return place, nil
	}
	return Place{}, nil
}

func (p *Places) consumption(ctx context.Context) (consumption, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known.parts != nil && time.Now().Before(p.until) {
		return p.known, nil
	}
	known, err := p.client.consumption(ctx)
	if err != nil {
		return consumption{}, err
	}
	p.known, p.until = known, time.Now().Add(consumptionAge)
	return known, nil
}

// consumption is how far the requests are handed out, at one moment. It is never changed.
type consumption struct {
	parts map[artifact.Lane][Partitions]handedOut
}

// handedOut is one partition of a lane.
type handedOut struct {
	last    uint64 // the sequence of the newest request that was handed out
	pending uint64 // how many were not
}

// consumption asks how far the requests are handed out. It costs one request.
func (c *Client) consumption(ctx context.Context) (consumption, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.handle(ctx, streamSign)
	if err != nil {
		return consumption{}, askFault(fmt.Errorf("asking stream %s: %w", streamSign, err))
	}
	consumers, err := consumersOf(ctx, handle)
	if err != nil {
		c.handles.forget(streamSign)
		return consumption{}, err
	}
	at := consumption{parts: map[artifact.Lane][Partitions]handedOut{}}
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk} {
		var parts [Partitions]handedOut
		for part := range parts {
			if info := consumers[signConsumer(c.cfg.Harbor, lane, part)]; info != nil {
				parts[part] = handedOutBy(info)
			}
		}
		at.parts[lane] = parts
	}
	return at, nil
}

func handedOutBy(info *jetstream.ConsumerInfo) handedOut {
	return handedOut{last: info.Delivered.Stream, pending: info.NumPending}
}

// ahead estimates how many requests go before the one with a sequence. In each partition, those before it that were not handed out lie
// between the newest that was and it: they are at most as many as the sequences in between, and as many as wait.
func (at consumption) ahead(lane artifact.Lane, part int, sequence uint64) (out bool, count uint64) {
	parts := at.parts[lane]
	if sequence <= parts[part].last {
		return true, 0
	}
	for i, p := range parts {
		between := uint64(0)
		if sequence > p.last {
			between = sequence - p.last - 1
		}
		waiting := p.pending
		if i == part && waiting > 0 {
			waiting-- // itself
		}
		count += min(between, waiting)
	}
	// Sequences are those of the whole stream: no more than all before it can go before it.
	return false, min(count, sequence-1)
}
