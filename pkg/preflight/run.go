package preflight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// maxAtOnce is how many checks of one run ask Harbor at the same time.
	maxAtOnce = 8
	// maxTime is what one run may take: less than the 5 s that an answer over the queue may take, so that "Harbor does not
	// answer" is what whoever asks hears, and not that no signer does.
	maxTime = 4 * time.Second
)

// task is one or several checks that come from one question.
type task struct {
	// name and subject stand in the result if the task panics.
	name    Name
	subject string
	run     func(ctx context.Context) []Check
}

// run does all tasks and gives their results in the order of the tasks.
func run(ctx context.Context, tasks []task) []Check {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	results := make([][]Check, len(tasks))
	slots := make(chan struct{}, maxAtOnce)
	var running sync.WaitGroup
	for i, t := range tasks {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = t.guarded(ctx)
		})
	}
	running.Wait()
	var all []Check
	for _, r := range results {
		all = append(all, r...)
	}
	return all
}

// guarded makes a failed check of a panic: the others are as important.
func (t task) guarded(ctx context.Context) (checks []Check) {
	defer func() {
		if p := recover(); p != nil {
			checks = []Check{unknown(Check{Name: t.name, Subject: t.subject, Fix: "report this as a defect"}, fmt.Errorf("the check panicked: %v", p))}
		}
	}()
	return t.run(ctx)
}

// once asks for something that several tasks need, one time.
func once[T any](ask func(ctx context.Context) (T, error)) func(ctx context.Context) (T, error) {
	var (
		lock   sync.Mutex
		asked  bool
		answer T
		err    error
	)
	return func(ctx context.Context) (T, error) {
		lock.Lock()
		defer lock.Unlock()
		if !asked {
			err = errors.New("the question was cut short") // if ask panics
			asked = true
			answer, err = ask(ctx)
		}
		return answer, err
	}
}
