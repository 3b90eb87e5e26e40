// Package quantile sums up durations that were measured one by one.
package quantile

import (
	"fmt"
	"slices"
	"time"
)

// Spread is what is told of many durations. All are 0 if there were none.
type Spread struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Of sorts the durations and sums them up. A quantile is the least of them that so many percent do not exceed.
func Of(durations []time.Duration) Spread {
	if len(durations) == 0 {
		return Spread{}
	}
	slices.Sort(durations)
	at := func(percent int) time.Duration { return durations[(len(durations)*percent+99)/100-1] }
	return Spread{Count: len(durations), P50: at(50), P99: at(99), Max: at(100)}
}

// String is for people: p50 / p99 / max.
func (s Spread) String() string {
	if s.Count == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s / %s", round(s.P50), round(s.P99), round(s.Max))
}

// round keeps about three digits.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(10 * time.Microsecond)
	}
}
