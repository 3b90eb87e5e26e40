// Package lifecycle starts the parts of a program in order and stops them in the reverse order.
//
// It guarantees that whatever was started is stopped, later ones first, under one deadline for all; that the first failure
// of any part ends the whole; that every error names its part; and that a panic in a part becomes an error with its stack.
// It assumes that a part honours its context. One that does not is left behind a moment after the deadline, and reported:
// ending the process is then the caller's business. Nothing is started a second time.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// grace is how long a part may take to let go of what it holds when the deadline for stopping has passed.
const grace = time.Second

// Component is a part that is started and stopped. Either function may be nil.
type Component struct {
	// Start returns once the part does its work; what goes on afterwards runs in the part's own goroutines. ctx bounds
	// Start alone: it ends when the program is asked to end or another part fails. A Start that returned an error leaves
	// nothing to stop.
	Start func(ctx context.Context) error
	// Stop returns once the part has finished. It is called once, and only after a Start that succeeded. ctx carries the
	// deadline of all parts together; where that has passed already, Stop drops the work in hand and lets go at once.
	Stop func(ctx context.Context) error
}

// Group is the parts of one program. Add and Go before Run; a Group is used by one goroutine and runs once.
type Group struct {
	stopTimeout time.Duration
	parts       []part
	ran         bool
}

type part struct {
	name string
	// One of the two is set.
	component *Component
	task      func(ctx context.Context) error
}

// New makes an empty group. stopTimeout is how long all parts together may take to stop.
func New(stopTimeout time.Duration) *Group { return &Group{stopTimeout: stopTimeout} }

// Add appends a component: it is started after everything that was added before, and stopped before it.
func (g *Group) Add(name string, c Component) {
	g.parts = append(g.parts, part{name: name, component: &c})
}

// Go appends a task that runs in the background from its turn on. Its context ends when its turn to stop comes. A task
// that returns an error ends the group; one that returns nil has finished, and the others go on. The error of a context
// that ended because the group stops is no error.
func (g *Group) Go(name string, task func(ctx context.Context) error) {
	g.parts = append(g.parts, part{name: name, task: task})
}

// Run starts the parts and waits until ctx ends or one of them fails; then it stops what was started, in reverse order.
// The end of ctx is no error. The result joins the errors of all parts, the cause first.
func (g *Group) Run(ctx context.Context) error {
	if g.ran {
		return errors.New("lifecycle: a group runs once")
	}
	g.ran = true
	runCtx, end := context.WithCancel(ctx)
	defer end()
	f := &failures{end: end}
	var started []stopper
	for _, p := range g.parts {
		if runCtx.Err() != nil {
			break
		}
		s, err := p.start(runCtx, f)
		if err != nil {
			// A start that the end cut short has not failed.
			if runCtx.Err() == nil || !errors.Is(err, runCtx.Err()) {
				f.add(err)
			}
			break
		}
		started = append(started, s)
	}
	if len(started) == len(g.parts) {
		<-runCtx.Done()
	}
	// Stopping must not be cut short by what made it necessary.
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.stopTimeout)
	defer cancel()
	for _, s := range slices.Backward(started) {
		if err := s.within(stopCtx); err != nil {
			f.add(err)
		}
	}
	return f.err()
}

// failures collects the errors of all parts; the first one ends the group.
type failures struct {
	end context.CancelFunc

	mu   sync.Mutex
	errs []error // guarded by mu
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
	f.end()
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.errs...)
}

// stopper ends one part that was started.
type stopper struct {
	name string
	stop func(ctx context.Context) error
}

func (p part) start(ctx context.Context, f *failures) (stopper, error) {
	if p.component == nil {
		return stopper{name: p.name, stop: background(ctx, p.name, p.task, f)}, nil
	}
	if p.component.Start != nil {
		if err := guard(func() error { return p.component.Start(ctx) }); err != nil {
			return stopper{}, fmt.Errorf("starting %s: %w", p.name, err)
		}
	}
	return stopper{name: p.name, stop: p.component.Stop}, nil
}

// background runs a task and gives the function that ends it and waits for it. The task outlives ctx until then: parts
// that were started later may need it to finish their work.
func background(ctx context.Context, name string, task func(ctx context.Context) error, f *failures) func(ctx context.Context) error {
	taskCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := guard(func() error { return task(taskCtx) })
		if err != nil && (taskCtx.Err() == nil || !errors.Is(err, context.Canceled)) {
			f.add(fmt.Errorf("%s: %w", name, err))
		}
	}()
	return func(context.Context) error {
		cancel()
		<-done
		return nil
	}
}

// within runs the stop, and waits for it until ctx ends and a moment longer.
func (s stopper) within(ctx context.Context) error {
	if s.stop == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- guard(func() error { return s.stop(ctx) }) }()
	err, finished := error(nil), false
	select {
	case err = <-done:
		finished = true
	case <-ctx.Done():
	}
	if !finished {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case err = <-done:
		case <-timer.C:
			err = fmt.Errorf("has not finished: %w", ctx.Err())
		}
	}
	if err != nil {
		return fmt.Errorf("stopping %s: %w", s.name, err)
	}
	return nil
}

// guard turns a panic into an error. Where the panic's value is an error, it is wrapped.
func guard(f func() error) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case error:
			err = fmt.Errorf("panic: %w\n%s", v, debug.Stack())
		default:
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}
