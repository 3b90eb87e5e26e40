package access

import (
	"sync"
	"time"
)

const (
	// maxOfCaller is how many questions about one caller are asked at once, so that nobody's take the place of all others', and
	// maxWaiting how many more of one caller wait.
	maxOfCaller = 4
	maxWaiting  = 12
	// patience is how long a question waits at most: whoever waits holds memory.
	patience = time.Second
)

// queue bounds how many questions about callers who were let in are asked at once, all in all and for each of them. It is safe
// for concurrent use.
type queue struct {
	places chan struct{}

	mu  sync.Mutex
	own map[key]*share // guarded by mu; of the callers who ask or wait
}

// share is one caller's.
type share struct {
	places chan struct{}
	inside int // guarded by the queue's mu: those who ask or wait
}

func newQueue() *queue {
	return &queue{places: make(chan struct{}, maxAtOnce), own: make(map[key]*share)}
}

// enter waits for a place, but not for long, and gives a function to leave. The error is a [*ThrottledError]. No context ends
// the wait, because others may wait for the same answer.
func (q *queue) enter(who key) (leave func(), err error) {
	own := q.join(who)
	if own == nil {
		return nil, busy()
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for i, places := range []chan struct{}{own.places, q.places} {
		select {
		case places <- struct{}{}:
		case <-timer.C:
			if i > 0 {
				<-own.places
			}
			q.part(who, own)
			return nil, busy()
		}
	}
	return func() {
		<-q.places
		<-own.places
		q.part(who, own)
	}, nil
}

// join gives the caller's share, or nil if too many of it wait already.
func (q *queue) join(who key) *share {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := q.own[who]
	if own == nil {
		own = &share{places: make(chan struct{}, maxOfCaller)}
		q.own[who] = own
	}
	if own.inside >= maxOfCaller+maxWaiting {
		return nil
	}
	own.inside++
	return own
}

func (q *queue) part(who key, own *share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if own.inside--; own.inside == 0 {
		delete(q.own, who)
	}
}

func busy() error { return &ThrottledError{RetryAfter: time.Second, Busy: true, Known: true} }
