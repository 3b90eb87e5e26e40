package queue

import (
	"container/list"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// bulkShare is every how many grants one goes to bulk while both lanes wait: bulk gets a fifth, live the rest.
const bulkShare = 5

// reservedShare is the part of the slots that bulk never takes, so that a push usually finds a free one: an eighth.
const reservedShare = 8

// slots bounds how many requests are worked on at once, over all partitions, and of each project. Within a lane, who came
// first is served first, unless its project is at its cap: then it is passed over. While both lanes wait for a slot that
// they may take, bulk gets one of five grants. Of a project with a cap, first tries go before retries, and at most half as many
// retries as its cap are in work, aside or not: what fails, and hangs until it does, leaves the other half to the rest.
//
// Who holds a slot may step aside, into one of a bounded number of places, and come back later: before those of its lane
// that have not begun. It keeps its place until it has a slot again, so that there are never more requests in work than
// slots and places. Who has not begun is passed over as well while its project is one that steps aside and there would be no
// place. See [slots.swap] for why nobody waits for ever.
type slots struct {
	total, bulkLimit, places int
	capOf                    func(project string) int // 0 is no cap

	mu        sync.Mutex
	held      map[artifact.Lane]int        // guarded by mu
	working   map[string]int               // guarded by mu; slots held by project, over all lanes
	waiting   map[artifact.Lane]*list.List // guarded by mu; of *claim that never had a slot, oldest first
	liveInRow int                          // guarded by mu; grants to live in a row while bulk waited
	retries   retries                      // guarded by mu

	aside     int                          // guarded by mu; places that are taken
	leaving   *list.List                   // guarded by mu; of *claim that hold a slot and wait for a place, oldest first
	returning map[artifact.Lane]*list.List // guarded by mu; of *claim that hold a place and wait for a slot, oldest first
	steps     map[string]int               // guarded by mu; by project: see stepsFor
}

// claim is one request that waits for a slot, has one, or has stepped aside.
type claim struct {
	lane    artifact.Lane
	project string
	retry   bool          // whether it is not the first try
	granted chan struct{} // closed when the slot is given
	passed  chan struct{} // closed when it was passed over for the first time
	seen    bool          // whether passed is closed; guarded by the mutex of the slots
	entry   *list.Element // where it waits; guarded by the mutex of the slots
	moved   chan struct{} // closed when the place or the slot is given that it waits for; replaced under the mutex of the slots
	stepped bool          // whether it has stepped aside; guarded by the mutex of the slots
}

// newSlots makes slots and places; capOf may be nil. It is called under a lock.
func newSlots(total, places int, capOf func(project string) int) *slots {
	if capOf == nil {
		capOf = func(string) int { return 0 }
	}
	s := &slots{
		total: total, bulkLimit: total - total/reservedShare, places: places, capOf: capOf,
		held: map[artifact.Lane]int{}, working: map[string]int{},
		retries: newRetries(), waiting: map[artifact.Lane]*list.List{}, leaving: list.New(), returning: map[artifact.Lane]*list.List{},
		steps: map[string]int{},
	}
	for _, lane := range []artifact.Lane{artifact.Live, artifact.Bulk, artifact.Debt} {
		s.waiting[lane], s.returning[lane] = list.New(), list.New()
	}
	return s
}

// enter begins to wait for a slot. Whoever enters must either get the slot and release it, or leave.
func (s *slots) enter(lane artifact.Lane, project string, retry bool) *claim {
	c := &claim{lane: lane, project: project, retry: retry, granted: make(chan struct{}), passed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.entry = s.waiting[lane].PushBack(c)
	s.retries.enter(c)
	s.grant()
	return c
}

// leave gives up waiting, and the slot if it was granted meanwhile.
func (s *slots) leave(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c.granted:
		s.retries.end(c)
		s.free(c)
	default:
		s.waiting[c.lane].Remove(c.entry)
		s.retries.leave(c)
	}
	s.grant()
}

// release gives a slot back, exactly once.
func (s *slots) release(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.stepped {
		s.steps[c.project] = max(0, s.steps[c.project]-1)
	}
	s.retries.end(c)
	s.free(c)
	s.grant()
}

// taken is how many slots are held. s.mu is held.
func (s *slots) taken() int {
	return s.held[artifact.Live] + s.held[artifact.Bulk] + s.held[artifact.Debt]
}

// take gives a slot to a claim. s.mu is held.
func (s *slots) take(c *claim) {
	s.held[c.lane]++
	s.working[c.project]++
}

// free takes a slot from a claim. s.mu is held.
func (s *slots) free(c *claim) {
	s.held[c.lane]--
	if s.working[c.project]--; s.working[c.project] == 0 {
		delete(s.working, c.project)
	}
}

// grant gives slots and places to those who wait, until nobody can be given any. Each step ends a wait. s.mu is held.
func (s *slots) grant() {
	for s.giveSlot() || s.givePlace() || s.swap() {
	}
}

// giveSlot gives a free slot to whose turn it is. s.mu is held.
func (s *slots) giveSlot() bool {
	if s.taken() >= s.total {
		return false
	}
	c := s.next()
	if c == nil {
		return false
	}
	s.take(c)
	if isGranted(c) {
		s.returning[c.lane].Remove(c.entry)
		s.aside--
		close(c.moved)
		return true
	}
	s.waiting[c.lane].Remove(c.entry)
	s.retries.begin(c)
	close(c.granted)
	return true
}

// isGranted says whether a claim has had a slot.
func isGranted(c *claim) bool {
	select {
	case <-c.granted:
		return true
	default:
		return false
	}
}

// next chooses who gets the next slot; nil if nobody can. s.mu is held.
func (s *slots) next() *claim {
	live := s.first(artifact.Live)
	var bulk *claim
	if s.held[artifact.Bulk] < s.bulkLimit {
		bulk = s.first(artifact.Bulk)
	}
	switch {
	case live != nil && bulk != nil && s.liveInRow < bulkShare-1:
		s.liveInRow++
		return live
	case bulk != nil:
		s.liveInRow = 0
		return bulk
	case live != nil:
		return live
	default:
		return s.first(artifact.Debt) // which shares its slots with nobody
	}
}

// mayWork says whether a project may have another slot. s.mu is held.
func (s *slots) mayWork(project string) bool {
	working := s.working[project]
	if working == 0 {
		return true
	}
	limit := s.capOf(project)
	return limit <= 0 || working < limit
}

// first gives the oldest claim of a lane whose project may have another slot, nil if there is none. Those that come back go
// before those that have not begun. s.mu is held.
func (s *slots) first(lane artifact.Lane) *claim {
	type half struct {
		project string
		retries bool
	}
	full := map[half]bool{} // so that each project is asked for once, however many of its requests wait
	for _, queue := range []*list.List{s.returning[lane], s.waiting[lane]} {
		for entry := queue.Front(); entry != nil; entry = entry.Next() {
			c := claimOf(entry)
			begun := queue == s.returning[lane]
			of := half{c.project, c.retry}
			if !full[of] && s.mayWork(c.project) && (begun || s.mayBegin(c)) {
				return c
			}
			full[of] = true
			if !begun && !c.seen {
				c.seen = true
				close(c.passed)
			}
		}
	}
	return nil
}

// claimOf gives the claim in a list.
func claimOf(entry *list.Element) *claim {
	return entry.Value.(*claim) //nolint:errcheck,forcetypeassert // the lists hold nothing else
}
