package status_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/status"
)

// TestMissedEventsWake: when the service is told that something was missed, it reads again what is waited for.
func TestMissedEventsWake(t *testing.T) {
	w := newWorld(t, func(c *status.Config) { c.Registry = &counted{} })
	r := numbered(t, 1)
	w.happens(t, w.event(artifact.Received, r))
	done := w.waitFor(t.Context(), t, w.question(t, repository+"@"+r.Digest(), time.Minute))
	until(t, "the first reading", func() bool { n, _ := w.view.readings(); return n == 1 })
	w.Observe(nil)
	until(t, "reading it again", func() bool { n, _ := w.view.readings(); return n == 2 })
	w.Drain()
	if got := result(t, done); got.err != nil || got.answer.Outcome != status.Pending {
		t.Errorf("answer %+v, %v; want that it is pending", got.answer, got.err)
	}
}
