package webhook

import (
	"sync"
	"time"
)

// quietFor is how long no refusal of a crowd is logged after one was.
const quietFor = time.Second

// quiet keeps a flood out of the log: what is refused by the thousand is counted by the metrics. Safe for concurrent use.
type quiet struct {
	mu     sync.Mutex
	told   time.Time // guarded by mu, as is untold
	untold int
}

// next says whether this refusal is to be logged, and how many before it were not.
func (q *quiet) next(now time.Time) (untold int, tell bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// A clock that was set back must not silence anything.
	if since := now.Sub(q.told); since >= 0 && since < quietFor {
		q.untold++
		return 0, false
	}
	untold, q.untold, q.told = q.untold, 0, now
	return untold, true
}
