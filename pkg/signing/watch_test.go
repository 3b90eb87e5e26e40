package signing_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// slowRegistry tells of each listing and answers when it is let go, or when the caller has had enough.
type slowRegistry struct {
	*world
	asked chan string // digests, in order
	free  chan struct{}
}

func (r slowRegistry) Referrers(ctx context.Context, _, digest string) ([]artifact.Descriptor, error) {
	r.asked <- digest
	select {
	case <-r.free:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newSlowRegistry(w *world) slowRegistry {
	return slowRegistry{w, make(chan string, 10_000), make(chan struct{})}
}

// watching is a watch with its metrics.
type watching struct {
	*signing.Watch
	metrics *prometheus.Registry
}

func newWatching(t *testing.T, registry signing.Registry, p parts) watching {
	t.Helper()
	merger, err := signing.NewMerger(registry, p.legacy)
	if err != nil {
		t.Fatal(err)
	}
	w := watching{metrics: prometheus.NewRegistry()}
	if w.Watch, err = signing.NewWatch(merger, zerolog.Nop(), w.metrics); err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs it until the test ends.
func (w watching) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}
}

func (w watching) count(t *testing.T, name, label string) int {
	t.Helper()
	return count(t, w.metrics, name, label)
}

// count adds up a metric, of all its labels or those with one value.
func count(t *testing.T, metrics *prometheus.Registry, name, label string) (sum int) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				sum += int(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}

const (
	looksTotal   = "harborseal_signing_tag_looks_total"
	droppedTotal = "harborseal_signing_tag_looks_dropped_total"
)

func tagged(t *testing.T, project string, n int) artifact.Ref {
	t.Helper()
	ref, err := artifact.NewRef(project+"/app", artifact.DigestOf(fmt.Append(nil, n)))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestWhatIsWatched: the tags that this program has put, and nothing else.
func TestWhatIsWatched(t *testing.T) {
	for _, tt := range []struct {
		name   string
		format policy.Format
		change func(w *world, ref artifact.Ref)
		looks  int // at the first push, and at the second one none
	}{
		{"legacy", policy.FormatLegacy, nil, 2},
		{"both", policy.FormatBoth, nil, 2},
		{"bundle", policy.FormatBundle, nil, 0},
		{"locked tag", policy.FormatLegacy, func(w *world, ref artifact.Ref) { w.lock(ref) }, 0},
		{"failing put", policy.FormatLegacy, func(w *world, _ artifact.Ref) { w.fail = failing("put manifest") }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, tt.format, "demo")
			p := newParts(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			if tt.change != nil {
				tt.change(w, ref)
			}
			synctest.Test(t, func(t *testing.T) {
				watch := newWatching(t, w, p)
				stop := watch.start(t)
				s, _ := p.service(t, w, func(c *signing.Config) { c.Watch = watch.Watch })
				for range 2 {
					w.attempt(t, s, ref, 1)
					time.Sleep(time.Hour)
					synctest.Wait()
					if got := watch.count(t, looksTotal, ""); got != tt.looks {
						t.Errorf("%d looks, want %d", got, tt.looks)
					}
					fail := w.fail
					w.fail = nil
					w.receive(t, ref, "again")
					w.fail = fail
				}
				stop()
			})
		})
	}
}

// TestTheWatchIsBounded: a project has a quarter of the room. What does not fit is counted, and what was looked at makes
// room.
func TestTheWatchIsBounded(t *testing.T) {
	w := newWorld(t)
	p := newParts(t, w)
	synctest.Test(t, func(t *testing.T) {
		watch := newWatching(t, w, p)
		wantDropped := func(name string, want int) {
			t.Helper()
			if got := watch.count(t, droppedTotal, ""); got != want {
				t.Fatalf("%s: %d looks were dropped, want %d", name, got, want)
			}
		}
		fill := func(project string, digests int) {
			t.Helper()
			for n := range digests {
				watch.Add(tagged(t, project, n), "")
			}
		}
		fill("one", 1000)
		wantDropped("a project's share", 0)
		fill("one", 1)
		wantDropped("one more", 2)
		for _, project := range []string{"two", "three", "four"} {
			fill(project, 1000)
		}
		wantDropped("four projects", 2)
		fill("five", 1)
		wantDropped("all is taken", 4)

		defer watch.start(t)()
		synctest.Wait()
		if got := watch.count(t, looksTotal, "unchanged"); got != 4000 {
			t.Fatalf("%d looks at once, want 4000", got)
		}
		fill("one", 500)
		wantDropped("half is done", 4)
		time.Sleep(time.Minute)
		synctest.Wait()
		fill("one", 1000)
		wantDropped("all is done", 4)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := watch.count(t, looksTotal, "unchanged"); got != 2*5500 {
			t.Errorf("%d looks, want two for each of 5500 digests", got)
		}
	})
}

// TestALookThatComesBackTakesRoom: a tag that had other writers is looked at again, and stands in the project's share.
func TestALookThatComesBackTakesRoom(t *testing.T) {
	w := newWorld(t, "demo")
	p := newParts(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	ours := w.foreign("demo/app", "ours")
	w.put(t, ref, ours)
	synctest.Test(t, func(t *testing.T) {
		watch := newWatching(t, w, p)
		stop := watch.start(t)
		watch.Add(ref, ours.Digest)
		for n := range 3 {
			synctest.Wait()
			w.put(t, ref, w.foreign("demo/app", fmt.Sprint("theirs", n)))
			time.Sleep(31 * time.Second)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := watch.count(t, looksTotal, "merged"); got != 3 {
			t.Errorf("%d looks merged, want 3", got)
		}
		stop() // so that what is added waits
		for n := range 1001 {
			watch.Add(tagged(t, "demo", n), "")
		}
		if got := watch.count(t, droppedTotal, ""); got != 2 {
			t.Errorf("%d looks were dropped, want those of one digest", got)
		}
	})
}

// TestTheOldestIsLookedAtFirst: those that are due for the second time do not wait behind all that is new.
func TestTheOldestIsLookedAtFirst(t *testing.T) {
	w := newWorld(t)
	p := newParts(t, w)
	synctest.Test(t, func(t *testing.T) {
		slow := newSlowRegistry(w)
		watch := newWatching(t, slow, p)
		old, recent := tagged(t, "demo", 1), tagged(t, "demo", 2)
		watch.Add(old, "")
		time.Sleep(31 * time.Second)
		watch.Add(recent, "")
		defer watch.start(t)()
		synctest.Wait() // each of the two workers has taken one
		for range 2 {
			if got := <-slow.asked; got != old.Digest() {
				t.Errorf("looked at %s, want the older one, %s", got, old.Digest())
			}
		}
		close(slow.free)
		synctest.Wait()
		if got := <-slow.asked; got != recent.Digest() {
			t.Errorf("then looked at %s, want %s", got, recent.Digest())
		}
	})
}

// TestALookHasAnEnd: a registry that does not answer holds a worker up for 30 s.
func TestALookHasAnEnd(t *testing.T) {
	w := newWorld(t)
	p := newParts(t, w)
	synctest.Test(t, func(t *testing.T) {
		slow := newSlowRegistry(w)
		watch := newWatching(t, slow, p)
		for n := range 3 {
			watch.Add(tagged(t, "demo", n), "")
		}
		defer watch.start(t)()
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if got := len(slow.asked); got != 2 {
			t.Errorf("%d looks after 29 s, want one for each worker", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got, failed := len(slow.asked), watch.count(t, looksTotal, "failed"); got != 4 || failed != 2 {
			t.Errorf("%d looks after 30 s of which %d failed, want 4 and 2", got, failed)
		}
		close(slow.free)
	})
}

// TestAStoppedWatchLooksNoMore, whatever waits, and a look that it breaks off has not failed.
func TestAStoppedWatchLooksNoMore(t *testing.T) {
	w := newWorld(t)
	p := newParts(t, w)
	synctest.Test(t, func(t *testing.T) {
		slow := newSlowRegistry(w)
		watch := newWatching(t, slow, p)
		for n := range 100 {
			watch.Add(tagged(t, "demo", n), "")
		}
		stop := watch.start(t)
		synctest.Wait()
		stop()
		if got, looks := len(slow.asked), watch.count(t, looksTotal, ""); got != 2 || looks != 0 {
			t.Errorf("%d were asked for and %d counted, want 2 and none", got, looks)
		}
	})
}
