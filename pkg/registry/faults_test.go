package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

// recorded is an answer of a real Harbor.
func recorded(tb testing.TB, name string) (status int, body string) {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json")) //nolint:gosec // a file of the test
	if err != nil {
		tb.Fatal(err)
	}
	type answer struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	}
	var recording struct {
		answer

		Response answer `json:"response"`
	}
	if err := json.Unmarshal(raw, &recording); err != nil {
		tb.Fatal(err)
	}
	a := recording.Response
	if a.Status == 0 {
		a = recording.answer
	}
	var text string
	if json.Unmarshal(a.Body, &text) == nil {
		return a.Status, text
	}
	return a.Status, string(a.Body)
}

type statusCase struct {
	name   string
	status int
	header map[string]string
	body   string
	kind   fault.Kind
	reason fault.Reason
	after  time.Duration
	// says must stand in the error.
	says []string
	// asked is what the answer means when it is about credentials, and listed when it is about a listing; empty for the
	// same. Both are transient.
	asked, listed fault.Reason
	// only names the one operation that the answer can be for.
	only string
}

// inTenMinutes stands for the date that is ten minutes after the answer.
const inTenMinutes = "in ten minutes"

func code(code, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func statusCases(tb testing.TB) []statusCase {
	tb.Helper()
	cases := []statusCase{
		{name: "gone: manifest", status: 404, body: code("MANIFEST_UNKNOWN", "m"), kind: fault.Gone, reason: fault.NotFound, asked: fault.BadAnswer, listed: fault.BadAnswer},
		{name: "gone: repository", status: 404, body: code("NAME_UNKNOWN", "m"), kind: fault.Gone, reason: fault.NotFound, asked: fault.BadAnswer},
		{name: "gone: blob", status: 404, body: code("BLOB_UNKNOWN", "m"), kind: fault.Gone, reason: fault.NotFound, asked: fault.BadAnswer, listed: fault.BadAnswer},
		{name: "gone: Harbor's own word", status: 404, body: code("NOT_FOUND", "m"), kind: fault.Gone, reason: fault.NotFound, asked: fault.BadAnswer, listed: fault.BadAnswer},
		{name: "404 of a registry without the API", status: 404, header: map[string]string{"Content-Type": "text/plain"}, body: "404 page not found\n", kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 without a body", status: 404, kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 of a proxy", status: 404, body: "<html>not found</html>", kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 with another code", status: 404, body: code("SOMETHING", "m"), kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 with errors of another shape", status: 404, body: `{"errors":"NOT_FOUND"}`, kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 beyond what is read", status: 404, body: code("NOT_FOUND", strings.Repeat("x", 1<<17)), kind: fault.Transient, reason: fault.BadAnswer},
		{name: "404 of a lost upload", status: 404, body: code("BLOB_UPLOAD_UNKNOWN", "m"), kind: fault.Transient, reason: fault.BadAnswer, says: []string{"the upload was lost"}, only: "upload, finish"},
		{name: "401", status: 401, kind: fault.Permanent, reason: fault.Unauthorized, says: []string{username, "secret"}},
		{name: "403", status: 403, body: code("DENIED", "no"), kind: fault.Permanent, reason: fault.Denied, says: []string{username, "repository:push"}},
		{name: "403 of a proxy", status: 403, body: "<html>", kind: fault.Transient, reason: fault.BadAnswer, says: []string{"proxy"}},
		{name: "407", status: 407, kind: fault.Transient, reason: fault.Unreachable},
		{name: "408", status: 408, kind: fault.Transient, reason: fault.Timeout},
		{name: "409", status: 409, kind: fault.Transient, reason: fault.ConcurrentWriter},
		{name: "412 of another kind", status: 412, body: code("PRECONDITION", "m"), kind: fault.Permanent, reason: fault.Rejected},
		{name: "400 blob unknown", status: 400, body: code("MANIFEST_BLOB_UNKNOWN", "m"), kind: fault.Transient, reason: fault.BlobUnknown},
		{name: "400 manifest invalid", status: 400, body: code("MANIFEST_INVALID", "m"), kind: fault.Permanent, reason: fault.Rejected, says: []string{"MANIFEST_INVALID m"}},
		{name: "400 of a proxy", status: 400, body: "what?", kind: fault.Transient, reason: fault.BadAnswer, says: []string{"what?"}},
		{name: "412 of a proxy", status: 412, kind: fault.Transient, reason: fault.BadAnswer},
		{name: "400 digest invalid", status: 400, body: code("DIGEST_INVALID", "m"), kind: fault.Transient, reason: fault.BadAnswer, only: "upload, finish"},
		{name: "405", status: 405, body: code("UNSUPPORTED", "m"), kind: fault.Permanent, reason: fault.Rejected},
		{name: "413", status: 413, body: code("TOOBIG", "m"), kind: fault.Permanent, reason: fault.Rejected},
		{name: "413 of a proxy", status: 413, body: "<html>", kind: fault.Transient, reason: fault.BadAnswer},
		{name: "416", status: 416, kind: fault.Transient, reason: fault.BadAnswer},
		{name: "429", status: 429, kind: fault.Transient, reason: fault.RateLimited},
		{name: "429 with seconds", status: 429, header: map[string]string{"Retry-After": "17"}, kind: fault.Transient, reason: fault.RateLimited, after: 17 * time.Second},
		{name: "429 with too many seconds", status: 429, header: map[string]string{"Retry-After": "99999999"}, kind: fault.Transient, reason: fault.RateLimited, after: time.Hour},
		{name: "429 with garbage", status: 429, header: map[string]string{"Retry-After": "soon"}, kind: fault.Transient, reason: fault.RateLimited},
		{name: "429 with a date in the past", status: 429, header: map[string]string{"Retry-After": "Mon, 02 Jan 2006 15:04:05 GMT"}, kind: fault.Transient, reason: fault.RateLimited},
		{name: "429 with a date", status: 429, header: map[string]string{"Retry-After": inTenMinutes}, kind: fault.Transient, reason: fault.RateLimited, after: 10 * time.Minute},
		{name: "503 with seconds", status: 503, header: map[string]string{"Retry-After": "17"}, kind: fault.Transient, reason: fault.Unavailable, after: 17 * time.Second},
		{name: "503 with a date", status: 503, header: map[string]string{"Retry-After": inTenMinutes}, kind: fault.Transient, reason: fault.Unavailable, after: 10 * time.Minute},
		{name: "500", status: 500, body: "oops", kind: fault.Transient, reason: fault.Unavailable, says: []string{"oops"}},
		{name: "502", status: 502, kind: fault.Transient, reason: fault.Unavailable},
		{name: "503", status: 503, kind: fault.Transient, reason: fault.Unavailable},
		{name: "504", status: 504, kind: fault.Transient, reason: fault.Unavailable},
		{name: "599", status: 599, kind: fault.Transient, reason: fault.Unavailable},
		{name: "204", status: 204, kind: fault.Transient, reason: fault.BadAnswer},
		{name: "redirect to nowhere", status: 302, kind: fault.Transient, reason: fault.BadAnswer},
	}
	for _, recording := range []struct {
		file   string
		kind   fault.Kind
		reason fault.Reason
		asked  fault.Reason
		listed fault.Reason
		says   []string
	}{
		{file: "error-404-v2-manifest", kind: fault.Gone, reason: fault.NotFound, asked: fault.BadAnswer, listed: fault.BadAnswer},
		{file: "error-401-v2-manifest", kind: fault.Permanent, reason: fault.Unauthorized},
		{file: "01-admin-unsigned-refused", kind: fault.Permanent, reason: fault.PullPolicy, says: []string{"missing: "}},
		{file: "03-move-tag-refused", kind: fault.Permanent, reason: fault.Immutable, says: []string{"'a:v1'", "sha256-*.sig"}},
		{file: "12-blob-over-quota", kind: fault.Permanent, reason: fault.QuotaExceeded, says: []string{"300 B", "7.4 KiB", "7.5 KiB"}},
	} {
		status, body := recorded(tb, recording.file)
		cases = append(cases, statusCase{
			name: "recorded " + recording.file, status: status, body: body, kind: recording.kind, reason: recording.reason, asked: recording.asked,
			listed: recording.listed, says: recording.says,
		})
	}
	return cases
}

// TestStatuses is the one table that every operation passes.
func TestStatuses(t *testing.T) {
	t.Parallel()
	for _, op := range operations() {
		for _, tt := range statusCases(t) {
			if tt.only != "" && tt.only != op.name {
				continue
			}
			t.Run(op.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				f := newFake()
				var attempts atomic.Int64
				f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if !op.meets(r) {
						return false
					}
					attempts.Add(1)
					for name, value := range tt.header {
						if value == inTenMinutes {
							value = time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat)
						}
						w.Header().Set(name, value)
					}
					w.WriteHeader(tt.status)
					_, _ = w.Write([]byte(tt.body))
					return true
				}
				c := newClient(t, serve(t, f).URL, nil)
				if op.name == "put manifest" {
					if err := c.PushBlob(t.Context(), repository, blob("content")); err != nil {
						t.Fatal(err)
					}
				}
				err := op.run(t.Context(), c)
				if err == nil {
					t.Fatal("no error")
				}
				want := fault.Error{Kind: tt.kind, Reason: tt.reason}
				if op.asks && tt.asked != "" {
					want = fault.Error{Kind: fault.Transient, Reason: tt.asked}
				}
				if op.lists && tt.listed != "" {
					want = fault.Error{Kind: fault.Transient, Reason: tt.listed}
				}
				got := fault.Of(err)
				if got.Kind != want.Kind || got.Reason != want.Reason {
					t.Errorf("fault = %s %s, want %s %s: %v", got.Kind, got.Reason, want.Kind, want.Reason, err)
				}
				if got.RetryAfter > tt.after || got.RetryAfter < tt.after-10*time.Second {
					t.Errorf("retry after %s, want %s", got.RetryAfter, tt.after)
				}
				for _, part := range tt.says {
					if op.name == "greeting" && tt.status == http.StatusUnauthorized {
						continue // a greeting without a challenge says something else
					}
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q does not say %q", err, part)
					}
				}
				if n := attempts.Load(); n != 1 {
					t.Errorf("the request was sent %d times, want one attempt", n)
				}
				if len(err.Error()) > 1200 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
			})
		}
	}
}

func TestTransportFaults(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server looks whether the client is still there after the body only
		<-r.Context().Done()
	}
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "90")
		_, _ = w.Write([]byte("half of it"))
	}
	for _, op := range operations() {
		for _, tt := range []struct {
			name   string
			handle http.HandlerFunc
			want   fault.Reason
		}{
			{"no answer in time", hang, fault.Timeout},
			{"connection broken", abort, fault.Unreachable},
			{"answer cut off", cut, fault.Unreachable},
		} {
			t.Run(op.name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				f := newFake()
				f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if op.meets(r) {
						tt.handle(w, r)
						return true
					}
					return false
				}
				c := newClient(t, serve(t, f).URL, func(cfg *registry.Config) {
					if tt.want == fault.Timeout {
						cfg.Timeout = 300 * time.Millisecond
					}
				})
				if got := fault.Of(op.run(t.Context(), c)); got.Kind != fault.Transient || got.Reason != tt.want {
					t.Errorf("fault = %s %s (%v), want transient %s", got.Kind, got.Reason, got.Err, tt.want)
				}
			})
		}
	}
	t.Run("caller gives up", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		server := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }))
		err := newClient(t, server.URL, nil).CheckPush(ctx, repository)
		if got := fault.Of(err); !errors.Is(err, context.Canceled) || got.Reason != fault.Canceled {
			t.Errorf("fault = %s %s (%v), want canceled", got.Kind, got.Reason, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(newFake())
		server.Close()
		if got := fault.Of(newClient(t, server.URL, nil).CheckPush(t.Context(), repository)); got.Kind != fault.Transient || got.Reason != fault.Unreachable {
			t.Errorf("fault = %s %s (%v), want transient unreachable", got.Kind, got.Reason, got.Err)
		}
	})
	t.Run("the transport knows why", func(t *testing.T) {
		t.Parallel()
		c := newClient(t, "https://harbor.invalid", func(cfg *registry.Config) {
			cfg.Transport = refusing{fault.After(7*time.Second, fault.DependencyDown, errors.New("it did not answer before"))}
		})
		got := fault.Of(c.CheckPush(t.Context(), repository))
		if got.Kind != fault.Transient || got.Reason != fault.DependencyDown || got.RetryAfter != 7*time.Second {
			t.Errorf("fault = %s %s after %s (%v), want transient dependency_down after 7s", got.Kind, got.Reason, got.RetryAfter, got.Err)
		}
	})
	t.Run("name does not resolve", func(t *testing.T) {
		t.Parallel()
		c := newClient(t, "https://harbor.invalid", dialling(t, func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "harbor.invalid", IsNotFound: true}
		}))
		if got := fault.Of(c.CheckPush(t.Context(), repository)); got.Kind != fault.Transient || got.Reason != fault.Unreachable {
			t.Errorf("fault = %s %s (%v), want transient unreachable", got.Kind, got.Reason, got.Err)
		}
	})
}

// refusing is a transport that asks nobody.
type refusing struct{ err error }

func (r refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, r.err }

// TestNoSecretLeaks lets the registry echo all that it was sent, in every place of an answer, in every operation and
// status.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	for _, op := range operations() {
		for _, status := range []int{0, 200, 201, 202, 302, 400, 401, 403, 404, 412, 413, 429, 500, 503} {
			t.Run(fmt.Sprintf("%s/%d", op.name, status), func(t *testing.T) {
				t.Parallel()
				var logged bytes.Buffer
				var sent []string
				f := newFake()
				f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if !op.meets(r) {
						return false
					}
					_, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
					if credentials != "" {
						sent = append(sent, credentials)
					}
					echo(w, r, status, credentials)
					return true
				}
				c := newClient(t, serve(t, f).URL, func(cfg *registry.Config) { cfg.Logger = zerolog.New(&logged).Level(zerolog.TraceLevel) })
				err := op.run(t.Context(), c)
				if err == nil && status >= 400 {
					t.Fatal("no error")
				}
				shown := fmt.Sprintf("%v %+v %s", err, err, logged.String())
				for _, secret := range append(sent, secret) {
					if strings.Contains(shown, secret) {
						t.Errorf("the secret %q shows in %q", secret, shown)
					}
				}
				if strings.Contains(strings.ToLower(logged.String()), "authorization") || logged.Len() == 0 {
					t.Errorf("log = %q, want lines without headers", logged.String())
				}
			})
		}
	}
}

// echo answers with the credentials in all places; status 0 is an answer that breaks HTTP.
func echo(w http.ResponseWriter, r *http.Request, status int, credentials string) {
	if status == 0 {
		conn, _, err := w.(http.Hijacker).Hijack() //nolint:errcheck // httptest's writer can
		if err == nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%s\r\n\r\n", credentials+secret, credentials)
			_ = conn.Close()
		}
		return
	}
	w.Header().Set("X-Echo", credentials+" "+secret)
	if status == http.StatusFound {
		w.Header().Set("Location", "http://"+r.Host+"/elsewhere/?x="+credentials+secret)
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}],"token":%q}`, "E"+credentials, "wrong secret "+secret+" in "+credentials, credentials) //nolint:gosec // the echo is the test
}

func TestErrorsAreCleanAndBounded(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte("\x1b[31mred\x00\r\n\xff\xfe\u0085" + strings.Repeat("long ", 1<<16)))
		return true
	}
	_, err := newClient(t, serve(t, f).URL, nil).Manifest(t.Context(), repository, "v1")
	if err == nil || len(err.Error()) > 800 || strings.ContainsAny(err.Error(), "\x1b\x00\r\n\u0085\ufffd") || !utf8.ValidString(err.Error()) {
		t.Errorf("error = %q, want a short one without control characters", err)
	}
}

func TestInvalidArgumentsSendNothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	c := newClient(t, serve(t, f).URL, nil)
	good := blob("x")
	_, manifestErr := c.Manifest(t.Context(), "demo/../admin", "v1")
	_, tagErr := c.Manifest(t.Context(), repository, "a/b")
	_, digestErr := c.Manifest(t.Context(), repository, "sha256:1")
	_, blobErr := c.Blob(t.Context(), repository, "sha256:1", 10)
	lie := artifact.Manifest{MediaType: manifestType, Digest: good.Digest, Raw: []byte("{}")}
	for name, err := range map[string]error{
		"repository":        manifestErr,
		"tag":               tagErr,
		"digest":            digestErr,
		"blob digest":       blobErr,
		"push":              c.PushBlob(t.Context(), "Demo/app", good),
		"push of a lie":     c.PushBlob(t.Context(), repository, artifact.Blob{Digest: good.Digest, Raw: []byte("y")}),
		"manifest of a lie": c.PutManifest(t.Context(), repository, "v1", lie),
		"another digest":    c.PutManifest(t.Context(), repository, good.Digest, manifest(good)),
		"check":             c.CheckPush(t.Context(), "demo"),
	} {
		if !fault.Is(err, fault.Permanent) {
			t.Errorf("%s: error = %v, want a permanent fault", name, err)
		}
	}
	if seen := f.seen(); len(seen) != 0 {
		t.Errorf("%v were sent, want nothing", seen)
	}
}
