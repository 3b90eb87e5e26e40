package ledger_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/ledger"
)

func TestSignTimeBuckets(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-time.Hour: 0, 0: 0, 999 * time.Microsecond: 0, time.Millisecond: 1, 7 * time.Millisecond: 7, 15 * time.Millisecond: 15,
		16 * time.Millisecond: 16, 17 * time.Millisecond: 16, 18 * time.Millisecond: 17, 32 * time.Millisecond: 24, time.Second: 63, 1 << 62: 303,
	} {
		if got := ledger.SignTimeBucket(d); got != want {
			t.Errorf("SignTimeBucket(%s) = %d, want %d", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(30*365*24*time.Hour)).Draw(t, "time"))
		from, to := ledger.SignTimeBounds(ledger.SignTimeBucket(d))
		if d < from || d >= to || to-from > max(time.Millisecond, from/8) {
			t.Fatalf("%s is in %s to %s, want a bucket around it, at most an eighth wide", d, from, to)
		}
	})
}

func TestDayOf(t *testing.T) {
	for text, want := range map[string]ledger.Day{
		"1970-01-01T00:00:00Z": 0, "1970-01-01T23:59:59.999999Z": 0, "1969-12-31T23:59:59.999999Z": -1, "1969-12-31T00:00:00Z": -1,
		"1969-12-30T23:59:59Z": -2, "2026-01-31T23:30:00-02:00": 20485,
	} {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		got := ledger.DayOf(at)
		if got != want || got.Start().After(at) || !(got + 1).Start().After(at) {
			t.Errorf("DayOf(%s) = %d from %s, want %d", text, got, got.Start(), want)
		}
	}
}
