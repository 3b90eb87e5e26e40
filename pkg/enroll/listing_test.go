package enroll_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
)

// countingHarbor counts the listings.
type countingHarbor struct {
	harborOf
	listings *atomic.Int32
}

func (h countingHarbor) AllProjects(ctx context.Context) ([]artifact.Project, error) {
	h.listings.Add(1)
	return h.harborOf.AllProjects(ctx)
}

func TestListed(t *testing.T) {
	w := newWorld()
	w.projects["nobody"] = artifact.Project{ID: 8, Name: "nobody"}
	var listings atomic.Int32
	s, _ := w.receiver(t, func(c *enroll.Config) { c.Harbor = countingHarbor{harborOf{w}, &listings} })
	want := func(when string, asked int32, names ...string) {
		t.Helper()
		got, err := s.Listed(t.Context())
		if err != nil || !slices.Equal(got, names) || listings.Load() != asked {
			t.Errorf("%s: %q, %v after %d listings; want %q after %d", when, got, err, listings.Load(), names, asked)
		}
	}
	w.away = fault.Newf(fault.Transient, fault.Unreachable, "away")
	for range 2 {
		if _, err := s.Listed(t.Context()); !fault.Is(err, fault.Transient) {
			t.Errorf("while Harbor was never there: %v, want its fault", err)
		}
	}
	if got := listings.Load(); got != 1 {
		t.Errorf("%d listings, want one in five seconds", got)
	}
	w.away = nil
	w.advance(5 * time.Second)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() { want("the first answer", 2, "demo", "nobody") })
	}
	running.Wait()
	w.projects["third"] = artifact.Project{ID: 9, Name: "third"}
	w.advance(59 * time.Second)
	want("within the minute", 2, "demo", "nobody")
	w.advance(time.Second)
	want("after a minute", 3, "demo", "nobody", "third")
	w.away = errors.New("away")
	w.advance(time.Minute)
	want("while Harbor is away", 4, "demo", "nobody", "third")
	want("while Harbor is still away", 4, "demo", "nobody", "third")

	without, _ := w.receiver(t, func(c *enroll.Config) { c.Harbor = nil })
	if got, err := without.Listed(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("without an account: %q, %v; want none", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	w.advance(time.Minute)
	want("with a request that has time", 5, "demo", "nobody", "third")
	if got, err := s.Listed(ended); err == nil && len(got) != 3 {
		t.Errorf("Listed with an ended request: %q, want the list or an error", got)
	}
}
