package queue

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Aside runs fn while the request holds no slot: for what takes long and costs this program nothing, such as waiting for a
// transparency log. When it has returned, with the error of fn, the request has a slot again, whatever happened to ctx
// meanwhile; it gets one before the requests of its lane that have not begun. The request counts as worked on all the time,
// for the server and for the drain of [Client.Consume].
//
// The places for such requests are bounded (ConsumeConfig.Aside): while all are taken, Aside waits with its slot until ctx
// ends, and the error is that of ctx then; fn was not called. Requests of projects that step aside are not begun while there
// would be no place for them, so that they do not wait in the slots of others.
//
// Within fn, or beside another call of the same delivery, Aside just runs fn. A panic of fn goes on in the caller.
func (d *Delivery) Aside(ctx context.Context, fn func(ctx context.Context) error) error {
	if d.claim == nil || !d.away.CompareAndSwap(false, true) {
		return fn(ctx)
	}
	defer d.away.Store(false)
	if err := d.slots.stepAside(ctx, d.claim); err != nil {
		return fmt.Errorf("waiting for a place aside: %w", err)
	}
	inFlight := d.client.metrics.inFlight.WithLabelValues(string(d.lane))
	aside := d.client.metrics.aside.WithLabelValues(string(d.lane))
	inFlight.Dec()
	aside.Inc()
	defer func() {
		d.slots.comeBack(d.claim)
		aside.Dec()
		inFlight.Inc()
	}()
	return fn(ctx)
}

// stepAside waits for a place and gives the slot of the claim up for it. After an error, which is that of ctx, the claim has
// its slot still.
func (s *slots) stepAside(ctx context.Context, c *claim) error {
	moved := s.askForPlace(c)
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
	}
	if s.withdraw(c) {
		return ctx.Err()
	}
	return nil
}

// comeBack waits for a slot and gives the place of the claim up for it, however long that takes: it is for slots whose
// holders all end.
func (s *slots) comeBack(c *claim) { <-s.askForSlot(c) }

// askForPlace begins to wait for a place, with the slot; the channel is closed when the claim has the one instead of the other.
func (s *slots) askForPlace(c *claim) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.stepped, s.steps[c.project] = true, stepsFor
	moved := make(chan struct{})
	c.moved, c.entry = moved, s.leaving.PushBack(c)
	s.grant()
	return moved
}

// withdraw ends the wait for a place; false if the claim has it already.
func (s *slots) withdraw(c *claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c.moved:
		return false
	default:
		s.leaving.Remove(c.entry)
		return true
	}
}

// askForSlot begins to wait for a slot, with the place; the channel is closed when the claim has the one instead of the other.
func (s *slots) askForSlot(c *claim) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := make(chan struct{})
	c.moved, c.entry = moved, s.returning[c.lane].PushBack(c)
	s.grant()
	return moved
}

// stepsFor is for how many of a project's requests that end without it is reckoned with that they step aside, after one did.
const stepsFor = 16

// mayBegin says whether a claim may have its first slot. A retry must be one that may be tried now. And there must be a place, if
// it steps aside: each request that is in work and may step aside is reckoned with. What a project does is known from its last
// requests; of one that is not known, one request at a time finds out. s.mu is held.
func (s *slots) mayBegin(c *claim) bool {
	if c.retry && !s.mayRetry(c.retryQueue().queueOf) {
		return false
	}
	steps, known := s.steps[c.project]
	switch {
	case known && steps == 0, !known && s.working[c.project] == 0:
		return true
	}
	reckoned := s.aside
	for other, working := range s.working {
		if s.steps[other] > 0 {
			reckoned += working
		}
	}
	return reckoned < s.places
}

// givePlace gives a free place to who waits for one, and frees its slot. s.mu is held.
func (s *slots) givePlace() bool {
	if s.aside >= s.places || s.leaving.Len() == 0 {
		return false
	}
	c := claimOf(s.leaving.Front())
	s.leaving.Remove(c.entry)
	s.aside++
	s.free(c)
	close(c.moved)
	return true
}

// swap gives the slot of one that waits for a place to one that comes back, and its place in return. Without it, all slots
// could be held by some that wait for a place, and all places by others that wait for a slot. s.mu is held.
//
// Caps and shares hold, unless nobody is at work any more, neither in a slot nor aside: then a request may take the slot of
// another one of its own project, although that is of another lane. Somebody can always go on in that state:
//   - A project at its cap has a slot, whose holder waits for a place: the two change.
//   - Bulk at its limit has a slot as well: whoever comes back to bulk, of a project that is not at its cap, changes with its
//     holder.
func (s *slots) swap() bool {
	if s.leaving.Len() == 0 {
		return false
	}
	first, coming := s.comingBack()
	for _, c := range first {
		if s.exchange(c, s.partner(c, false)) {
			return true
		}
	}
	if atWork := s.leaving.Len() < s.taken() || coming < s.aside; atWork {
		return false // and whoever is will give up a slot or a place
	}
	for _, c := range first {
		if s.exchange(c, s.partner(c, true)) {
			return true
		}
	}
	return false
}

// comingBack gives, of each lane and project, the first that comes back, and the number of all. s.mu is held.
func (s *slots) comingBack() (first []*claim, number int) {
	type kind struct {
		lane    artifact.Lane
		project string
	}
	seen := map[kind]bool{}
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk, artifact.Debt} {
		number += s.returning[lane].Len()
		for entry := s.returning[lane].Front(); entry != nil; entry = entry.Next() {
			c := claimOf(entry)
			if k := (kind{lane, c.project}); !seen[k] {
				seen[k] = true
				first = append(first, c)
			}
		}
	}
	return first, number
}

// partner gives the oldest claim that waits for a place and whose slot c may have, nil if there is none. With anyLane, c may
// have any slot of its own project. s.mu is held.
func (s *slots) partner(c *claim, anyLane bool) *claim {
	mayWork := s.mayWork(c.project)
	room := c.lane != artifact.Bulk || s.held[artifact.Bulk] < s.bulkLimit
	for entry := s.leaving.Front(); entry != nil; entry = entry.Next() {
		other := claimOf(entry)
		ofProject, ofLane := other.project == c.project, other.lane == c.lane
		if (mayWork || ofProject) && (room || ofLane) || anyLane && ofProject {
			return other
		}
	}
	return nil
}

// exchange lets c, which comes back, and other, which waits for a place, have what the other one has. s.mu is held.
func (s *slots) exchange(c, other *claim) bool {
	if other == nil {
		return false
	}
	s.leaving.Remove(other.entry)
	s.returning[c.lane].Remove(c.entry)
	s.free(other)
	s.take(c)
	close(other.moved)
	close(c.moved)
	return true
}
