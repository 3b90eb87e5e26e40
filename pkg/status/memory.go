package status

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// maxRemembered bounds each memory, in answers.
const maxRemembered = 50_000

// memory remembers answers for a time. Errors are never remembered. However many want the same answer at the same time, one question
// is asked, in a caller's goroutine. It is safe for concurrent use.
type memory[K comparable, V any] struct {
	now func() time.Time

	mu     sync.Mutex
	known  map[K]answered[V]  // guarded by mu
	asking map[K]*question[V] // guarded by mu
}

type answered[V any] struct {
	value V
	// at is as of when it is true, and until when it counts.
	at, until time.Time
}

// question is one that several may wait for. It is written by the goroutine that asks, before it closes done, and only read after.
type question[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newMemory[K comparable, V any](now func() time.Time) *memory[K, V] {
	return &memory[K, V]{now: now, known: map[K]answered[V]{}, asking: map[K]*question[V]{}}
}

// get gives the answer as it is remembered, or asks. ask gives for how long its answer is good, from the moment at which it began; it
// must not end because ctx does, because others wait for it.
func (m *memory[K, V]) get(ctx context.Context, k K, ask func() (V, time.Duration, error)) (value V, err error) {
	m.mu.Lock()
	if a, found := m.known[k]; found && m.now().Before(a.until) {
		m.mu.Unlock()
		return a.value, nil
	}
	if q := m.asking[k]; q != nil {
		m.mu.Unlock()
		select {
		case <-q.done:
			return q.value, q.err
		case <-ctx.Done():
			return value, fmt.Errorf("waiting for an answer: %w", ctx.Err())
		}
	}
	q := &question[V]{
		done: make(chan struct{}),
		// This is what those who wait get if ask panics.
		err: fault.Newf(fault.Transient, fault.Unknown, "the question ended without an answer"),
	}
	m.asking[k] = q
	m.mu.Unlock()
	m.settle(k, q, ask)
	return q.value, q.err
}

func (m *memory[K, V]) settle(k K, q *question[V], ask func() (V, time.Duration, error)) {
	defer close(q.done)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.asking, k)
	}()
	began := m.now()
	var good time.Duration
	if q.value, good, q.err = ask(); q.err == nil && good > 0 {
		m.put(k, q.value, began, good)
	}
}

// find gives what is remembered.
func (m *memory[K, V]) find(k K) (value V, found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, found := m.known[k]
	if !found || !m.now().Before(a.until) {
		return value, false
	}
	return a.value, true
}

// put remembers what was true at a moment for as long as it is good, unless something newer is known.
func (m *memory[K, V]) put(k K, value V, at time.Time, good time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, found := m.known[k]
	if found && before.at.After(at) {
		return
	}
	if !found {
		m.makeRoom()
	}
	m.known[k] = answered[V]{value: value, at: at, until: at.Add(good)}
}

// makeRoom forgets what is too old, and if that is not enough any tenth of the answers, so that it is not done each time. The caller
// holds mu.
func (m *memory[K, V]) makeRoom() {
	if len(m.known) < maxRemembered {
		return
	}
	now := m.now()
	for k, a := range m.known {
		if !now.Before(a.until) {
			delete(m.known, k)
		}
	}
	for k := range m.known {
		if len(m.known) < maxRemembered-maxRemembered/10 {
			return
		}
		delete(m.known, k)
	}
}
