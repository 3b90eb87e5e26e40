package harbor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

const (
	// maxErrorBody is how much is read of an answer that is no success, and maxText how much of another side's words an
	// error repeats, in bytes.
	maxErrorBody = 16 << 10
	maxText      = 512
)

// transport turns every answer that is no success into a fault, before the generated client looks at it: that one knows
// only the statuses of Harbor's documentation, and loses Retry-After. It also adds the credentials, so that the generated client
// never has them. It is never changed.
type transport struct {
	next          http.RoundTripper
	limiter       Limiter // nil for none
	authorization string  // the header; empty for nobody
	account       string  // whose it is, for people
	userAgent     string
	redactor      *redact.Redactor
	metrics       *metrics
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if t.limiter != nil {
		if err := t.limiter.Wait(ctx); err != nil {
			return nil, waitFault(ctx, err)
		}
	}
	req = req.Clone(ctx) // a RoundTripper must not change what it is given
	req.Header.Set("User-Agent", t.userAgent)
	req.Header.Del("Authorization")
	if t.authorization != "" {
		req.Header.Set("Authorization", t.authorization)
	}
	// SPEC: recorded queries of Harbor 2.15: blanks as %20. A real plus sign is %2B already, and q has none: Harbor decodes it twice.
	req.URL.RawQuery = strings.ReplaceAll(req.URL.RawQuery, "+", "%20")
	started := time.Now()
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		t.metrics.observe("error", started)
		_, judged := errors.AsType[*fault.Error](err)
		switch {
		case judged, errors.Is(err, context.Canceled): // a transport that did not send it knows best why
			return nil, err
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fault.New(fault.Transient, fault.Timeout, err)
		default:
			return nil, fault.New(fault.Transient, fault.Unreachable, egress.WithCertificate(err, req.URL.Hostname()))
		}
	}
	t.metrics.observe(strconv.Itoa(resp.StatusCode/100)+"xx", started)
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return nil, t.statusFault(resp)
}

// waitFault is the fault of a request that could not wait for its turn.
func waitFault(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() //nolint:wrapcheck // the caller says what was asked
	}
	return fault.Newf(fault.Transient, fault.Timeout, "waiting for a turn among the requests to Harbor: %w", err)
}

// answerError is an answer that is no success.
type answerError struct {
	status int
	text   string
}

// Error implements error.
func (e *answerError) Error() string { return fmt.Sprintf("harbor answers %d%s", e.status, e.text) }

// statusOf gives the status of an answer that was no success; 0 if err is something else.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*answerError](err); ok {
		return answer.status
	}
	return 0
}

// statusFault is the table of Harbor's answers. A redirect is refused whatever its target: the API answers in place, and
// following would carry the credentials along.
func (t *transport) statusFault(resp *http.Response) error {
	err := &answerError{status: resp.StatusCode, text: t.errorText(resp.Body)}
	switch code := resp.StatusCode; {
	case code/100 == 3:
		return fault.Newf(fault.Permanent, fault.ForeignOrigin, "harbor answers %d, a redirect: set harbor.url to Harbor's own address", code)
	case code < http.StatusInternalServerError && judgedByWords(code) && mediaType(resp.Header) != "application/json":
		// SPEC: recorded answers of Harbor 2.15: a refusal is JSON by its header, to a HEAD too.
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w: not in Harbor's words, so it does not count: look for a proxy on the way", err)
	case code == http.StatusUnauthorized:
		return fault.Newf(fault.Permanent, fault.Unauthorized, "%w: check the name and the secret of %s, and whether it has expired", err, t.account)
	case code == http.StatusForbidden:
		return fault.Newf(fault.Permanent, fault.Denied, "%w: %s lacks a right, or the project is not there", err, t.account)
	case code == http.StatusNotFound:
		return fault.New(fault.Gone, fault.NotFound, err)
	case code == http.StatusProxyAuthRequired:
		return fault.Newf(fault.Transient, fault.Unreachable, "%w: a proxy on the way asks for credentials", err)
	case code == http.StatusRequestTimeout:
		return fault.New(fault.Transient, fault.Timeout, err)
	case code == http.StatusTooManyRequests:
		return fault.After(fault.RetryAfter(resp.Header, time.Now()), fault.RateLimited, err)
	case code >= http.StatusInternalServerError:
		return fault.After(fault.RetryAfter(resp.Header, time.Now()), fault.Unavailable, err)
	default:
		// 409 too: to the API it says that a name is taken, which does not pass. (To the registry it is another writer.)
		return fault.New(fault.Permanent, fault.Rejected, err)
	}
}

// judgedByWords says whether a status means something for good only if Harbor says so: what a proxy answers in its place passes.
func judgedByWords(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return true
	}
}

// mediaType gives the content type without parameters; empty if there is none that can be read.
func mediaType(header http.Header) string {
	parsed, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return parsed
}

// errorText gives Harbor's own words.
func (t *transport) errorText(body io.Reader) string {
	raw, err := io.ReadAll(io.LimitReader(body, maxErrorBody))
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
	return ": " + t.redactor.Text(answer.Errors[0].Code+" "+answer.Errors[0].Message, maxText/2)
}

// wrap adds what was done, and cleans the text: errors of a connection or of a parser repeat what they met. What is no
// fault by now came from reading an answer with a good status.
func (c *Client) wrap(doing string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address: it is long and says nothing new
	}
	err = c.redactor.Error(err, maxText)
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
