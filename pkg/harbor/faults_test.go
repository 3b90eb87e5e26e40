package harbor_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
)

func TestFaults(t *testing.T) {
	const password = "very-secret-value"
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const harborError = `{"errors":[{"code":"SOME\u001bCODE","message":"in Harbor's words"}]}`
	tests := []struct {
		name    string
		handler http.HandlerFunc
		kind    fault.Kind
		reason  fault.Reason
		after   time.Duration
	}{
		{"401", answer(401, harborError), fault.Permanent, fault.Unauthorized, 0},
		{"403", answer(403, harborError), fault.Permanent, fault.Denied, 0},
		{"403 of a proxy", answer(403, "<html>", "Content-Type", "text/html"), fault.Transient, fault.BadAnswer, 0},
		{"400 of a proxy", answer(400, "<html>", "Content-Type", "text/html"), fault.Transient, fault.BadAnswer, 0},
		{"407", answer(407, "<html>", "Content-Type", "text/html"), fault.Transient, fault.Unreachable, 0},
		{"408", answer(408, "<html>", "Content-Type", "text/html"), fault.Transient, fault.Timeout, 0},
		{"409", answer(409, harborError), fault.Permanent, fault.Rejected, 0},
		{"404", answer(404, harborError), fault.Gone, fault.NotFound, 0},
		{"404 of a proxy", answer(404, "<html>", "Content-Type", "text/html"), fault.Transient, fault.BadAnswer, 0},
		{"412", answer(412, harborError), fault.Permanent, fault.Rejected, 0},
		{"429", answer(429, "", "Retry-After", "7"), fault.Transient, fault.RateLimited, 7 * time.Second},
		{"500", answer(500, "<html>"), fault.Transient, fault.Unavailable, 0},
		{"429 for ever", answer(429, "", "Retry-After", "99999999"), fault.Transient, fault.RateLimited, time.Hour},
		{"503", answer(503, "", "Retry-After", "3"), fault.Transient, fault.Unavailable, 3 * time.Second},
		{"redirect", answer(302, "", "Location", "https://elsewhere.example/"), fault.Permanent, fault.ForeignOrigin, 0},
		{"HTML", answer(200, "<html>", "Content-Type", "text/html"), fault.Transient, fault.BadAnswer, 0},
		{"cut off", answer(200, `[{"name":`), fault.Transient, fault.BadAnswer, 0},
		{"a row is null", answer(200, `[null]`), fault.Transient, fault.BadAnswer, 0},
		{"connection breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Transient, fault.Unreachable, 0},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a server that has not read all of a request does not see its client go
			<-r.Context().Done()
		}, fault.Transient, fault.Timeout, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			c := newClient(t, server.URL, password, func(cfg *harbor.Config) { cfg.Timeout = 200 * time.Millisecond })
			for name, operation := range operations(t, c) {
				if isAnswer(name, tt.name) {
					continue
				}
				err := operation()
				if err == nil {
					t.Errorf("%s gives no error", name)
					continue
				}
				got := fault.Of(err)
				kind, reason := tt.kind, tt.reason
				if slices.Contains([]string{"Bundles", "System", "TokenActions"}, name) && kind == fault.Gone {
					kind, reason = fault.Transient, fault.BadAnswer // nothing that was asked about can be gone
				}
				if got.Kind != kind || got.Reason != reason || got.RetryAfter != tt.after {
					t.Errorf("%s: %s, %s, %s; want %s, %s, %s (%v)", name, got.Kind, got.Reason, got.RetryAfter, kind, reason, tt.after, err)
				}
				if strings.Contains(err.Error(), password) || strings.ContainsRune(err.Error(), '\x1b') {
					t.Errorf("%s: error %q holds the secret or a control character", name, err)
				}
			}
		})
	}
}

// TestTransportsOwnFault has a transport that sends nothing, and says when to come again.
func TestTransportsOwnFault(t *testing.T) {
	t.Parallel()
	refuses := roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, fault.After(7*time.Second, fault.DependencyDown, io.ErrClosedPipe)
	})
	for name, operation := range operations(t, cannedClient(t, nil, through(refuses))) {
		err := operation()
		if err == nil {
			t.Errorf("%s gives no error", name)
			continue
		}
		if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.DependencyDown || got.RetryAfter != 7*time.Second {
			t.Errorf("%s: %s, %s, %s; want transient, dependency_down, 7s (%v)", name, got.Kind, got.Reason, got.RetryAfter, err)
		}
	}
}

// isAnswer says that what is a fault to others is an answer to an operation.
func isAnswer(operation, fault string) bool {
	noBody := []string{"HTML", "cut off", "a row is null"}
	answers := map[string][]string{
		"ProjectExists":  append([]string{"404"}, noBody...), // it asks for no body
		"UpdateWebhook":  noBody,
		"DeleteWebhook":  noBody,
		"MissingRights":  append([]string{"403"}, noBody...),
		"Feed":           {"403", "404"},                     // there is none
		"CurrentAccount": {"412"},                            // a robot
		"RemoveArtifact": append([]string{"404"}, noBody...), // which it wants

		"RemoveEmptyRepository": {"404"},
	}
	return slices.Contains(answers[operation], fault)
}

// TestNoSecretLeaks lets Harbor echo the credentials in every place of an answer, in every operation and status.
func TestNoSecretLeaks(t *testing.T) {
	const password = `very "secret" välue%` //nolint:gosec // of this test alone
	for _, status := range []int{0, 200, 201, 204, 302, 400, 401, 403, 404, 409, 412, 429, 500, 503} {
		var credentials string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			credentials = strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
			said := password + " \x1b[31m" + credentials
			if status == 0 {
				conn, _, err := w.(http.Hijacker).Hijack() //nolint:errcheck // httptest's writer can
				if err == nil {
					_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%s\r\n\r\n", said, said)
					_ = conn.Close()
				}
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Echo", credentials)
			w.Header().Set("Location", "/elsewhere?x="+credentials)
			w.WriteHeader(status)
			var body any = []any{map[string]any{"name": 1, "repository_name": said, "digest": said, "push_time": said, "update_time": credentials}}
			if status >= 300 {
				// Long enough that a cut would go through the credentials.
				body = map[string]any{"errors": []any{map[string]any{"code": "X", "message": strings.Repeat("-", 230) + said}}}
			}
			_ = json.NewEncoder(w).Encode(body)
		}))
		c := newClient(t, server.URL, password)
		for name, operation := range operations(t, c) {
			err := operation()
			if err == nil {
				if status >= 400 && !isAnswer(name, strconv.Itoa(status)) {
					t.Errorf("%d, %s: no error", status, name)
				}
				continue
			}
			shown := fmt.Sprintf("%v %+v %q", err, err, err)
			quoted := strings.Trim(fmt.Sprintf("%q", password), `"`)
			for _, part := range []string{password, quoted, credentials, credentials[:len(credentials)/2], `"secret"`, `\"secret`} {
				if strings.Contains(shown, part) {
					t.Errorf("%d, %s: %q shows in %q", status, name, part, shown)
				}
			}
			if strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 800 {
				t.Errorf("%d, %s: error %q, want a short one without control characters", status, name, err)
			}
		}
		server.Close()
	}
}
