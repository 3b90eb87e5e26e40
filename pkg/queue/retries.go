package queue

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// retries knows what of each project is a second or a later try. It bounds those that are in work, in a slot or aside: what
// failed once often fails again, and slowly. It is a part of slots, guarded by their mutex.
//
// A try counts from its first slot until it ends, so that it changes nothing for who steps aside or comes back.
type retries struct {
	inWork    map[string]int     // by project
	queued    map[retryQueue]int // claims that wait for their first slot
	overtaken map[queueOf]int    // grants to first tries in a row while a retry of the same project waited in the lane
}

// queueOf is who waits behind one another: the requests of a project in a lane.
type queueOf struct {
	lane    artifact.Lane
	project string
}

// retryQueue is one of the two halves of a queueOf.
type retryQueue struct {
	queueOf
	retry bool
}

func newRetries() retries {
	return retries{inWork: map[string]int{}, queued: map[retryQueue]int{}, overtaken: map[queueOf]int{}}
}

// enter notes a claim that begins to wait for its first slot.
func (r *retries) enter(c *claim) { r.queued[c.retryQueue()]++ }

// leave notes a claim that does not wait for its first slot any more.
func (r *retries) leave(c *claim) {
	q := c.retryQueue()
	if r.queued[q]--; r.queued[q] > 0 {
		return
	}
	delete(r.queued, q)
	if q.retry {
		delete(r.overtaken, q.queueOf)
	}
}

// begin notes a claim that gets its first slot.
func (r *retries) begin(c *claim) {
	of := c.retryQueue().queueOf
	r.leave(c)
	switch {
	case c.retry:
		r.inWork[c.project]++
		delete(r.overtaken, of)
	case r.queued[retryQueue{of, true}] > 0:
		r.overtaken[of]++
	}
}

// end notes a claim that has had its slot and needs none any more.
func (r *retries) end(c *claim) {
	if !c.retry {
		return
	}
	if r.inWork[c.project]--; r.inWork[c.project] == 0 {
		delete(r.inWork, c.project)
	}
}

// isTheirTurn says whether a retry of a project may go before what else of it waits in the lane: first tries go before, but so
// that one of five is a retry while both wait, or a flood of new requests would keep it waiting until it is too old.
func (r *retries) isTheirTurn(of queueOf) bool {
	return r.queued[retryQueue{of, false}] == 0 || r.overtaken[of] >= bulkShare-1
}

func (c *claim) retryQueue() retryQueue { return retryQueue{queueOf{c.lane, c.project}, c.retry} }

// mayRetry says whether another retry of a project may begin: half of its cap is for them, but at least one. s.mu is held.
func (s *slots) mayRetry(of queueOf) bool {
	limit := s.capOf(of.project)
	if limit > 0 && s.retries.inWork[of.project] >= max(1, min(limit, s.total)/2) {
		return false
	}
	return s.retries.isTheirTurn(of)
}

// giveWayDelay is when a retry is handed out again that found no room to wait in.
const giveWayDelay = 5 * time.Second

// giveWay gives back a retry that has to wait for its slot and finds no room for that, so that it does not hold up what comes
// behind it. Unlike what is held, it remains a retry; as of that, this was no try.
func (p *pool) giveWay(work context.Context, l *line, d *Delivery, c *claim) {
	p.slots.leave(c)
	p.client.ways.put(d.key(), p.client.ways.get(d.key())+1)
	p.client.metrics.held.WithLabelValues(string(d.lane)).Inc()
	d.giveBack(work, max(giveWayDelay-rand.N(giveWayDelay/2), l.pace.next(time.Now()))) //nolint:gosec // spreads load, keeps no secret
	d.end()
}
