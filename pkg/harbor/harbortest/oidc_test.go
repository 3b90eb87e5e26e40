package harbortest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// TestLoginsByOIDC shows what opens what: id tokens the REST API, CLI secrets the registry and a few listings, passwords
// nothing but for admin.
func TestLoginsByOIDC(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.push(admin(), c.image(), "demo/app:v1")
	c.user("old")
	robot := c.robot("puller", "project", "demo", "repository:list")
	for _, l := range []harbortest.Login{
		{Username: "dana", IDToken: "token-of-dana", CLISecret: "secret-of-dana"},
		{Username: "late", IDToken: "token-of-late", Expires: time.Now().Add(-time.Minute)},
	} {
		if err := c.h.SetLogin(l); err != nil {
			t.Fatalf("SetLogin: %v", err)
		}
		c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/demo/members",
			map[string]any{"role_id": 1, "member_user": map[string]string{"username": l.Username}})
	}
	const api = "/api/v2.0"
	current, repos := api+"/users/current", api+"/projects/demo/repositories"
	bearer := func(token, path string) int {
		return c.do(login{}, http.MethodGet, path, nil, "Authorization", "Bearer "+token).status
	}
	if got := bearer("token-of-dana", current); got != http.StatusUnauthorized {
		t.Errorf("id token before OIDC mode: got %d, want 401", got)
	}
	c.want(http.StatusOK, admin(), http.MethodPut, api+"/configurations", map[string]string{"auth_mode": "oidc_auth"})
	var info struct {
		Mode string `json:"auth_mode"`
	}
	c.want(http.StatusOK, login{}, http.MethodGet, api+"/systeminfo", nil).decode(t, &info)
	if info.Mode != "oidc_auth" {
		t.Errorf("auth_mode: got %q, want oidc_auth", info.Mode)
	}
	for _, test := range []struct {
		name, token, path string
		want              int
	}{
		{"id token, who am I", "token-of-dana", current, 200},
		{"id token, one project", "token-of-dana", api + "/projects/demo", 200},
		{"id token, policies", "token-of-dana", api + "/projects/demo/webhook/policies", 200},
		{"id token, registry", "token-of-dana", "/v2/", 401},
		{"expired", "token-of-late", current, 401},
		{"unknown", "token-of-nobody", current, 401},
		{"empty", "", current, 401},
	} {
		if got := bearer(test.token, test.path); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	dana := login{"dana", "secret-of-dana"}
	for _, test := range []struct {
		name string
		who  login
		path string
		want int
	}{
		{"CLI secret, repositories", dana, repos, 200},
		{"CLI secret, artifacts", dana, repos + "/app/artifacts", 200},
		{"CLI secret, who am I", dana, current, 401},
		{"CLI secret, one project", dana, api + "/projects/demo", 401},
		{"CLI secret, artifacts of the project", dana, api + "/projects/demo/artifacts", 401},
		{"CLI secret, registry", dana, "/v2/", 200},
		{"wrong CLI secret", login{"dana", "secret"}, repos, 401},
		{"no CLI secret", login{"late", ""}, repos, 401},
		{"password of a user", login{"old", "Password-old"}, current, 401},
		{"password of admin", admin(), current, 200},
		{"robot", robot, repos, 200},
	} {
		if got := c.do(test.who, http.MethodGet, test.path, nil).status; got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	if got := c.shownProject(dana, "demo").Role; got != 1 {
		t.Errorf("role in the project list with a CLI secret: got %d, want 1", got)
	}
	if err := c.h.SetLogin(harbortest.Login{Username: "x"}); err == nil {
		t.Error("SetLogin without token and secret: got no error")
	}
}

// TestRegistryTokensAreNoAPITokens keeps the tokens of the token service out of the REST API.
func TestRegistryTokensAreNoAPITokens(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	token := s.token(t, admin(), "repository:demo/app:pull,push")
	s.want(http.StatusOK, login{}, http.MethodGet, "/v2/", nil, "Authorization", "Bearer "+token)
	s.want(http.StatusUnauthorized, login{}, http.MethodGet, "/api/v2.0/projects/demo", nil, "Authorization", "Bearer "+token)
}
