package tlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

const (
	// maxAnswer is how much of an answer is read, in bytes, maxErrorBody how much of one that is no success, and maxText how
	// much of another side's words an error repeats.
	maxAnswer    = 1 << 20
	maxErrorBody = 16 << 10
	maxText      = 256
)

// operation is what a request is for: a closed set, used as a label.
type operation string

const (
	opSubmit     operation = "submit"
	opEntry      operation = "entry"
	opInfo       operation = "info"
	opCheckpoint operation = "checkpoint"
	opTile       operation = "tile"
)

// answer is a complete answer.
type answer struct {
	op     operation
	status int
	header http.Header
	body   []byte
}

// get reads what must be there.
func (l *Log) get(ctx context.Context, op operation, u *url.URL, limit int64) ([]byte, error) {
	a, err := l.ask(ctx, op, http.MethodGet, u, nil, limit)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, l.statusFault(a)
	}
	return a.body, nil
}

// ask makes one request and reads the whole answer, whatever its status. A success of more bytes than the limit is a fault.
func (l *Log) ask(ctx context.Context, op operation, method string, u *url.URL, content []byte, limit int64) (answer, error) {
	started := time.Now()
	a, err := l.exchange(ctx, op, method, u, content, limit)
	l.metrics.observe(op, a.status, time.Since(started))
	if err != nil {
		return answer{}, err
	}
	return a, nil
}

func (l *Log) exchange(parent context.Context, op operation, method string, u *url.URL, content []byte, limit int64) (answer, error) {
	ctx, cancel := context.WithTimeout(parent, l.timeout)
	defer cancel()
	var reader io.Reader
	if content != nil {
		reader = bytes.NewReader(content)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return answer{}, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if l.userAgent != "" {
		req.Header.Set("User-Agent", l.userAgent)
	}
	resp, err := l.transport.RoundTrip(req)
	if err != nil {
		return answer{}, l.connectionFault(parent, ctx, err, u.Hostname())
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	a := answer{op: op, status: resp.StatusCode, header: resp.Header}
	if a.status/100 != 2 {
		limit = maxErrorBody
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return a, l.connectionFault(parent, ctx, fmt.Errorf("reading the answer: %w", err), u.Hostname())
	case int64(len(a.body)) > limit && a.status/100 == 2:
		return a, fault.Newf(fault.Transient, fault.BadAnswer, "the answer has more than %d bytes", limit)
	}
	return a, nil
}

// connectionFault is the fault of a request that got no answer. What is a fault already was made by the transport, which did
// not ask at all; what the caller cancelled is no fault.
func (l *Log) connectionFault(parent, ctx context.Context, err error, host string) error {
	if _, known := errors.AsType[*fault.Error](err); known {
		return err
	}
	if errors.Is(parent.Err(), context.Canceled) {
		return parent.Err() //nolint:wrapcheck // the caller says what was asked
	}
	err = new(redact.Redactor).Error(egress.WithCertificate(err, host), 2*maxText)
	var network net.Error
	if ctx.Err() != nil && parent.Err() == nil {
		return fault.Newf(fault.Transient, fault.Timeout, "no whole answer within %s: %w", l.timeout, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout() {
		return fault.New(fault.Transient, fault.Timeout, err)
	}
	return fault.New(fault.Transient, fault.Unreachable, err)
}

// statusFault is the table of answers that are no success. All of it passes, or is for an operator to mend: a log that was set up
// to refuse a kind of entry refuses those of all digests alike, and says so in the same way as of one that it cannot read.
func (l *Log) statusFault(a answer) error {
	said, own := a.said()
	err := fmt.Errorf("it answers %d%s", a.status, said)
	after := fault.RetryAfter(a.header, l.now())
	switch code := a.status; {
	case code/100 == 2:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w, which is unexpected", err)
	case code/100 == 3:
		return fault.Newf(fault.Transient, fault.ForeignOrigin, "%w, a redirect: set the log's url to its own address", err)
	case code == http.StatusUnauthorized:
		return fault.Newf(fault.Transient, fault.Unauthorized, "%w: something on the way asks for credentials", err)
	case code == http.StatusForbidden:
		return fault.New(fault.Transient, fault.Denied, err)
	case code == http.StatusProxyAuthRequired:
		return fault.Newf(fault.Transient, fault.Unreachable, "%w: a proxy on the way asks for credentials", err)
	case code == http.StatusRequestTimeout:
		return fault.After(after, fault.Timeout, err)
	case code == http.StatusTooManyRequests:
		return fault.After(after, fault.RateLimited, err)
	case code == http.StatusMethodNotAllowed && a.op == opSubmit:
		return fault.After(after, fault.LogUnavailable, fmt.Errorf("%w: it is frozen or no log: name another one", err))
	case code >= http.StatusInternalServerError, code == statusClientClosed:
		return fault.After(after, fault.LogUnavailable, err)
	case !own:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w: not in a log's words: look at the url, and for a proxy on the way", err)
	case a.op == opSubmit && code != http.StatusNotFound && code != http.StatusConflict:
		return fault.New(fault.Transient, fault.Rejected, err)
	default:
		return fault.Newf(fault.Transient, fault.BadAnswer, "%w", err)
	}
}

// statusClientClosed is what Rekor v2 answers when its own work was cancelled.
const statusClientClosed = 499

// said gives the log's words, and whether they are a log's at all.
//
// SPEC: Rekor v1 and v2: an error is {"code", "message"} in JSON.
func (a answer) said() (text string, own bool) {
	var words struct {
		Code    *int64  `json:"code"`
		Message *string `json:"message"`
	}
	if json.Unmarshal(a.body, &words) != nil || words.Code == nil || words.Message == nil {
		return "", false
	}
	return ": " + new(redact.Redactor).Text(*words.Message, maxText), true
}

// badAnswer is the fault of an answer that cannot be read.
func badAnswer(format string, args ...any) error {
	return fault.New(fault.Transient, fault.BadAnswer, new(redact.Redactor).Error(fmt.Errorf(format, args...), 2*maxText))
}

type metrics struct {
	seconds *prometheus.HistogramVec
}

// newMetrics has the name as a constant label, so that all logs share one registerer.
func newMetrics(reg prometheus.Registerer, name string) (*metrics, error) {
	m := &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:        "harborseal_log_request_seconds",
		Help:        "Time of requests to a transparency log, by what they are for and class of the answer (error: none).",
		ConstLabels: prometheus.Labels{"log": name},
		Buckets:     prometheus.ExponentialBuckets(0.005, 2, 14), // 5 ms to 41 s
	}, []string{"operation", "code_class"})}
	if reg == nil {
		return m, nil
	}
	if err := reg.Register(m.seconds); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return m, nil
}

// observe counts one request; status 0 means that there was no answer.
func (m *metrics) observe(op operation, status int, took time.Duration) {
	class := "error"
	if status > 0 {
		class = strconv.Itoa(status/100) + "xx"
	}
	m.seconds.WithLabelValues(string(op), class).Observe(took.Seconds())
}
