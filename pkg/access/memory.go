package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// rememberFor is how long an answer of Harbor is good: whoever loses a right loses it here within this time.
	rememberFor = time.Minute
	// maxRemembered bounds each memory, in answers.
	maxRemembered = 10_000
)

// memory remembers answers of Harbor. Errors are never remembered. However many want the same answer at the same time, one
// question is asked, in a caller's goroutine. It is safe for concurrent use.
type memory[V any] struct {
	mu     sync.Mutex
	known  map[key]answer[V]    // guarded by mu
	asking map[key]*question[V] // guarded by mu
}

type answer[V any] struct {
	value V
	until time.Time
}

// question is one that several may wait for. It is written by the goroutine that asks, before it closes answered, and only
// read after that.
type question[V any] struct {
	answered chan struct{}
	value    V
	err      error
}

func newMemory[V any]() *memory[V] {
	return &memory[V]{known: make(map[key]answer[V]), asking: make(map[key]*question[V])}
}

// get gives the answer. ask must not end because ctx does: others wait for it.
func (m *memory[V]) get(ctx context.Context, k key, ask func() (V, error)) (value V, err error) {
	m.mu.Lock()
	if a, found := m.known[k]; found && time.Now().Before(a.until) {
		m.mu.Unlock()
		return a.value, nil
	}
	if q := m.asking[k]; q != nil {
		m.mu.Unlock()
		select {
		case <-q.answered:
			return q.value, q.err
		case <-ctx.Done():
			return value, fmt.Errorf("waiting for Harbor's answer: %w", ctx.Err())
		}
	}
	q := &question[V]{
		answered: make(chan struct{}),
		// This is what those who wait get if ask panics.
		err: fault.Newf(fault.Transient, fault.Unknown, "the question to Harbor ended without an answer"),
	}
	m.asking[k] = q
	m.mu.Unlock()
	m.settle(k, q, ask)
	return q.value, q.err
}

func (m *memory[V]) settle(k key, q *question[V], ask func() (V, error)) {
	defer close(q.answered)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.asking, k)
	}()
	asked := time.Now()
	q.value, q.err = ask()
	if q.err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.makeRoom()
	m.known[k] = answer[V]{value: q.value, until: asked.Add(rememberFor)}
}

// makeRoom forgets what is too old, and if that is not enough any one answer. The caller holds mu.
func (m *memory[V]) makeRoom() {
	if len(m.known) < maxRemembered {
		return
	}
	now := time.Now()
	for k, a := range m.known {
		if !now.Before(a.until) {
			delete(m.known, k)
		}
	}
	for k := range m.known {
		if len(m.known) < maxRemembered {
			return
		}
		delete(m.known, k)
	}
}

// gate bounds how many strangers are inside.
type gate chan struct{}

// enter gives a function to leave, or says that the gate is full: nobody waits, because whoever waits holds memory.
func (g gate) enter() (leave func(), err error) {
	select {
	case g <- struct{}{}:
		return func() { <-g }, nil
	default:
		return nil, &ThrottledError{RetryAfter: time.Second, Busy: true}
	}
}
