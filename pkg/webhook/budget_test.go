package webhook_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// lanes sends n pushes of different images at one time and counts them by lane.
func lanes(t *testing.T, d *door, project string, n int, at time.Time) map[artifact.Lane]int {
	t.Helper()
	before := len(d.queue.requests)
	for i := range n {
		repository := fmt.Sprintf("%s/app-%d-%d", project, at.UnixMilli(), i)
		if rec := d.do(post(t, project, payload{repository: repository, at: at}.encode(t, webhook.Default))); rec.Code != 202 {
			t.Fatalf("status = %d %s, want 202", rec.Code, rec.Body)
		}
	}
	counted := map[artifact.Lane]int{}
	for _, r := range d.queue.requests[before:] {
		counted[r.Lane]++
	}
	return counted
}

func wantLanes(t *testing.T, when string, got map[artifact.Lane]int, live, bulk int) {
	t.Helper()
	if got[artifact.Live] != live || got[artifact.Bulk] != bulk {
		t.Errorf("%s: lanes = %v, want %d live and %d bulk", when, got, live, bulk)
	}
}

func TestAFloodIsThatProjectsOwnDelay(t *testing.T) {
	clock := now
	p := policies{enabled: []string{"demo", "quiet"}}
	d := newDoor(t, func(c *webhook.Config) {
		c.Policies = &p
		c.Now = func() time.Time { return clock }
	})
	wantLanes(t, "600 at once by the default of 5 a second, 50 at once", lanes(t, d, "demo", 600, clock), 50, 550)
	wantLanes(t, "a quiet project beside it", lanes(t, d, "quiet", 3, clock), 3, 0)
	clock = clock.Add(2 * time.Second)
	wantLanes(t, "2 s later", lanes(t, d, "demo", 20, clock), 10, 10)
	clock = clock.Add(time.Hour)
	wantLanes(t, "an hour later", lanes(t, d, "demo", 60, clock), 50, 10)

	p.rate = policy.Rate{PerSecond: 100}
	clock = clock.Add(100 * time.Millisecond)
	lanes(t, d, "demo", 60, clock)
	clock = clock.Add(100 * time.Millisecond)
	wantLanes(t, "0.1 s after the policy got 100 a second", lanes(t, d, "demo", 20, clock), 10, 10)
	p.rate = policy.Rate{PerSecond: 100, Burst: 2}
	clock = clock.Add(time.Hour)
	wantLanes(t, "after the policy got 2 at once", lanes(t, d, "demo", 5, clock), 2, 3)

	want := `
# HELP harborseal_webhook_pushes_total Pushes that signing was asked for, by lane: bulk is what goes beyond a project's budget.
# TYPE harborseal_webhook_pushes_total counter
harborseal_webhook_pushes_total{lane="bulk"} 643
harborseal_webhook_pushes_total{lane="live"} 125
`
	if err := testutil.GatherAndCompare(d.gather, strings.NewReader(want), "harborseal_webhook_pushes_total"); err != nil {
		t.Error(err)
	}
}

func TestBudgetsAreForgottenOnlyWhereNothingIsLost(t *testing.T) {
	b := webhook.NewBudgets(policy.Rate{PerSecond: 1, Burst: 1})
	take := func(project string, at time.Time) artifact.Lane { return b.Lane(project, policy.Rate{}, at) }
	take("spent", now)
	for i := range webhook.MaxBudgets - 1 {
		take(fmt.Sprint("idle-", i), now.Add(-time.Minute))
	}
	if got := b.Len(); got != webhook.MaxBudgets {
		t.Fatalf("%d budgets are kept, want %d", got, webhook.MaxBudgets)
	}
	take("new", now)
	if got := b.Len(); got != 2 {
		t.Errorf("%d budgets are kept after one more, want the two that are in use", got)
	}
	if got := take("spent", now); got != artifact.Bulk {
		t.Errorf("lane of a project whose budget is spent = %s, want bulk: it was forgotten", got)
	}
	for i := range 3 * webhook.MaxBudgets {
		take(fmt.Sprint("busy-", i), now)
	}
	if got := b.Len(); got > webhook.MaxBudgets {
		t.Errorf("%d budgets are kept, want at most %d", got, webhook.MaxBudgets)
	}
}
