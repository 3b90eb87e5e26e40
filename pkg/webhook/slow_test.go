package webhook_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// slowQueue holds every delivery until it is let go.
type slowQueue struct {
	entered chan string // the repositories
	leave   chan struct{}
	patient bool // it holds them even longer than they may
}

func newSlowQueue() *slowQueue {
	return &slowQueue{entered: make(chan string, 1000), leave: make(chan struct{})}
}

func (q *slowQueue) Record(ctx context.Context, e artifact.Event) (uint64, error) {
	q.entered <- e.Ref.Repository()
	ended := ctx.Done()
	if q.patient {
		ended = nil
	}
	select {
	case <-q.leave:
		return 1, nil
	case <-ended:
		return 0, ctx.Err()
	}
}

func (q *slowQueue) Enqueue(context.Context, artifact.Request) (bool, error) { return false, nil }

// hold sends n deliveries of the project and returns when all of them are in hand.
func (q *slowQueue) hold(t *testing.T, d *door, project string, n int) <-chan sent {
	t.Helper()
	answers := make(chan sent, n)
	for i := range n {
		d.start(t, fmt.Sprintf("%s/held-%d", project, i), answers)
	}
	for range n {
		select {
		case <-q.entered:
		case answer := <-answers:
			t.Fatalf("the answer to a delivery of %s is %v, want it in hand", project, answer)
		case <-time.After(5 * time.Second):
			t.Fatalf("not all of %d deliveries of %s are in hand", n, project)
		}
	}
	return answers
}

// start sends a delivery and does not wait for its answer.
func (d *door) start(t *testing.T, repository string, answers chan<- sent) {
	t.Helper()
	project, _, _ := strings.Cut(repository, "/")
	r := post(t, project, payload{repository: repository}.encode(t, webhook.Default))
	go func() {
		begun := time.Now()
		rec := d.do(r)
		answers <- sent{rec.Code, rec.Header().Get("Retry-After"), time.Since(begun)}
	}()
}

// wait sends a delivery, and returns when it is in the waiting room.
func (d *door) wait(t *testing.T, repository string) <-chan sent {
	t.Helper()
	answers := make(chan sent, 1)
	d.start(t, repository, answers)
	synctest.Wait()
	if len(answers) > 0 {
		t.Fatalf("%s: the answer is %v, want it to wait", repository, <-answers)
	}
	return answers
}
