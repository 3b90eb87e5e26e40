package webhook

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// maxBudgets is how many projects are metered at once. Beyond it, those that were idle long enough to have their whole budget
// again are forgotten, which changes nothing for them.
const maxBudgets = 4096

// budgets meters the pushes of each project. Each receiver meters what it takes itself, so that with several receivers a
// project has up to that many times its budget. Safe for concurrent use.
type budgets struct {
	fallback policy.Rate

	mu       sync.Mutex
	projects map[string]*rate.Limiter // guarded by mu, and so are the limiters
}

func newBudgets(fallback policy.Rate) *budgets {
	return &budgets{fallback: fallback, projects: map[string]*rate.Limiter{}}
}

// lane takes one push from the project's budget: live while there is some left, then bulk. A budget that the policy has
// changed counts from now on.
func (b *budgets) lane(project string, budget policy.Rate, now time.Time) artifact.Lane {
	if budget.PerSecond == 0 {
		budget.PerSecond = b.fallback.PerSecond
	}
	if budget.Burst == 0 {
		budget.Burst = b.fallback.Burst
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l, known := b.projects[project]
	if !known {
		b.makeRoom(now)
		l = rate.NewLimiter(rate.Limit(budget.PerSecond), budget.Burst)
		b.projects[project] = l
	}
	if l.Limit() != rate.Limit(budget.PerSecond) {
		l.SetLimitAt(now, rate.Limit(budget.PerSecond))
	}
	if l.Burst() != budget.Burst {
		l.SetBurstAt(now, budget.Burst)
	}
	if l.AllowN(now, 1) {
		return artifact.Live
	}
	return artifact.Bulk
}

// makeRoom is called with mu held. Where every project is busy, which takes more than maxBudgets of them at once, all of them
// start anew: too much in the live lane for a moment is better than memory that grows.
func (b *budgets) makeRoom(now time.Time) {
	if len(b.projects) < maxBudgets {
		return
	}
	for project, l := range b.projects {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(b.projects, project)
		}
	}
	if len(b.projects) >= maxBudgets {
		clear(b.projects)
	}
}
