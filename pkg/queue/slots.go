package queue

import (
	"container/list"
	"context"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// bulkShare is every how many grants one goes to bulk while both lanes wait: bulk gets a fifth, live the rest.
const bulkShare = 5

// reservedShare is the part of the slots that bulk never takes, so that a push usually finds a free one: an eighth.
const reservedShare = 8

// slots bounds how many requests are worked on at once, over all partitions. Within a lane, who came first is served
// first. While both lanes wait, bulk gets one of five grants.
type slots struct {
	total, bulkLimit int

	mu        sync.Mutex
	held      map[artifact.Lane]int        // guarded by mu
	waiting   map[artifact.Lane]*list.List // guarded by mu; of *claim, oldest first
	liveInRow int                          // guarded by mu; grants to live in a row while bulk waited
}

// claim is one request that waits for a slot.
type claim struct {
	lane    artifact.Lane
	granted chan struct{} // closed when the slot is given
}

func newSlots(total int) *slots {
	return &slots{
		total:     total,
		bulkLimit: total - total/reservedShare,
		held:      map[artifact.Lane]int{},
		waiting:   map[artifact.Lane]*list.List{artifact.Live: list.New(), artifact.Bulk: list.New()},
	}
}

// acquire waits for a slot. Whoever got one must call release exactly once. The error is that of ctx.
func (s *slots) acquire(ctx context.Context, lane artifact.Lane) (release func(), err error) {
	c := &claim{lane: lane, granted: make(chan struct{})}
	s.mu.Lock()
	place := s.waiting[lane].PushBack(c)
	s.grant()
	s.mu.Unlock()

	select {
	case <-c.granted:
		return func() { s.release(lane) }, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-c.granted: // Both at once: the slot goes to the next.
		s.held[lane]--
	default:
		s.waiting[lane].Remove(place)
	}
	s.grant()
	return nil, ctx.Err()
}

func (s *slots) release(lane artifact.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[lane]--
	s.grant()
}

// grant gives free slots to those who wait. s.mu is held.
func (s *slots) grant() {
	for s.held[artifact.Live]+s.held[artifact.Bulk] < s.total {
		lane, found := s.next()
		if !found {
			return
		}
		first := s.waiting[lane].Front()
		s.waiting[lane].Remove(first)
		s.held[lane]++
		close(first.Value.(*claim).granted) //nolint:errcheck // the lists hold nothing else
	}
}

// next chooses the lane of the next grant. s.mu is held.
func (s *slots) next() (artifact.Lane, bool) {
	live := s.waiting[artifact.Live].Len() > 0
	bulk := s.waiting[artifact.Bulk].Len() > 0
	if s.held[artifact.Bulk] >= s.bulkLimit {
		bulk = false
	}
	switch {
	case live && bulk && s.liveInRow < bulkShare-1:
		s.liveInRow++
		return artifact.Live, true
	case bulk:
		s.liveInRow = 0
		return artifact.Bulk, true
	case live:
		return artifact.Live, true
	default:
		return "", false
	}
}
