package logs

import (
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Failures are attempts that had to be repeated, as the metrics tell.
func Failures(m harness.Metrics) map[string]int { return failures(m) }

// Add takes one more measurement of the log itself.
func (o *Own) Add(more Own) { o.add(more) }

// Used is the processor time that f takes, of what this program has started and its own.
func Used(f func()) (started, self time.Duration) {
	before := newLoad()
	f()
	used := before.since()
	return used.started, used.self
}
