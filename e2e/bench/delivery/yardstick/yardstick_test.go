package yardstick_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	quick := yardstick.Loop{Webhooks: 100, InFlight: 10, Took: time.Second, CPU: 2, Latency: quantile.Spread{P50: 1, Max: 9}}
	slow := yardstick.Loop{Webhooks: 200, InFlight: 10, Took: 2 * time.Second, CPU: 3, Latency: quantile.Spread{P50: 2, Max: 5}}
	want := yardstick.Loop{Webhooks: 300, InFlight: 10, Took: 3 * time.Second, CPU: 5, Latency: slow.Latency}
	for _, got := range []yardstick.Loop{quick.Join(slow), slow.Join(quick)} {
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if got := want.Rate(); got != 100 {
		t.Errorf("the rate is %f, want 100", got)
	}
	if got := (yardstick.Loop{}).Rate(); got != 0 {
		t.Errorf("the rate of nothing is %f, want 0", got)
	}
}
