package overdue_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/overdue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// row is a digest that is pending, and the sequence of its last event.
type row struct {
	ref artifact.Ref
	seq uint64
}

// world is the view and the queue.
type world struct {
	mu      sync.Mutex
	rows    []row
	seq     uint64
	waiting map[artifact.Ref]artifact.Lane
	asked   []artifact.Request
	pages   int
	err     error
}

// received adds a row, and queued its request.
func (w *world) received(n int, queued bool) artifact.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	r := row{ledgertest.Ref("demo/app", n), w.seq}
	w.rows = append(w.rows, r)
	if queued {
		w.waiting[r.ref] = artifact.Live
	}
	return r.ref
}

func (w *world) Overdue(_ context.Context, upTo uint64, after overdue.Place, limit int) (refs []artifact.Ref, next overdue.Place, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages++
	for _, r := range w.rows {
		if r.seq > upTo || r.seq <= after.FirstSeq {
			continue
		}
		if len(refs) == limit {
			return refs, next, nil
		}
		refs = append(refs, r.ref)
		next = overdue.Place{FirstSeq: r.seq}
	}
	return refs, overdue.Place{}, w.err
}

func (w *world) LedgerSeq(context.Context) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seq, w.err
}

func (w *world) Waits(_ context.Context, ref artifact.Ref) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[ref] != "", w.err
}

func (w *world) Enqueue(_ context.Context, r artifact.Request) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := artifact.EncodeRequest(r); err != nil {
		return false, err
	}
	if w.waiting[r.Ref] == r.Lane { // each lane takes one of its own
		return true, w.err
	}
	if w.err == nil {
		w.waiting[r.Ref] = r.Lane
		w.asked = append(w.asked, r)
	}
	return false, w.err
}

func (w *world) askedFor() []artifact.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	var refs []artifact.Ref
	for _, r := range w.asked {
		refs = append(refs, r.Ref)
	}
	return refs
}

// run lets watches run over a world for a time, and gives a function that ends them.
func run(t *testing.T, w *world, watches int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range watches {
		watch, err := overdue.New(overdue.Config{View: w, Queue: w})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := watch.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

func TestAPushThatWasNeverQueuedIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{waiting: map[artifact.Ref]artifact.Lane{}}
		lost := w.received(1, false)
		w.received(2, true)
		defer run(t, w, 3)()
		time.Sleep(overdue.After - time.Second)
		if got := w.askedFor(); len(got) != 0 {
			t.Errorf("after less than %s, %v are asked for, want none: they may be in work", overdue.After, got)
		}
		time.Sleep(2 * overdue.Interval)
		if got := w.askedFor(); !slices.Equal(got, []artifact.Ref{lost}) {
			t.Fatalf("%v are asked for, want %s alone", got, lost)
		}
		w.mu.Lock()
		r := w.asked[0]
		w.mu.Unlock()
		if r.Lane != artifact.Bulk || r.PushedAt != nil || r.CorrelationID == "" {
			t.Errorf("request %+v, want a push of now in the lane of bulk work", r)
		}
		// One that comes in later is left alone for as long.
		young := w.received(3, false)
		time.Sleep(overdue.After - overdue.Interval)
		if got := w.askedFor(); len(got) != 1 {
			t.Errorf("%v are asked for, want the first alone", got)
		}
		time.Sleep(3 * overdue.Interval)
		if got := w.askedFor(); !slices.Equal(got, []artifact.Ref{lost, young}) {
			t.Errorf("%v are asked for, want both", got)
		}
	})
}

// TestManyArePagedThrough: what waits in front does not hide what is behind it, and a look is bounded.
func TestManyArePagedThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{waiting: map[artifact.Ref]artifact.Lane{}}
		for n := range 5000 {
			w.received(n, true)
		}
		lost := w.received(5000, false)
		defer run(t, w, 1)()
		time.Sleep(overdue.After)
		synctest.Wait()
		w.mu.Lock()
		pages := w.pages
		w.mu.Unlock()
		if pages == 0 || pages > 20 {
			t.Errorf("one look has read %d pages, want some, and 20 at most", pages)
		}
		time.Sleep(5 * overdue.Interval)
		if got := w.askedFor(); !slices.Equal(got, []artifact.Ref{lost}) {
			t.Errorf("%v are asked for, want %s", got, lost)
		}
	})
}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{waiting: map[artifact.Ref]artifact.Lane{}}
		lost := w.received(1, false)
		defer run(t, w, 1)()
		time.Sleep(overdue.After - overdue.Interval/2)
		w.mu.Lock()
		w.err = errors.New("away")
		w.mu.Unlock()
		time.Sleep(time.Hour)
		w.mu.Lock()
		w.err = nil
		w.mu.Unlock()
		time.Sleep(2 * overdue.Interval)
		if got := w.askedFor(); !slices.Equal(got, []artifact.Ref{lost}) {
			t.Errorf("%v are asked for, want %s", got, lost)
		}
	})
}

// TestAnotherLedger: sequences of before say nothing about one that was made anew.
func TestAnotherLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{waiting: map[artifact.Ref]artifact.Lane{}}
		for n := range 9 {
			w.received(n, true)
		}
		defer run(t, w, 1)()
		time.Sleep(overdue.After + overdue.Interval)
		w.mu.Lock()
		w.rows, w.seq = nil, 0
		w.mu.Unlock()
		w.received(100, false)
		time.Sleep(overdue.After - overdue.Interval)
		if got := w.askedFor(); len(got) != 0 {
			t.Errorf("%v are asked for, want none: they may be in work", got)
		}
		time.Sleep(3 * overdue.Interval)
		if got := w.askedFor(); len(got) != 1 {
			t.Errorf("%v are asked for, want one", got)
		}
	})
}

func TestNew(t *testing.T) {
	if _, err := overdue.New(overdue.Config{}); err == nil {
		t.Error("New takes nothing")
	}
}
