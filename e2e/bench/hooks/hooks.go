// Package hooks sends webhooks as Harbor does, many at once, and tells what came back.
//
// It writes HTTP/1.1 by hand: the sender shares the processors with what it measures, and net/http's client would take several
// times as much of them. It retries nothing by itself.
package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/quantile"
)

// patience is how long an answer is waited for: much longer than Harbor waits, so that a slow one is seen as what it is.
const patience = 15 * time.Second

// Target is where webhooks go.
type Target struct {
	host, path, auth string
}

// NewTarget takes the address of a project's webhooks, over plain HTTP, and the Authorization that opens it.
func NewTarget(address, auth string) (Target, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return Target{}, fmt.Errorf("sending webhooks to %q: want http, a host and a port", address)
	}
	return Target{host: u.Host, path: u.Path, auth: auth}, nil
}

// Order says what is sent, and how.
type Order struct {
	// Webhooks number those that are sent, in this order; Body gives each its body. It is called concurrently.
	Webhooks []int
	Body     func(webhook int) []byte
	// AtOnce is how many are under way at once.
	AtOnce int
	// Apart gives each webhook a connection of its own. Else there are AtOnce connections, which are kept open.
	Apart bool
}

// Answers are what came back. Durations are from the opening of the connection, where there is one for each webhook, or the
// first byte that was sent, to the last byte of the answer.
type Answers struct {
	Sent     int `json:"sent"`
	Accepted int `json:"accepted"`
	// Retryable were refused with 503 and Retry-After.
	Retryable int `json:"retryable"`
	// Broken got any other answer, or none, by what it was.
	Broken map[string]int `json:"broken,omitempty"`
	Took   time.Duration  `json:"took_ns"`
	// All are the durations of all that were answered, Acceptance of those that were accepted.
	All        quantile.Spread `json:"all"`
	Acceptance quantile.Spread `json:"acceptance"`
	// Left are the webhooks that were not accepted.
	Left []int `json:"-"`
}

// Rate is how many were accepted in a second.
func (a Answers) Rate() float64 {
	if a.Took <= 0 {
		return 0
	}
	return float64(a.Accepted) / a.Took.Seconds()
}

// Others counts what was neither accepted nor refused as it has to be.
func (a Answers) Others() int {
	n := 0
	for count := range maps.Values(a.Broken) {
		n += count
	}
	return n
}

// Join takes two runs together, one after the other. Durations are those of the slower one.
func (a Answers) Join(other Answers) Answers {
	sum := a
	if other.All.P50 > a.All.P50 {
		sum = other
	}
	sum.Sent, sum.Accepted, sum.Retryable, sum.Took = a.Sent+other.Sent, a.Accepted+other.Accepted, a.Retryable+other.Retryable, a.Took+other.Took
	sum.Broken = map[string]int{}
	for _, broken := range []map[string]int{a.Broken, other.Broken} {
		for what, n := range broken {
			sum.Broken[what] += n
		}
	}
	sum.Left = slices.Concat(a.Left, other.Left)
	return sum
}

// outcomes of one webhook; any other text is what went wrong.
const (
	accepted  = "accepted"
	retryable = "retryable"
)

// Send sends all webhooks of an order and waits for the answers. The error is that of ctx.
func Send(ctx context.Context, to Target, o Order) (Answers, error) {
	var next atomic.Int64
	tallies := make([]tally, min(max(1, o.AtOnce), max(1, len(o.Webhooks))))
	var senders sync.WaitGroup
	begun := time.Now()
	for i := range tallies {
		senders.Go(func() {
			s := sender{to: to, apart: o.Apart}
			defer s.close()
			for at := int(next.Add(1)) - 1; at < len(o.Webhooks) && ctx.Err() == nil; at = int(next.Add(1)) - 1 {
				webhook := o.Webhooks[at]
				outcome, took := s.send(ctx, o.Body(webhook))
				tallies[i].count(webhook, outcome, took)
			}
		})
	}
	senders.Wait()
	a := sum(tallies)
	a.Took = time.Since(begun)
	return a, context.Cause(ctx)
}

// tally is what one sender has seen.
type tally struct {
	outcomes       map[string]int
	accepted, rest []time.Duration // rest are those of other answers
	left           []int
}

func (t *tally) count(webhook int, outcome string, took time.Duration) {
	if t.outcomes == nil {
		t.outcomes = map[string]int{}
	}
	t.outcomes[outcome]++
	if outcome == accepted {
		t.accepted = append(t.accepted, took)
		return
	}
	t.left = append(t.left, webhook)
	t.rest = append(t.rest, took)
}

func sum(tallies []tally) Answers {
	a := Answers{Broken: map[string]int{}}
	var all, ofAccepted []time.Duration
	for _, t := range tallies {
		for outcome, n := range t.outcomes {
			a.Sent += n
			switch outcome {
			case accepted:
				a.Accepted += n
			case retryable:
				a.Retryable += n
			default:
				a.Broken[outcome] += n
			}
		}
		all, ofAccepted, a.Left = append(append(all, t.accepted...), t.rest...), append(ofAccepted, t.accepted...), append(a.Left, t.left...)
	}
	a.All, a.Acceptance = quantile.Of(all), quantile.Of(ofAccepted)
	return a
}

// sender sends one webhook after the other.
type sender struct {
	to    Target
	apart bool
	conn  net.Conn
	in    *bufio.Reader
}

func (s *sender) close() {
	if s.conn != nil {
		_ = s.conn.Close() // all that was wanted of it has come
		s.conn = nil
	}
}

// send gives what became of a webhook, and how long it took.
func (s *sender) send(ctx context.Context, body []byte) (outcome string, took time.Duration) {
	begun := time.Now()
	outcome, last, err := s.exchange(ctx, body)
	took = time.Since(begun)
	if err != nil {
		outcome = class(err)
	}
	if err != nil || last || s.apart {
		s.close()
	}
	return outcome, took
}

// exchange sends a webhook and reads the answer to its end. last says that nothing more can be sent on the connection.
func (s *sender) exchange(ctx context.Context, body []byte) (outcome string, last bool, err error) {
	if s.conn == nil {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", s.to.host)
		if err != nil {
			return "", false, err
		}
		s.conn, s.in = conn, bufio.NewReader(conn)
	}
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", false, err
	}
	connection := "keep-alive"
	if s.apart {
		connection = "close"
	}
	request := make([]byte, 0, len(body)+512)
	request = fmt.Appendf(request, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\nAuthorization: %s\r\n"+
		"Content-Type: application/json\r\nConnection: %s\r\n\r\n", s.to.path, s.to.host, len(body), s.to.auth, connection)
	if _, err := s.conn.Write(append(request, body...)); err != nil {
		return "", false, err
	}
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return "", false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return judge(resp), resp.Close, errors.Join(err, resp.Body.Close())
}

// judge says what an answer means to Harbor.
func judge(resp *http.Response) string {
	switch {
	case resp.StatusCode == http.StatusAccepted:
		return accepted
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return retryable
	default:
		return "status " + strconv.Itoa(resp.StatusCode)
	}
}

// class names an error; the names are few.
func class(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection broken"
	default:
		return "failed"
	}
}
