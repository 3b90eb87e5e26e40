package enroll

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// sweepEvery and sweepsAtOnce bound how many full sweeps somebody can ask for in a project: each is kept by the queue for
	// days, whether a signer has done it or not.
	sweepEvery   = 10 * time.Second
	sweepsAtOnce = 6
	// maxLimited bounds the limiters that are remembered.
	maxLimited = 10_000
)

// TooOftenError says that so many sweeps of the project were asked for that this one has to wait.
type TooOftenError struct {
	// RetryAfter is more than 0.
	RetryAfter time.Duration
}

// Error implements error.
func (e *TooOftenError) Error() string {
	return fmt.Sprintf("the project's sweeps were asked for too often: one in %s, and %d at once", sweepEvery, sweepsAtOnce)
}

// sweepLimits are this receiver's limits of each project. It is safe for concurrent use.
type sweepLimits struct {
	mu        sync.Mutex
	ofProject map[string]*rate.Limiter // guarded by mu
}

// take says how long to wait before the next sweep of the project; 0 takes it.
func (l *sweepLimits) take(project string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.ofProject[project]
	if limiter == nil {
		l.forget(now)
		limiter = rate.NewLimiter(rate.Every(sweepEvery), sweepsAtOnce)
		l.ofProject[project] = limiter
	}
	taken := limiter.ReserveN(now, 1)
	wait := taken.DelayFrom(now)
	if wait > 0 {
		taken.CancelAt(now)
	}
	return wait
}

// forget makes room: a limiter that is full says nothing. The caller holds mu.
func (l *sweepLimits) forget(now time.Time) {
	if len(l.ofProject) < maxLimited {
		return
	}
	for project, limiter := range l.ofProject {
		if limiter.TokensAt(now) >= sweepsAtOnce {
			delete(l.ofProject, project)
		}
	}
}
