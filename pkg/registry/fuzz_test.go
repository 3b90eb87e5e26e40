package registry_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

func FuzzAnswers(f *testing.F) {
	f.Add(`Bearer realm="http://HOST/service/token",service="s"`, `{"token":"a.e30.c"}`, code("NOT_FOUND", "x"), 404)
	f.Add(`bearer realm=http://HOST/x , service="a\"b"`, `{"access_token":"a.e30.c","expires_in":-1}`, "<html>", 200)
	f.Add(`Bearer realm="http://evil.example.com/"`, "", "", 302)
	var mu sync.Mutex
	var header, token, body string
	var status int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch r.URL.Path {
		case "/v2/":
			w.Header().Set("Www-Authenticate", strings.ReplaceAll(header, "HOST", r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		case "/service/token":
			_, _ = w.Write([]byte(token))
		default:
			w.Header().Set("Location", body)
			w.Header().Set("Retry-After", body)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}))
	f.Cleanup(server.Close)
	own := makeToken(username, repository, []string{"pull", "push"}, 1)
	f.Add(`Bearer realm="http://HOST/service/token"`, `{"token":"`+own+`"}`, code("DENIED", secret+own), 403)
	f.Fuzz(func(t *testing.T, h, tok, b string, st int) {
		mu.Lock()
		header, token, body, status = h, tok, b, 200+(st%400+400)%400
		mu.Unlock()
		c := newClient(t, server.URL, dialling(t, func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != strings.TrimPrefix(server.URL, "http://") {
				t.Errorf("%s was dialled", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}))
		_, err := c.Manifest(t.Context(), repository, artifact.DigestOf([]byte("x")))
		if err == nil {
			return
		}
		if got := fault.Of(err); got.Reason == fault.Unknown {
			t.Errorf("error without a fault: %v", err)
		}
		if s := err.Error(); len(s) > 2000 || strings.Contains(s, secret) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
			t.Errorf("error = %q, want a short one, without secrets and control characters", s)
		}
	})
}
