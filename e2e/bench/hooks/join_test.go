package hooks_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	quick := hooks.Answers{
		Sent: 5, Accepted: 1, Retryable: 2, Broken: map[string]int{"a": 1, "b": 1}, Took: time.Second, All: quantile.Spread{P50: 1}, Left: []int{1, 2},
	}
	slow := hooks.Answers{Sent: 3, Accepted: 1, Retryable: 1, Broken: map[string]int{"a": 1}, Took: time.Minute, All: quantile.Spread{P50: 2}, Left: []int{3}}
	for name, sum := range map[string]hooks.Answers{"one way": quick.Join(slow), "the other": slow.Join(quick), "behind nothing": (hooks.Answers{}).Join(quick).Join(slow)} {
		if sum.Sent != 8 || sum.Accepted != 2 || sum.Retryable != 3 || sum.Took != time.Minute+time.Second || sum.All.P50 != 2 || sum.Others() != 3 {
			t.Errorf("%s: got %+v, want the sums, and the times of the slower one", name, sum)
		}
		if left := slices.Sorted(slices.Values(sum.Left)); !slices.Equal(left, []int{1, 2, 3}) || !maps.Equal(sum.Broken, map[string]int{"a": 2, "b": 1}) {
			t.Errorf("%s: left %v, broken %v", name, sum.Left, sum.Broken)
		}
	}
	if quick.Broken["a"] != 1 {
		t.Error("what was joined has changed")
	}
}
