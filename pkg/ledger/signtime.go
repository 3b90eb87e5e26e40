package ledger

import (
	"math/bits"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// The buckets of times to sign: those up to 15 ms are one millisecond wide, and from there on each doubling has 8 of them, so that none
// is wider than an eighth of where it begins. The last holds all that is longer than 32 years.
const (
	bucketsPerDoubling = 8
	lastSignTimeBucket = 303
)

// SignTimeBucket gives the bucket of a time to sign, from 0. Negative times, of clocks that differ, are in the first.
func SignTimeBucket(d time.Duration) int {
	if d < 0 {
		return 0
	}
	ms := uint64(d.Milliseconds()) //nolint:gosec // it is not negative
	if ms < bucketsPerDoubling {
		return int(ms)
	}
	shift := bits.Len64(ms) - bits.Len(bucketsPerDoubling)
	return min(bucketsPerDoubling*shift+int(ms>>shift), lastSignTimeBucket) //nolint:gosec // what is left is less than 16
}

// SignTimeBounds gives the times of a bucket: from <= t < to. Those of a bucket that does not exist are those of the nearest.
func SignTimeBounds(bucket int) (from, to time.Duration) {
	bucket = min(max(bucket, 0), lastSignTimeBucket)
	return signTimeFrom(bucket), signTimeFrom(bucket + 1)
}

func signTimeFrom(bucket int) time.Duration {
	if bucket < bucketsPerDoubling {
		return time.Duration(bucket) * time.Millisecond
	}
	return time.Duration(bucket%bucketsPerDoubling+bucketsPerDoubling) << (bucket/bucketsPerDoubling - 1) * time.Millisecond
}

// SignTime is how long it took from the push of a digest to its first signature; false if this service did not make that one. A
// push whose time nobody named counts from when the first webhook came in, or from when the ledger first heard of it.
func (r *Record) SignTime() (time.Duration, bool) {
	if r.SignedSeq == 0 || r.How != artifact.Made {
		return 0, false
	}
	from := r.Push().At
	if from.IsZero() {
		from = r.ReceivedAt
	}
	if from.IsZero() {
		from = r.FirstSeenAt
	}
	return r.SignedAt.Sub(from), true
}

// Day is a day of UTC, counted from 1970-01-01, which is 0.
type Day int64

// DayOf gives the day of a time.
func DayOf(t time.Time) Day {
	const day = 24 * 60 * 60
	seconds := t.Unix()
	return Day((seconds - (seconds%day+day)%day) / day)
}

// Start is when the day begins.
func (d Day) Start() time.Time { return time.Unix(int64(d)*24*60*60, 0).UTC() }

// ClassOf tells rows of one state apart in counts: by the reason of what is skipped or blocked. It is empty for all others.
func ClassOf(state State, reason string) string {
	switch state {
	case Skipped, Blocked:
		return reason
	default:
		return ""
	}
}
