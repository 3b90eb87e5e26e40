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
// they may take, bulk gets one of five grants.
type slots struct {
	total, bulkLimit int
	capOf            func(project string) int // 0 is no cap

	mu        sync.Mutex
	held      map[artifact.Lane]int        // guarded by mu
	working   map[string]int               // guarded by mu; slots held by project, over both lanes
	waiting   map[artifact.Lane]*list.List // guarded by mu; of *claim, oldest first
	liveInRow int                          // guarded by mu; grants to live in a row while bulk waited
}

// claim is one request that waits for a slot.
type claim struct {
	lane    artifact.Lane
	project string
	granted chan struct{} // closed when the slot is given
	passed  chan struct{} // closed when it was passed over for the first time
	seen    bool          // whether passed is closed; guarded by the mutex of the slots
	place   *list.Element // guarded by the mutex of the slots
}

// newSlots makes slots; capOf may be nil. It is called under a lock.
func newSlots(total int, capOf func(project string) int) *slots {
	if capOf == nil {
		capOf = func(string) int { return 0 }
	}
	return &slots{
		total:     total,
		bulkLimit: total - total/reservedShare,
		capOf:     capOf,
		held:      map[artifact.Lane]int{},
		working:   map[string]int{},
		waiting:   map[artifact.Lane]*list.List{artifact.Live: list.New(), artifact.Bulk: list.New()},
	}
}

// enter begins to wait for a slot. Whoever enters must either get the slot and release it, or leave.
func (s *slots) enter(lane artifact.Lane, project string) *claim {
	c := &claim{lane: lane, project: project, granted: make(chan struct{}), passed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.place = s.waiting[lane].PushBack(c)
	s.grant()
	return c
}

// leave gives up waiting, and the slot if it was granted meanwhile.
func (s *slots) leave(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c.granted:
		s.free(c)
	default:
		s.waiting[c.lane].Remove(c.place)
	}
	s.grant()
}

// release gives a slot back, exactly once.
func (s *slots) release(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free(c)
	s.grant()
}

// free takes a slot from a claim. s.mu is held.
func (s *slots) free(c *claim) {
	s.held[c.lane]--
	if s.working[c.project]--; s.working[c.project] == 0 {
		delete(s.working, c.project)
	}
}

// grant gives free slots to those who wait. s.mu is held.
func (s *slots) grant() {
	for s.held[artifact.Live]+s.held[artifact.Bulk] < s.total {
		c := s.next()
		if c == nil {
			return
		}
		s.waiting[c.lane].Remove(c.place)
		s.held[c.lane]++
		s.working[c.project]++
		close(c.granted)
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
	default:
		return live
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

// first gives the oldest claim of a lane whose project may have another slot, nil if there is none. s.mu is held.
func (s *slots) first(lane artifact.Lane) *claim {
	full := map[string]bool{} // so that each project is asked for once, however many of its requests wait
	for place := s.waiting[lane].Front(); place != nil; place = place.Next() {
		c := place.Value.(*claim) //nolint:errcheck // the lists hold nothing else
		if !full[c.project] && s.mayWork(c.project) {
			return c
		}
		full[c.project] = true
		if !c.seen {
			c.seen = true
			close(c.passed)
		}
	}
	return nil
}
