package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// sickQueue does with each record what its cure says now.
type sickQueue struct {
	mu    sync.Mutex
	asked int
	does  func(context.Context) error
}

func (q *sickQueue) Record(ctx context.Context, _ artifact.Event) (uint64, error) {
	q.mu.Lock()
	q.asked++
	does := q.does
	q.mu.Unlock()
	return 1, does(ctx)
}

func (q *sickQueue) Enqueue(context.Context, artifact.Request) (bool, error) { return false, nil }

func (q *sickQueue) become(does func(context.Context) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.does, q.asked = does, 0
}

func well(context.Context) error { return nil }

func full(context.Context) error {
	return fault.New(fault.Transient, fault.QueueFull, errors.New("maximum bytes exceeded"))
}

// sent is how a delivery ended.
type sent struct {
	status     int
	retryAfter string
	took       time.Duration
}

// send sends n deliveries at once, each of another project and manifest, and waits for all answers.
func send(t *testing.T, d *door, n int) []sent {
	t.Helper()
	answers := make([]sent, n)
	var wg sync.WaitGroup
	for i := range n {
		project := fmt.Sprint("p", i)
		r := post(t, project, payload{repository: project + "/app"}.encode(t, webhook.Default))
		wg.Go(func() {
			start := time.Now()
			rec := d.do(r)
			answers[i] = sent{rec.Code, rec.Header().Get("Retry-After"), time.Since(start)}
		})
	}
	wg.Wait()
	return answers
}

func count(answers []sent, of sent) (n int) {
	for _, a := range answers {
		if a == of {
			n++
		}
	}
	return n
}

// TestAQueueThatDoesNotAnswerIsWaitedForByOneAtATime: Harbor has ten workers, and they are not to spend their time here.
func TestAQueueThatDoesNotAnswerIsWaitedForByOneAtATime(t *testing.T) {
	q := &sickQueue{does: stuck}
	var enabled []string
	for i := range 40 {
		enabled = append(enabled, fmt.Sprint("p", i))
	}
	d := newDoor(t, func(c *webhook.Config) { c.Policies, c.Queue = policies{enabled: enabled}, q })
	synctest.Test(t, func(t *testing.T) {
		waited, atOnce := sent{503, "5", 2 * time.Second}, sent{503, "5", 0}
		if got := send(t, d, 10); count(got, waited) != 10 {
			t.Errorf("the first ten: %v, want all to have waited", got)
		}
		for range 3 {
			if got := send(t, d, 40); count(got, waited) != 1 || count(got, atOnce) != 39 {
				t.Errorf("from then on: %v, want one to have waited and the others refused at once", got)
			}
		}
		q.become(well)
		// The one that tries opens the gate; those that came while it tried may have been refused.
		if got := send(t, d, 1); got[0].status != http.StatusAccepted {
			t.Errorf("the first delivery to a queue that is well again: %v, want 202", got)
		}
		if got := send(t, d, 40); count(got, sent{202, "", 0}) != 40 {
			t.Errorf("the next forty: %v, want 202", got)
		}
	})
	checkOutcomes(t, d, map[string]float64{"unavailable": 13, "not_tried": 117, "queued": 41})
}

func TestAFullQueueIsAskedByOneAtATime(t *testing.T) {
	q := &sickQueue{does: full}
	d := newDoor(t, func(c *webhook.Config) { c.Policies, c.Queue = policies{enabled: []string{"p0", "p1", "p2"}}, q })
	atOnce := sent{503, "30", 0}
	synctest.Test(t, func(t *testing.T) {
		if got := send(t, d, 1); count(got, atOnce) != 1 {
			t.Errorf("the first: %v, want %v", got, atOnce)
		}
		q.become(func(ctx context.Context) error {
			<-time.After(time.Second) // long enough for the others to come
			return full(ctx)
		})
		if got := send(t, d, 3); count(got, atOnce) != 2 || count(got, sent{503, "30", time.Second}) != 1 || q.asked != 1 {
			t.Errorf("three at once: %v and %d asked the queue, want one to ask and the others refused", got, q.asked)
		}
		q.become(well)
		if got := send(t, d, 1); got[0].status != http.StatusAccepted {
			t.Errorf("with room again: %v, want 202", got)
		}
	})
}

// TestWhatDoesNotShutTheGate: what another delivery would not meet.
func TestWhatDoesNotShutTheGate(t *testing.T) {
	for name, does := range map[string]func(context.Context) error{
		"a permanent fault": func(context.Context) error {
			return fault.New(fault.Permanent, fault.TooLarge, errors.New("too large"))
		},
		"a panic": func(context.Context) error { panic("boom") },
	} {
		q := &sickQueue{does: does}
		d := newDoor(t, func(c *webhook.Config) { c.Policies, c.Queue = policies{enabled: []string{"p0"}}, q })
		send(t, d, 1)
		if webhook.QueueShut(d.handler) {
			t.Errorf("%s: the gate is shut", name)
		}
		// The one that tries through a shut gate must give its place back all the same.
		q.become(full)
		send(t, d, 1)
		q.become(does)
		send(t, d, 1)
		if send(t, d, 1); q.asked != 2 || !webhook.QueueShut(d.handler) {
			t.Errorf("%s of the one that tries: %d asked the queue, want 2, and the gate shut: %t", name, q.asked, webhook.QueueShut(d.handler))
		}
	}
}

// TestASlowQueueIsNotAway: one delivery is not acknowledged in time, others were meanwhile.
func TestASlowQueueIsNotAway(t *testing.T) {
	q := &sickQueue{does: stuck}
	d := newDoor(t, func(c *webhook.Config) { c.Policies, c.Queue = policies{enabled: []string{"p0"}}, q })
	synctest.Test(t, func(t *testing.T) {
		r := post(t, "p0", payload{repository: "p0/slow"}.encode(t, webhook.Default))
		status := make(chan int)
		go func() { status <- d.do(r).Code }()
		synctest.Wait()
		q.become(well)
		send(t, d, 1)
		if got := <-status; got != http.StatusServiceUnavailable {
			t.Errorf("status of the slow one = %d, want 503", got)
		}
		if webhook.QueueShut(d.handler) {
			t.Error("the gate is shut though the queue acknowledged a delivery meanwhile")
		}
	})
}

// TestDeliveriesThatAskForNothingPassAShutGate: nobody has to repeat them.
func TestDeliveriesThatAskForNothingPassAShutGate(t *testing.T) {
	d := newDoor(t, func(c *webhook.Config) {
		c.Policies, c.Queue = policies{enabled: []string{"p0"}}, &sickQueue{does: full}
	})
	send(t, d, 1)
	for name, r := range map[string]*http.Request{
		"another event":   post(t, "p0", payload{kind: "PULL_ARTIFACT", repository: "p0/app"}.encode(t, webhook.Default)),
		"another project": post(t, "other", payload{repository: "other/app"}.encode(t, webhook.Default)),
	} {
		if rec := d.do(r); rec.Code != http.StatusAccepted {
			t.Errorf("%s: status %d, want 202", name, rec.Code)
		}
	}
}

func checkOutcomes(t *testing.T, d *door, want map[string]float64) {
	t.Helper()
	families, err := d.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != "harborseal_webhook_requests_total" {
				continue
			}
			if outcome, n := m.GetLabel()[0].GetValue(), m.GetCounter().GetValue(); n != want[outcome] {
				t.Errorf("%v deliveries have the outcome %s, want %v", n, outcome, want[outcome])
			}
		}
	}
}
