package tlog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // what the server takes
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore/tlog"
)

const (
	inWords = `{"code":3,"message":"no"}`
	html    = "<html><body>proxy of the company</body></html>"
)

func TestStatuses(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body       string
		kind       fault.Kind
		reason     fault.Reason
		retryAfter bool
	}{
		{200, html, fault.Transient, fault.BadAnswer, false},
		{201, html, fault.Transient, fault.BadAnswer, false},
		{201, "", fault.Transient, fault.BadAnswer, false},
		{201, "null", fault.Transient, fault.BadAnswer, false},
		{201, `{"a":{"logID":"zz"}}`, fault.Transient, fault.BadAnswer, false},
		{201, strings.Repeat(" ", 2<<20), fault.Transient, fault.BadAnswer, false},
		{204, "", fault.Transient, fault.BadAnswer, false},
		{301, "", fault.Transient, fault.ForeignOrigin, false},
		{307, inWords, fault.Transient, fault.ForeignOrigin, false},
		{400, inWords, fault.Transient, fault.Rejected, false},
		{400, html, fault.Transient, fault.BadAnswer, false},
		{401, inWords, fault.Transient, fault.Unauthorized, false},
		{403, html, fault.Transient, fault.Denied, false},
		{404, html, fault.Transient, fault.BadAnswer, false},
		{404, inWords, fault.Transient, fault.BadAnswer, false},
		{405, "This log has been frozen, please switch to the latest log.", fault.Transient, fault.LogUnavailable, false},
		{407, html, fault.Transient, fault.Unreachable, false},
		{408, html, fault.Transient, fault.Timeout, true},
		{409, html, fault.Transient, fault.BadAnswer, false},
		{413, html, fault.Transient, fault.BadAnswer, false},
		{413, inWords, fault.Transient, fault.Rejected, false},
		{422, inWords, fault.Transient, fault.Rejected, false},
		{429, html, fault.Transient, fault.RateLimited, true},
		{499, inWords, fault.Transient, fault.LogUnavailable, true},
		{500, inWords, fault.Transient, fault.LogUnavailable, true},
		{501, html, fault.Transient, fault.LogUnavailable, true},
		{502, html, fault.Transient, fault.LogUnavailable, true},
		{503, inWords, fault.Transient, fault.LogUnavailable, true},
		{504, strings.Repeat("x", 1<<20), fault.Transient, fault.LogUnavailable, true},
	} {
		for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
			t.Run(fmt.Sprintf("%s/%d/%.20s", kind, tt.status, tt.body), func(t *testing.T) {
				if kind == policy.RekorV2 && tt.status == 201 && strings.HasPrefix(tt.body, `{"a"`) {
					t.Skip("an answer of Rekor v1")
				}
				v := newVirtualLog(t, kind, 0)
				requests := 0
				v.instead = func(w http.ResponseWriter, _ *http.Request) bool {
					requests++
					w.Header().Set("Retry-After", "17")
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.body)
					return true
				}
				l := client(t, v)
				_, err := l.Submit(t.Context(), sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload"))
				wantFault(t, err, tt.kind, tt.reason)
				if requests != 1 {
					t.Errorf("got %d requests, want one attempt", requests)
				}
				if got := fault.Of(err).RetryAfter; tt.retryAfter && got != 17*time.Second {
					t.Errorf("got the delay %s, want 17s", got)
				}
				if text := err.Error(); len(text) > 1000 || strings.Contains(text, "<html>") || !strings.Contains(text, "company") {
					t.Errorf("got the error %q, want a short one with the log's name", text)
				}
				// Nothing that is asked of a log besides is ever permanent.
				if err := l.Probe(t.Context()); err == nil || !fault.Is(err, fault.Transient) {
					t.Errorf("Probe: got %v, want a transient fault", err)
				}
			})
		}
	}
}

// A date in Retry-After counts from the configured time.
func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	v := newVirtualLog(t, policy.RekorV2, 0)
	v.instead = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", now.Add(3*time.Minute).Format(http.TimeFormat))
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	err := client(t, v, func(c *tlog.Config) { c.Now = func() time.Time { return now } }).Probe(t.Context())
	wantFault(t, err, fault.Transient, fault.RateLimited)
	if got, want := fault.Of(err).RetryAfter, 3*time.Minute; got != want {
		t.Errorf("got the delay %s, want %s", got, want)
	}
}

// What a log answers that has the entry already, but does not give it.
func TestConflicts(t *testing.T) {
	s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	t.Run("v1, not sequenced", func(t *testing.T) {
		v := newVirtualLog(t, policy.RekorV1, 1)
		submit(t, v, s)
		v.publish(1)
		_, err := client(t, v).Submit(t.Context(), s)
		wantFault(t, err, fault.Transient, fault.LogUnavailable)
		if got := fault.Of(err).RetryAfter; got <= 0 || got > 5*time.Second {
			t.Errorf("got the delay %s, want a short one", got)
		}
	})
	t.Run("v2, not published", func(t *testing.T) {
		v := newVirtualLog(t, policy.RekorV2, 1)
		submit(t, v, s)
		v.publish(1)
		_, err := client(t, v).Submit(t.Context(), s)
		wantFault(t, err, fault.Transient, fault.LogUnavailable)
		if got := fault.Of(err).RetryAfter; got <= 0 || got > 5*time.Second {
			t.Errorf("got the delay %s, want a short one", got)
		}
	})
	for name, location := range map[string]string{
		"v1, no name": "", "v1, a bad name": "/api/v1/log/entries/../../secrets", "v1, elsewhere": "http://127.0.0.1:1/x",
		"v1, a short name": "/api/v1/log/entries/abcd",
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV1, 0)
			v.instead = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost {
					t.Errorf("got a request for %s, which is no name", r.URL.Path)
				}
				w.Header().Set("Location", location)
				writeError(w, http.StatusConflict, "an equivalent entry already exists")
				return true
			}
			_, err := client(t, v).Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, fault.BadAnswer)
		})
	}
	t.Run("v1, of another host", func(t *testing.T) {
		v := newVirtualLog(t, policy.RekorV1, 1)
		submit(t, v, s)
		v.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			answer := &recorded{header: w.Header()}
			v.submitV1(answer, r)
			w.Header().Set("Location", "http://127.0.0.1:1"+w.Header().Get("Location"))
			w.WriteHeader(answer.status)
			_, _ = w.Write(answer.body.Bytes())
			return true
		}
		if _, err := client(t, v).Submit(t.Context(), s); err != nil {
			t.Errorf("Submit: %v: only the name counts", err)
		}
	})
	for name, tt := range map[string]struct {
		header, message string
		found           bool
	}{
		"v2, header alone":       {"1", "no", true},
		"v2, message alone":      {"", "an equivalent entry already exists in the transparency log with index 1", true},
		"v2, wrapped":            {"", "add entry: an equivalent entry already exists in the transparency log with index 1.", true},
		"v2, no index":           {"", "an equivalent entry already exists", false},
		"v2, negative index":     {"-1", "with index -1", false},
		"v2, index no number":    {"one", "with index one", false},
		"v2, index out of range": {"99999999999999999999", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV2, 1)
			submit(t, v, s)
			v.instead = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost {
					return false
				}
				w.Header().Set("X-Log-Index", tt.header)
				writeError(w, http.StatusConflict, tt.message)
				return true
			}
			e, err := client(t, v).Submit(t.Context(), s)
			if !tt.found {
				wantFault(t, err, fault.Transient, fault.BadAnswer)
				return
			}
			if err != nil || e.Index != 1 {
				t.Errorf("got the entry %d (%v), want 1", e.Index, err)
			}
		})
	}
	t.Run("v2, another's index", func(t *testing.T) {
		v := newVirtualLog(t, policy.RekorV2, 3)
		v.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			w.Header().Set("X-Log-Index", "1")
			writeError(w, http.StatusConflict, "")
			return true
		}
		_, err := client(t, v).Submit(t.Context(), s)
		wantFault(t, err, fault.Transient, fault.ProofInvalid)
	})
}

func submit(t *testing.T, v *virtualLog, s artifact.Signature) {
	t.Helper()
	if _, err := client(t, v).Submit(t.Context(), s); err != nil {
		t.Fatalf("Submit: %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestConnectionFaults(t *testing.T) {
	s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	hang := func(r *http.Request) (*http.Response, error) { //nolint:unparam // it is a round tripper
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for _, tt := range []struct {
		name   string
		trip   roundTripper
		reason fault.Reason
	}{
		{"unknown name", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "log.example.com", IsNotFound: true}}
		}, fault.Unreachable},
		{"name server hangs", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", Name: "log.example.com", IsTimeout: true}}
		}, fault.Timeout},
		{"refused", func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		}, fault.Unreachable},
		{"hangs", hang, fault.Timeout},
		{"hangs in the body", func(r *http.Request) (*http.Response, error) {
			body := roundReader(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, r.Context().Err()
			})
			return &http.Response{StatusCode: 201, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		}, fault.Timeout},
		{"breaks off", func(*http.Request) (*http.Response, error) {
			body := roundReader(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })
			return &http.Response{StatusCode: 201, Header: http.Header{}, Body: io.NopCloser(body)}, nil
		}, fault.Unreachable},
		{"not asked", func(*http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("breaker: %w", fault.After(9*time.Second, fault.DependencyDown, errors.New("open")))
		}, fault.DependencyDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVirtualLog(t, policy.RekorV1, 0)
			l := client(t, v, func(c *tlog.Config) { c.Transport, c.Timeout = tt.trip, 50*time.Millisecond })
			_, err := l.Submit(t.Context(), s)
			wantFault(t, err, fault.Transient, tt.reason)
			if got := fault.Of(err).RetryAfter; tt.reason == fault.DependencyDown && got != 9*time.Second {
				t.Errorf("got the delay %s, want the breaker's", got)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := client(t, newVirtualLog(t, policy.RekorV1, 0), func(c *tlog.Config) {
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				cancel()
				return hang(r)
			})
		})
		_, err := l.Submit(ctx, s)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		wantFault(t, err, fault.Transient, fault.Canceled)
	})
	t.Run("the caller's deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		l := client(t, newVirtualLog(t, policy.RekorV1, 0), func(c *tlog.Config) { c.Transport = roundTripper(hang) })
		_, err := l.Submit(ctx, s)
		wantFault(t, err, fault.Transient, fault.Timeout)
	})
}

type roundReader func([]byte) (int, error)

func (f roundReader) Read(p []byte) (int, error) { return f(p) }

func TestCertificateNotTrusted(t *testing.T) {
	v := newVirtualLog(t, policy.RekorV1, 0)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	l := client(t, v, func(c *tlog.Config) { c.URL = server.URL })
	wantFault(t, l.Probe(t.Context()), fault.Transient, fault.Unreachable)
}

func TestNewRefuses(t *testing.T) {
	p256, ed := newSigner(t, "P-256"), newSigner(t, "Ed25519")
	good := func(kind policy.LogType) tlog.Config {
		return tlog.Config{Name: "company", Type: kind, URL: "https://log.example.com", PublicKey: inPEM(t, p256.Public()), Transport: newTransport(t)}
	}
	for _, tt := range []struct {
		name string
		edit func(*tlog.Config)
		want string // empty: it is taken
	}{
		{"v1", func(*tlog.Config) {}, ""},
		{"a path", func(c *tlog.Config) { c.URL = "https://example.com/rekor/" }, ""},
		{"v2", func(c *tlog.Config) { c.Type = policy.RekorV2 }, ""},
		{"v2, Ed25519", func(c *tlog.Config) { c.Type, c.PublicKey = policy.RekorV2, inPEM(t, ed.Public()) }, ""},
		{"no name", func(c *tlog.Config) { c.Name = "" }, "no name"},
		{"no type", func(c *tlog.Config) { c.Type = "" }, "type"},
		{"no url", func(c *tlog.Config) { c.URL = "" }, "url"},
		{"credentials", func(c *tlog.Config) { c.URL = "https://user:hunter2@log.example.com" }, "credentials"},
		{"another scheme", func(c *tlog.Config) { c.URL = "ftp://log.example.com" }, "url"},
		{"a query", func(c *tlog.Config) { c.URL = "https://log.example.com?a=b" }, "url"},
		{"no key", func(c *tlog.Config) { c.PublicKey = nil }, "public key"},
		{"v1, Ed25519", func(c *tlog.Config) { c.PublicKey = inPEM(t, ed.Public()) }, "P-256"},
		{"v1, an origin", func(c *tlog.Config) { c.Origin = "a" }, "origin"},
		{"v1, tiles", func(c *tlog.Config) { c.TilesURL = "https://a" }, "tiles"},
		{"v2, bad tiles", func(c *tlog.Config) { c.Type, c.TilesURL = policy.RekorV2, "a" }, "tiles_url"},
		{"v2, bad origin", func(c *tlog.Config) { c.Type, c.Origin = policy.RekorV2, "a b" }, "origin"},
		{"no transport", func(c *tlog.Config) { c.Transport = nil }, "transport"},
		{"negative timeout", func(c *tlog.Config) { c.Timeout = -1 }, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good(policy.RekorV1)
			tt.edit(&c)
			_, err := tlog.New(c)
			if tt.want == "" {
				if err != nil {
					t.Errorf("New: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got the error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	v1, v2 := newVirtualLog(t, policy.RekorV1, 1), newVirtualLog(t, policy.RekorV2, 1)
	a := client(t, v1, func(c *tlog.Config) { c.Registerer = registry })
	b := client(t, v2, func(c *tlog.Config) { c.Registerer, c.Name = registry, "other" })
	s := sign(t, newSigner(t, "P-256"), artifact.Bundle, "a payload")
	for _, l := range []*tlog.Log{a, b} {
		for range 2 {
			if _, err := l.Submit(t.Context(), s); err != nil {
				t.Fatalf("Submit: %v", err)
			}
		}
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("got %d families (%v), want 1", len(families), err)
	}
	got := make(map[string]uint64)
	for _, m := range families[0].GetMetric() {
		labels := make([]string, 0, 3)
		for _, one := range m.GetLabel() {
			labels = append(labels, one.GetValue())
		}
		got[strings.Join(labels, " ")] = m.GetHistogram().GetSampleCount()
	}
	want := map[string]uint64{
		"2xx company submit": 1, "4xx company submit": 1, "2xx company entry": 1,
		"2xx other submit": 1, "4xx other submit": 1, "2xx other checkpoint": 1, "2xx other tile": 2,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := tlog.New(tlog.Config{
		Name: "company", Type: policy.RekorV1, URL: "http://a", PublicKey: inPEM(t, v1.key.Public()),
		Transport: newTransport(t), Registerer: registry,
	}); err == nil {
		t.Error("New took a second log of the same name")
	}
}
