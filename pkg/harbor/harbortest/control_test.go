package harbortest_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// TestControlSurface does over HTTP what the methods do.
func TestControlSurface(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	const at = "/_emulator/"
	var made harbortest.Synthetic
	c.want(http.StatusOK, login{}, http.MethodPost, at+"synthetic", map[string]any{
		"projects": 2, "repositories": 3, "digests": 50, "indexes": 0.1, "children": 2, "unsigned": 0.2, "seed": 3,
		"until": "2026-11-01T00:00:00Z",
	}).decode(t, &made)
	if len(made.Projects) != 2 || made.Digests != 50 || len(made.Unsigned) != 10 {
		t.Errorf("made: got %+v, want 2 projects and 50 digests, 10 unsigned", made)
	}
	lines := c.want(http.StatusOK, login{}, http.MethodGet, at+"synthetic", nil).body
	if got := bytes.Count(lines, []byte("\n")); got != 50 {
		t.Errorf("synthetic artifacts: got %d lines, want 50", got)
	}
	var touched harbortest.Touched
	c.want(http.StatusOK, login{}, http.MethodPost, at+"touch", map[string]any{"pushes": 4, "pulls": 1}).decode(t, &touched)
	if len(touched.Pushed) != 4 || touched.Pulled != 3 || len(c.feed(pushes)) != 4 {
		t.Errorf("touched: got %+v and a feed of %d, want 4 pushes and 3 pulls", touched, len(c.feed(pushes)))
	}
	c.want(http.StatusNoContent, login{}, http.MethodDelete, at+"audit", nil)
	if got := len(c.feed(pushes)); got != 0 {
		t.Errorf("feed after the purge: got %d, want 0", got)
	}
	c.want(http.StatusOK, login{}, http.MethodPut, at+"login", map[string]string{"username": "dana", "id_token": "t"})
	c.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]string{"auth_mode": "oidc_auth"})
	c.want(http.StatusOK, login{}, http.MethodGet, "/api/v2.0/users/current", nil, "Authorization", "Bearer t")
	for _, bad := range []struct{ method, path, body string }{
		{http.MethodPost, "synthetic", `{"project":1}`},
		{http.MethodPost, "synthetic", `{"projects":1,"repositories":1,"digests":1}`}, // There is some.
		{http.MethodPost, "touch", `{"pulls":2}`},
		{http.MethodPost, "touch", `[]`},
		{http.MethodPut, "login", `{"username":"x"}`},
	} {
		c.want(http.StatusBadRequest, login{}, bad.method, at+bad.path, bad.body)
	}
	c.want(http.StatusNotFound, login{}, http.MethodGet, at+"nothing", nil)
}
