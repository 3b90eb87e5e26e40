package fault

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter keeps another side from putting work off for ever.
const maxRetryAfter = time.Hour

// RetryAfter gives the delay that an answer asks for: at most an hour, and 0 if it asks for none that can be read.
//
// SPEC: RFC 9110, section 10.2.3: Retry-After is a number of seconds or an HTTP date.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
