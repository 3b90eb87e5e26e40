package fault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	at := func(delay time.Duration) string { return now.Add(delay).Format(http.TimeFormat) }
	for _, tt := range []struct {
		name, value string
		want        time.Duration
	}{
		{"none", "", 0},
		{"seconds", "17", 17 * time.Second},
		{"blanks", " 17 ", 17 * time.Second},
		{"zero", "0", 0},
		{"too many seconds", "99999999", time.Hour},
		{"more than fits", "99999999999999999999", 0},
		{"negative", "-1", 0},
		{"a fraction", "1.5", 0},
		{"garbage", "soon", 0},
		{"a date", at(10 * time.Minute), 10 * time.Minute},
		{"a date too far away", at(1000 * time.Hour), time.Hour},
		{"a date in the past", at(-time.Minute), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fault.RetryAfter(http.Header{"Retry-After": {tt.value}}, now); got != tt.want {
				t.Errorf("RetryAfter(%q) = %s, want %s", tt.value, got, tt.want)
			}
		})
	}
}
