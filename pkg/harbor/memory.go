package harbor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// answerPause is how long the last known answer is used before Harbor is asked again after it failed to answer.
const answerPause = 30 * time.Second

// memory remembers the answer to one question. The zero value knows none.
type memory[T any] struct {
	// strict says that an answer is not used beyond its age, not even while Harbor does not answer. It never changes.
	strict bool

	mu      sync.Mutex
	last    T            // guarded by mu
	known   bool         // guarded by mu; false while there is no last answer
	renewAt time.Time    // guarded by mu
	asking  *question[T] // guarded by mu; nil while nobody asks
}

// question is one request that several wait for. It is written by the goroutine that asks, before it closes answered, and
// only read after that.
type question[T any] struct {
	answered chan struct{}
	answer   T
	err      error
	// abandoned says that the asking goroutine gave no answer, because its own context ended: those who waited with it ask
	// again.
	abandoned bool
}

// ask gives an answer, and for how long it is good.
type ask[T any] func(context.Context) (answer T, age time.Duration, err error)

// get gives the answer. However many want it at the same time, one request is sent, in a caller's context and goroutine:
// nothing of it outlives the call. While Harbor does not answer, the last known answer is given, unless the memory is strict; the
// error if there is none.
func (m *memory[T]) get(ctx context.Context, ask ask[T]) (T, error) {
	for {
		m.mu.Lock()
		if m.known && time.Now().Before(m.renewAt) {
			defer m.mu.Unlock()
			return m.last, nil
		}
		q := m.asking
		if q == nil {
			q = &question[T]{answered: make(chan struct{}), abandoned: true}
			m.asking = q
			m.mu.Unlock()
			m.settle(ctx, q, ask)
			return q.answer, q.err
		}
		m.mu.Unlock()
		select {
		case <-q.answered:
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("waiting for Harbor's answer: %w", ctx.Err())
		}
		if !q.abandoned {
			return q.answer, q.err
		}
	}
}

// settle asks. If that panics, the question is abandoned, and those who wait ask again.
func (m *memory[T]) settle(ctx context.Context, q *question[T], ask ask[T]) {
	defer close(q.answered)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asking = nil
	}()
	answer, age, err := ask(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	q.answer, q.err, q.abandoned = answer, err, false
	switch {
	case err == nil:
		m.last, m.known, m.renewAt = answer, true, time.Now().Add(age)
	case ctx.Err() != nil:
		q.abandoned = true
	case m.known && !m.strict:
		q.answer, q.err = m.last, nil
		m.renewAt = time.Now().Add(answerPause)
	}
}

// maxProjects is for how many projects answers are remembered.
const maxProjects = 1000

// memories remembers the answers to one question about the projects that were asked for last. The zero value knows none.
type memories[T any] struct {
	mu       sync.Mutex
	projects map[string]*rememberedProject[T] // guarded by mu
	calls    uint64                           // guarded by mu
}

type rememberedProject[T any] struct {
	memory[T]

	lastCall uint64 // guarded by memories.mu
}

// of gives the memory of a project. Whoever still asks in one that is forgotten gets the answer all the same.
func (m *memories[T]) of(project string, strict bool) *memory[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	p := m.projects[project]
	if p == nil {
		if m.projects == nil {
			m.projects = make(map[string]*rememberedProject[T])
		}
		if len(m.projects) >= maxProjects {
			m.forgetOne()
		}
		p = &rememberedProject[T]{memory: memory[T]{strict: strict}}
		m.projects[project] = p
	}
	p.lastCall = m.calls
	return &p.memory
}

// forgetOne forgets the project that was not asked for for the longest time. It looks at all of them, which takes less than
// the request that follows. The caller holds mu.
func (m *memories[T]) forgetOne() {
	oldest, at := "", m.calls
	for name, p := range m.projects {
		if p.lastCall < at {
			oldest, at = name, p.lastCall
		}
	}
	delete(m.projects, oldest)
}
