package quantile_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/quantile"
)

func TestOf(t *testing.T) {
	t.Parallel()
	upTo := func(n int) []time.Duration {
		all := make([]time.Duration, 0, n)
		for i := n; i > 0; i-- { // the wrong way round
			all = append(all, time.Duration(i))
		}
		return all
	}
	for name, tt := range map[string]struct {
		of   []time.Duration
		want quantile.Spread
	}{
		"none":     {nil, quantile.Spread{}},
		"one":      {upTo(1), quantile.Spread{Count: 1, P50: 1, P99: 1, Max: 1}},
		"two":      {upTo(2), quantile.Spread{Count: 2, P50: 1, P99: 2, Max: 2}},
		"hundred":  {upTo(100), quantile.Spread{Count: 100, P50: 50, P99: 99, Max: 100}},
		"one more": {upTo(101), quantile.Spread{Count: 101, P50: 51, P99: 100, Max: 101}},
	} {
		if got := quantile.Of(tt.of); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	s := quantile.Spread{Count: 3, P50: 1234567, P99: 23456789, Max: 3456789012}
	if got, want := s.String(), "1.23ms / 23.5ms / 3.46s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (quantile.Spread{}).String(); got != "-" {
		t.Errorf("of none: got %q, want -", got)
	}
}
