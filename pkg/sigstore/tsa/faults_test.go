package tsa_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/harborseal/harborseal/pkg/fault"
)

// What another refuses is told apart by who has to mend it.
func TestFaults(t *testing.T) {
	status := func(code int, header, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	raw := func(status timestamp.Status, info timestamp.FailureInfo) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write(refusal(t, status, info)) }
	}
	const text = "Content-Type: text/plain"
	for _, tt := range []struct {
		name  string
		reply func(http.ResponseWriter)
		want  fault.Reason
		after time.Duration
		says  string
	}{
		{"400", status(400, "Content-Type: application/json", `{"message":"bad\u0000 query"}`), fault.Rejected, 0, "bad"},
		{"401", status(401, text, "who?"), fault.Unauthorized, 0, "who?"},
		{"403", status(403, text, "no"), fault.Unauthorized, 0, "403"},
		{"404", status(404, text, "not here"), fault.BadAnswer, 0, "check the path"},
		{"405", status(405, text, ""), fault.BadAnswer, 0, "405"},
		{"407", status(407, text, ""), fault.Unreachable, 0, "proxy"},
		{"408", status(408, text, ""), fault.Timeout, 0, "408"},
		{"429", status(429, "Retry-After: 17", ""), fault.RateLimited, 17 * time.Second, "429"},
		{"429 without a delay", status(429, text, ""), fault.RateLimited, 0, "429"},
		{"500", status(500, text, "oops\nand\x1b[31m more"), fault.Unavailable, 0, "oops and [31m more"},
		{"503 with a date", status(503, "Retry-After: "+start.Add(time.Minute).Format(http.TimeFormat), ""), fault.Unavailable, time.Minute, "503"},
		{"a page of a proxy", status(502, "Content-Type: text/html", "<html>secret of the proxy</html>"), fault.Unavailable, 0, "502"},
		{"301", status(301, "Location: https://elsewhere.example.com/", ""), fault.ForeignOrigin, 0, "redirect"},
		{"204", status(204, text, ""), fault.BadAnswer, 0, "204"},
		{"no time", raw(timestamp.Rejection, timestamp.TimeNotAvailable), fault.Unavailable, 0, "PKI status 2"},
		{"system failure", raw(timestamp.Rejection, timestamp.SystemFailure), fault.Unavailable, 0, "PKI status 2"},
		{"waiting", raw(timestamp.Waiting, timestamp.BadRequest), fault.Unavailable, 0, "PKI status 3"},
		{"a policy", raw(timestamp.Rejection, timestamp.UnacceptedPolicy), fault.Rejected, 0, "PKI status 2"},
		{"an algorithm", raw(timestamp.Rejection, timestamp.BadAlgorithm), fault.Rejected, 0, "PKI status 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{chain: newChain(t), reply: tt.reply}
			_, _, err := newAuthority(t, configOf(s)).Stamp(t.Context(), message)
			if err == nil {
				t.Fatal("Stamp takes it")
			}
			got := fault.Of(err)
			if got.Kind != fault.Transient || got.Reason != tt.want || got.RetryAfter != tt.after {
				t.Errorf("Stamp: %v (%s, %s, %s), want a transient %s after %s", err, got.Kind, got.Reason, got.RetryAfter, tt.want, tt.after)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "html") || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("it says %q, want %q in it and no page", err, tt.says)
			}
			if s.requests != 1 {
				t.Errorf("%d requests were made, want 1", s.requests)
			}
		})
	}
}

type failing struct{ err error }

// RoundTrip implements http.RoundTripper.
func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

func TestConnectionFaults(t *testing.T) {
	open := fault.After(9*time.Second, fault.DependencyDown, errors.New("not asked"))
	for _, tt := range []struct {
		name  string
		err   error
		want  fault.Reason
		after time.Duration
	}{
		{"name", &net.DNSError{Err: "no such host", Name: "tsa.example.com", IsNotFound: true}, fault.Unreachable, 0},
		{"refused", &net.OpError{Op: "dial", Err: errors.New("connection refused")}, fault.Unreachable, 0},
		{"deadline", context.DeadlineExceeded, fault.Timeout, 0},
		{"canceled", context.Canceled, fault.Canceled, 0},
		{"a breaker's own fault", open, fault.DependencyDown, 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := configOf(&server{chain: newChain(t)})
			cfg.Transport = failing{tt.err}
			_, _, err := newAuthority(t, cfg).Stamp(t.Context(), message)
			if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != tt.want || got.RetryAfter != tt.after {
				t.Errorf("Stamp: %v (%s, %s, %s), want a transient %s after %s", err, got.Kind, got.Reason, got.RetryAfter, tt.want, tt.after)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("Stamp: %v, which has lost %v", err, tt.err)
			}
		})
	}
}

// Over a real connection: an authority that hangs, before or within its answer, costs the time limit, and the caller's
// own end counts at once.
func TestHanging(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/within" {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte{0x30})
			_ = http.NewResponseController(w).Flush()
		}
		arrived <- struct{}{}
		<-release
	}))
	transport := &http.Transport{}
	t.Cleanup(func() { close(release); transport.CloseIdleConnections(); s.Close() })
	for _, path := range []string{"/before", "/within"} {
		cfg := configOf(&server{chain: newChain(t)})
		cfg.URL, cfg.Transport, cfg.Timeout = s.URL+path, transport, 50*time.Millisecond
		_, _, err := newAuthority(t, cfg).Stamp(t.Context(), message)
		if got := fault.Of(err); got.Reason != fault.Timeout {
			t.Errorf("%s: Stamp: %v (%s), want a timeout", path, err, got.Reason)
		}
		<-arrived
		cfg.Timeout = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := newAuthority(t, cfg).Stamp(ctx, message)
			done <- err
		}()
		<-arrived
		cancel()
		if err := <-done; fault.Of(err).Reason != fault.Canceled {
			t.Errorf("%s: after its caller has gone, Stamp: %v (%s), want canceled", path, err, fault.Of(err).Reason)
		}
	}
}
