package harbor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/fault"
)

// transport turns every answer that is no success into a fault, before the generated client looks at it: that one knows
// only the statuses of Harbor's documentation, and loses Retry-After.
type transport struct {
	next    http.RoundTripper
	metrics *metrics
}

func newTransport(next http.RoundTripper, m *metrics) *transport {
	return &transport{next: next, metrics: m}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	started := time.Now()
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		t.metrics.observe("error", started)
		switch {
		case errors.Is(err, context.Canceled):
			return nil, err
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fault.New(fault.Transient, fault.Timeout, err)
		default:
			return nil, fault.New(fault.Transient, fault.Unreachable, err)
		}
	}
	t.metrics.observe(strconv.Itoa(resp.StatusCode/100)+"xx", started)
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return nil, statusFault(resp)
}

// statusFault is the table of Harbor's answers. A redirect is refused whatever its target: the API answers in place, and
// following would carry the credentials along.
func statusFault(resp *http.Response) error {
	err := fmt.Errorf("harbor answers %d%s", resp.StatusCode, errorText(resp.Body))
	switch code := resp.StatusCode; {
	case code/100 == 3:
		return fault.Newf(fault.Permanent, fault.ForeignOrigin, "harbor answers %d, a redirect: set harbor.url to Harbor's own address", code)
	case code == http.StatusUnauthorized:
		return fault.Newf(fault.Permanent, fault.Unauthorized, "%w: check the robot account's name and secret, and whether it has expired", err)
	case code == http.StatusForbidden:
		return fault.Newf(fault.Permanent, fault.Denied, "%w: the robot account lacks a right, or the project is not there", err)
	case code == http.StatusNotFound:
		return fault.New(fault.Gone, fault.NotFound, err)
	case code == http.StatusTooManyRequests:
		return fault.After(retryAfter(resp), fault.RateLimited, err)
	case code >= http.StatusInternalServerError:
		return fault.After(retryAfter(resp), fault.Unavailable, err)
	default:
		return fault.New(fault.Permanent, fault.Rejected, err)
	}
}

// retryAfter reads the delay in either of its two forms; 0 if there is none.
func retryAfter(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// errorText gives Harbor's own words, bounded and without control characters.
func errorText(body io.Reader) string {
	raw, err := io.ReadAll(io.LimitReader(body, 16<<10))
	if err != nil {
		return ""
	}
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return fmt.Sprintf(": %.200q", answer.Errors[0].Code+" "+answer.Errors[0].Message)
}

// wrap adds what was done. What is no fault by now came from reading an answer with a good status.
func wrap(doing string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address: it is long and says nothing new
	}
	_, known := errors.AsType[*fault.Error](err)
	if !known && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return fault.Newf(fault.Transient, fault.BadAnswer, "%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

type metrics struct {
	seconds *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "harborseal_harbor_request_seconds", Help: "Time of requests to Harbor's API, by class of the answer.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 13),
	}, []string{"code_class"})}
	if reg != nil {
		reg.MustRegister(m.seconds)
	}
	return m
}

func (m *metrics) observe(class string, started time.Time) {
	m.seconds.WithLabelValues(class).Observe(time.Since(started).Seconds())
}
