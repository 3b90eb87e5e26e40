// Package deadlettertest is a queue in memory for tests of what works with dead letters.
package deadlettertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Step is something that the queue does, for failures.
type Step string

// The steps.
const (
	List   Step = "list"
	Read   Step = "read"
	Event  Step = "record"
	Ask    Step = "enqueue"
	Remove Step = "remove"
)

// Queue is a queue in memory. The zero value is empty and ready. It is safe for concurrent use.
type Queue struct {
	mu       sync.Mutex
	letters  []artifact.DeadLetter // guarded by mu: by ID
	last     uint64                // guarded by mu: the highest ID that was ever given
	events   []artifact.Event      // guarded by mu: each id once
	requests []artifact.Request    // guarded by mu: each manifest once
	steps    []Step                // guarded by mu: that changed, or failed to change, something
	fails    func(Step) (done bool, err error)
}

// Add stores a letter under the next ID, which it gives. One of the same manifest is replaced.
func (q *Queue) Add(l artifact.DeadLetter) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letters = slices.DeleteFunc(q.letters, func(old artifact.DeadLetter) bool { return !l.Ref.IsZero() && old.Ref == l.Ref })
	q.last++
	l.ID = q.last
	q.letters = append(q.letters, l)
	return l.ID
}

// Fail has steps fail as fn says, nil for none. done says that the step is done all the same, so that only its answer is lost. fn
// must not use the queue.
func (q *Queue) Fail(fn func(Step) (done bool, err error)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fails = fn
}

// Finish takes a request out of the queue, as an acknowledgement does.
func (q *Queue) Finish(ref artifact.Ref) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.requests = slices.DeleteFunc(q.requests, func(r artifact.Request) bool { return r.Ref == ref })
}

// Left gives the letters that are there.
func (q *Queue) Left() []artifact.DeadLetter {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.letters)
}

// Events gives the events that were recorded.
func (q *Queue) Events() []artifact.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.events)
}

// Requests gives those that wait.
func (q *Queue) Requests() []artifact.Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.requests)
}

// Steps gives what was done since the beginning, in its order.
func (q *Queue) Steps() []Step {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.steps)
}

// step runs one step, which may fail before or after it. The caller holds mu.
func (q *Queue) step(ctx context.Context, s Step, do func()) error {
	if err := ctx.Err(); err != nil {
		return fault.New(fault.Transient, fault.Canceled, err)
	}
	q.steps = append(q.steps, s)
	done, err := true, error(nil)
	if q.fails != nil {
		if done, err = q.fails(s); err == nil {
			done = true
		}
	}
	if done {
		do()
	}
	return err
}

// Letters implements the queue of package deadletter, as do the methods below.
func (q *Queue) Letters(ctx context.Context, after uint64, limit int) (found []artifact.DeadLetter, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err = q.step(ctx, List, func() {
		for _, l := range q.letters {
			if l.ID > after && len(found) < limit {
				found = append(found, l)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Letter implements the queue of package deadletter.
func (q *Queue) Letter(ctx context.Context, id uint64) (artifact.DeadLetter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.step(ctx, Read, func() {}); err != nil {
		return artifact.DeadLetter{}, err
	}
	for _, l := range q.letters {
		if l.ID == id {
			return l, nil
		}
	}
	return artifact.DeadLetter{}, fault.Newf(fault.Gone, fault.NotFound, "there is no dead letter %d", id)
}

// RemoveLetter implements the queue of package deadletter.
func (q *Queue) RemoveLetter(ctx context.Context, id uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.step(ctx, Remove, func() {
		q.letters = slices.DeleteFunc(q.letters, func(l artifact.DeadLetter) bool { return l.ID == id })
	})
}

// Enqueue implements the queue of package deadletter. It takes what the real one takes.
func (q *Queue) Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error) {
	if _, err := artifact.EncodeRequest(request); err != nil {
		return false, fault.New(fault.Permanent, fault.Malformed, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	err = q.step(ctx, Ask, func() {
		duplicate = slices.ContainsFunc(q.requests, func(r artifact.Request) bool { return r.Ref == request.Ref && r.Lane == request.Lane })
		if !duplicate {
			q.requests = append(q.requests, request)
		}
	})
	return duplicate && err == nil, err
}

// Record implements the queue of package deadletter. It takes what the real one takes.
func (q *Queue) Record(ctx context.Context, event artifact.Event) (uint64, error) {
	if err := artifacttest.CheckEvent(event); err != nil {
		return 0, fault.New(fault.Permanent, fault.Malformed, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.step(ctx, Event, func() {
		if !slices.ContainsFunc(q.events, func(e artifact.Event) bool { return e.ID == event.ID }) {
			q.events = append(q.events, event)
		}
	})
	return uint64(len(q.events)), err
}

// Letter gives a letter of the nth manifest of a repository that can be replayed.
func Letter(repository string, n int) artifact.DeadLetter {
	ref, err := artifact.NewRef(repository, fmt.Sprintf("sha256:%064x", n))
	if err != nil {
		panic(err)
	}
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return artifact.DeadLetter{
		Ref: ref, Reason: string(fault.QuotaExceeded), LastError: "the project is full", Attempts: 3, FirstAt: at, LastAt: at.Add(time.Hour),
		CorrelationID: "push-1", Stored: []byte("{}"),
		Request: &artifact.Request{
			Ref: ref, Lane: artifact.Live, Origin: artifact.OriginWebhook, Actor: "dev", CorrelationID: "push-1", RequestedAt: at, ReceivedSeq: 7,
		},
	}
}
