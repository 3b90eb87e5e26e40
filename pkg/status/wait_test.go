package status_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/status"
)

// outcome is what became of a question.
type outcome struct {
	answer status.Answer
	err    error
	at     time.Time
}

// waitFor asks in the background, and gives what comes of it.
func (w *world) waitFor(ctx context.Context, tb testing.TB, q status.Question) <-chan outcome {
	tb.Helper()
	done := make(chan outcome, 1)
	go func() {
		answer, err := w.Ask(ctx, q)
		done <- outcome{answer, err, time.Now()}
	}()
	return done
}

// result waits for it, for long.
func result(tb testing.TB, done <-chan outcome) outcome {
	tb.Helper()
	select {
	case got := <-done:
		return got
	case <-time.After(30 * time.Second):
		tb.Fatal("nobody was woken")
		return outcome{}
	}
}

// until polls a condition.
func until(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not so after 30 s", what)
		}
		runtime.Gosched()
	}
}

// readings is how often the view was read, and how many rows.
func (r *rows) readings() (times, rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.reads {
		rows += n
	}
	return len(r.reads), rows
}

func numbered(tb testing.TB, n int) artifact.Ref {
	tb.Helper()
	return ref(tb, fmt.Sprintf("sha256:%064x", n))
}

// TestWaking: who waits is woken by the event, and neither Harbor nor the view is asked meanwhile.
func TestWaking(t *testing.T) {
	registry := &counted{}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	r := numbered(t, 1)
	w.happens(t, w.event(artifact.Received, r))
	done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))
	until(t, "the first reading", func() bool { n, _ := w.view.readings(); return n == 1 })
	w.happens(t, w.event(artifact.Failed, r, func(e *artifact.Event) { e.Reason = "timeout" }))
	until(t, "the second reading", func() bool { n, _ := w.view.readings(); return n == 2 })
	w.happens(t, w.event(artifact.Received, numbered(t, 2))) // nobody waits for it
	w.happens(t, w.signed(r, imageType, artifact.Evidence{Format: artifact.Bundle, KeyID: "key", Digest: digestOf("e")}))
	got := result(t, done)
	if got.err != nil || got.answer.Outcome != status.Signed || got.answer.CheckedAt == nil {
		t.Fatalf("answer %+v, %v; want signed", got.answer, got.err)
	}
	if n, _ := w.view.readings(); n != 3 {
		t.Errorf("the view was read %d times, want 3: once, and for each event", n)
	}
	if registry.count() != 0 {
		t.Errorf("Harbor was asked %d times, want never: a signer has just verified it", registry.count())
	}
}

// TestOldVerificationsCountFor10s: an event of long ago is no reason not to ask the registry.
func TestOldVerificationsCountFor10s(t *testing.T) {
	registry := &counted{}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	for i, tt := range []struct {
		age   time.Duration
		calls int
	}{{9 * time.Second, 0}, {11 * time.Second, 1}, {-time.Hour, 0}} {
		r, carrier := numbered(t, i), fmt.Sprintf("sha256:%064x", 1000+i)
		w.happens(t, w.event(artifact.Received, r))
		n, _ := w.view.readings()
		done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))
		until(t, "reading", func() bool { now, _ := w.view.readings(); return now > n })
		before := registry.count()
		e := w.signed(r, imageType, artifact.Evidence{Format: artifact.Bundle, KeyID: "key", Digest: carrier})
		e.Time = e.Time.Add(-tt.age)
		w.happens(t, e)
		if got := result(t, done); got.err != nil || got.answer.Outcome != status.Signed {
			t.Fatalf("answer %+v, %v; want signed", got.answer, got.err)
		}
		if got := registry.count() - before; got != tt.calls {
			t.Errorf("an event %s old: Harbor was asked %d times, want %d", tt.age, got, tt.calls)
		}
		// One of the future counts as one of now.
		w.clock.pass(11 * time.Second)
		before = registry.count()
		w.ask(t, repository+"@"+r.Digest())
		if got := registry.count() - before; got != 1 {
			t.Errorf("an event %s old, 11 s later: Harbor was asked %d times, want once", tt.age, got)
		}
	}
}

// TestChildrenWake: who waits for an index is woken by its children.
func TestChildrenWake(t *testing.T) {
	index, first, second := numbered(t, 1), numbered(t, 2), numbered(t, 3)
	registry := &counted{children: map[string][]string{index.Digest(): {first.Digest(), second.Digest()}}}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	evidence := artifact.Evidence{Format: artifact.Legacy, KeyID: "key", Digest: digestOf("e")}
	w.happens(t, w.event(artifact.Received, index), w.event(artifact.Queued, first), w.event(artifact.Queued, second))
	done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+index.Digest(), time.Minute))
	until(t, "reading", func() bool { n, _ := w.view.readings(); return n == 1 })
	w.happens(t, w.signed(index, indexType, evidence))
	until(t, "reading the children", func() bool { _, n := w.view.readings(); return n >= 4 })
	w.happens(t, w.signed(first, imageType, evidence))
	w.happens(t, w.signed(second, imageType, evidence))
	if got := result(t, done); got.err != nil || got.answer.Outcome != status.Signed || got.answer.Children.Signed != 2 {
		t.Fatalf("answer %+v, %v; want signed with 2 children", got.answer, got.err)
	}
}

// TestTimeIsUp: after the time there is an answer all the same, and at once when the service drains.
func TestTimeIsUp(t *testing.T) {
	w := newWorld(t, func(c *status.Config) { c.Registry = &counted{} })
	r := numbered(t, 1)
	w.happens(t, w.event(artifact.Received, r))
	began := time.Now()
	got := result(t, w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), 50*time.Millisecond)))
	if got.err != nil || got.answer.Outcome != status.Pending || time.Since(began) < 50*time.Millisecond {
		t.Fatalf("after %s: %+v, %v; want pending after 50 ms", time.Since(began), got.answer, got.err)
	}
	gone, leave := context.WithCancel(t.Context())
	left := w.waitFor(gone, t, w.question(t, repository+"@"+r.Digest(), time.Minute))
	waiting := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))
	until(t, "both to wait", func() bool { n, _ := w.view.readings(); return n == 3 })
	leave()
	if got := result(t, left); !errors.Is(got.err, context.Canceled) {
		t.Errorf("who has gone got %+v, %v", got.answer, got.err)
	}
	w.Drain()
	w.Drain()
	if got := result(t, waiting); got.err != nil || got.answer.Outcome != status.Pending || got.answer.Digest != r.Digest() {
		t.Errorf("draining gives %+v, %v; want pending", got.answer, got.err)
	}
	if got := result(t, w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))); got.err != nil || got.answer.Outcome != status.Pending {
		t.Errorf("after draining: %+v, %v; want pending at once", got.answer, got.err)
	}
}

// TestCrowds: who waits is bounded; who does not wait is not.
func TestCrowds(t *testing.T) {
	w := newWorld(t, func(c *status.Config) { c.Registry, c.MaxWaiting, c.MaxPerCaller = &counted{}, 3, 2 })
	r := numbered(t, 1)
	w.happens(t, w.event(artifact.Received, r))
	ctx, cancel := context.WithCancel(t.Context())
	ask := func(caller string, wait time.Duration) (status.Question, error) {
		q := w.question(t, repository+"@"+r.Digest(), wait)
		q.Caller = caller
		if wait > time.Second {
			return q, nil
		}
		_, err := w.Ask(t.Context(), q)
		return q, err
	}
	var all []<-chan outcome
	for i, caller := range []string{"ann", "ann", "bob"} {
		q, _ := ask(caller, time.Minute)
		all = append(all, w.waitFor(ctx, t, q))
		until(t, "waiting", func() bool { n, _ := w.view.readings(); return n == i+1 })
	}
	var crowded *status.CrowdedError
	if _, err := ask("ann", time.Millisecond); !errors.As(err, &crowded) || !crowded.Caller || crowded.RetryAfter <= 0 {
		t.Errorf("ann's third: %v, want that she has too many", err)
	}
	if _, err := ask("eve", time.Millisecond); !errors.As(err, &crowded) || crowded.Caller {
		t.Errorf("the fourth: %v, want that too many wait", err)
	}
	if _, err := ask("eve", 0); err != nil {
		t.Errorf("who does not wait: %v", err)
	}
	cancel()
	for _, done := range all {
		result(t, done)
	}
	if _, err := ask("eve", time.Millisecond); err != nil {
		t.Errorf("after they left: %v", err)
	}
}

// TestViewAwayWhileWaiting: a reading that fails is repeated; nobody is told anything wrong.
func TestViewAwayWhileWaiting(t *testing.T) {
	w := newWorld(t, func(c *status.Config) { c.Registry = &counted{} })
	r := numbered(t, 1)
	w.happens(t, w.event(artifact.Received, r))
	done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))
	until(t, "reading", func() bool { n, _ := w.view.readings(); return n == 1 })
	w.view.fail(fault.Newf(fault.Transient, fault.StorageUnavailable, "away"))
	w.happens(t, w.signed(r, imageType, artifact.Evidence{Digest: digestOf("e")}))
	until(t, "a failed reading", func() bool { n, _ := w.view.readings(); return n == 2 })
	w.view.fail(nil)
	if got := result(t, done); got.err != nil || got.answer.Outcome != status.Signed {
		t.Errorf("answer %+v, %v; want signed", got.answer, got.err)
	}
}

// TestNoHerd wakes many at once: their rows are read in batches, and Harbor is asked nothing.
func TestNoHerd(t *testing.T) {
	const many = 2000
	registry := &counted{}
	w := newWorld(t, func(c *status.Config) { c.Registry, c.MaxPerCaller = registry, many })
	events := make([]artifact.Event, many)
	for i := range events {
		events[i] = w.event(artifact.Received, numbered(t, i))
	}
	w.happens(t, events...)
	all := make([]<-chan outcome, many)
	for i := range all {
		all[i] = w.waitFor(t.Context(), t, w.question(t, repository+"@"+numbered(t, i).Digest(), time.Minute))
	}
	until(t, "all to wait", func() bool { n, _ := w.view.readings(); return n == many })
	for i := range events {
		events[i] = w.signed(numbered(t, i), imageType, artifact.Evidence{Format: artifact.Bundle, KeyID: "key", Digest: fmt.Sprintf("sha256:%064x", many+i)})
	}
	began := time.Now()
	w.happens(t, events...)
	times := make([]time.Duration, many)
	for i, done := range all {
		got := result(t, done)
		if got.err != nil || got.answer.Outcome != status.Signed {
			t.Fatalf("answer %+v, %v; want signed", got.answer, got.err)
		}
		times[i] = got.at.Sub(began)
	}
	slices.Sort(times)
	t.Logf("woken: p50 %s, p99 %s", times[many/2], times[many*99/100])
	if n, _ := w.view.readings(); n > many+20 {
		t.Errorf("the view was read %d times to wake %d, want few", n-many, many)
	}
	if registry.count() != 0 {
		t.Errorf("Harbor was asked %d times, want never", registry.count())
	}
}

// TestOneQuestionForAll: however many wait for one digest, one question about each of its signatures is sent.
func TestOneQuestionForAll(t *testing.T) {
	registry := &counted{}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	r := numbered(t, 1)
	w.happens(t, w.signed(r, imageType, artifact.Evidence{Digest: digestOf("d")}, artifact.Evidence{Digest: digestOf("e")}))
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			answer, err := w.Ask(t.Context(), status.Question{Image: status.Image{Repository: repository, Digest: r.Digest()}, Caller: "ci"})
			if err != nil || answer.Outcome != status.Signed {
				t.Errorf("answer %+v, %v; want signed", answer, err)
			}
		})
	}
	group.Wait()
	if got := registry.count(); got != 2 {
		t.Errorf("Harbor was asked %d times, want once for each signature", got)
	}
}

// BenchmarkWaiters measures what one who waits takes: its goroutine's stack and what the service keeps, without its connection.
func BenchmarkWaiters(b *testing.B) {
	const many = 5000
	for b.Loop() {
		w := newWorld(b, func(c *status.Config) { c.Registry, c.MaxPerCaller = &counted{}, many })
		questions := make([]status.Question, many)
		for i := range questions {
			w.happens(b, w.event(artifact.Received, numbered(b, i)))
			questions[i] = w.question(b, repository+"@"+numbered(b, i).Digest(), time.Minute)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		ctx, cancel := context.WithCancel(context.Background())
		var group sync.WaitGroup
		for _, q := range questions {
			group.Go(func() { _, _ = w.Ask(ctx, q) })
		}
		until(b, "all to wait", func() bool { n, _ := w.view.readings(); return n == many })
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/many, "bytes/waiter")
		cancel()
		group.Wait()
	}
}

// TestOldNewsIsNoProof: an event of before the registry was asked does not undo what it answered.
func TestOldNewsIsNoProof(t *testing.T) {
	gone := digestOf("e")
	registry := &counted{absent: map[string]bool{gone: true}}
	w := newWorld(t, func(c *status.Config) { c.Registry = registry })
	r := numbered(t, 1)
	evidence := artifact.Evidence{Format: artifact.Bundle, KeyID: "key", Digest: gone}
	w.happens(t, w.signed(r, imageType, evidence))
	late := w.signed(r, imageType, evidence)
	w.clock.pass(time.Second)
	done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), 100*time.Millisecond))
	until(t, "asking for it again", func() bool { return w.door.count() == 1 })
	w.happens(t, late)
	if got := result(t, done); got.err != nil || got.answer.Outcome != status.Pending || got.answer.Reason != status.SignatureMissing {
		t.Errorf("answer %+v, %v; want that the signature is missing", got.answer, got.err)
	}
}
