package access_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// realHarbor is the adapter, as a program wires it.
type realHarbor struct{ *harbor.Client }

func (h realHarbor) As(authorization string) access.Account { return h.Client.As(authorization) }

// site is an emulated Harbor with some people in it.
type site struct {
	*access.Access
	emulator *harbortest.Harbor
	robot    http.Header
}

func (s *site) admin(t *testing.T, method, path string, body, into any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.emulator.URL()+"/api/v2.0"+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s = %s", method, path, resp.Status)
	}
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{emulator: harbortest.New(t, harbortest.Config{})}
	for _, p := range []string{"demo", "demo.2", "123"} {
		s.admin(t, http.MethodPost, "/projects", map[string]any{"project_name": p}, nil)
	}
	s.admin(t, http.MethodPost, "/projects", map[string]any{"project_name": "open", "public": true}, nil)
	for _, name := range []string{"boss", "dev", "out", "eve"} {
		s.admin(t, http.MethodPost, "/users", map[string]any{"username": name, "password": "Passw0rd:" + name, "email": name + "@example.com", "realname": name}, nil)
	}
	member := func(project, name string, role artifact.Role) {
		s.admin(t, http.MethodPost, "/projects/"+project+"/members", map[string]any{"role_id": role, "member_user": map[string]string{"username": name}}, nil)
	}
	member("demo", "boss", artifact.RoleProjectAdmin)
	member("open", "boss", artifact.RoleLimitedGuest)
	member("demo.2", "dev", artifact.RoleDeveloper)
	member("demo", "dev", artifact.RoleMaintainer)
	var robot struct{ Name, Secret string }
	s.admin(t, http.MethodPost, "/robots", map[string]any{
		"name": "ci", "level": "project", "duration": -1, "permissions": []any{map[string]any{
			"kind": "project", "namespace": "demo", "access": []any{map[string]string{"resource": "repository", "action": "pull"}},
		}},
	}, &robot)
	s.robot = basic(robot.Name, robot.Secret)

	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, harbortest.DefaultAdminPassword)
	client, err := harbor.New(harbor.Config{URL: s.emulator.URL(), Username: "admin", SecretFile: secret, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	if s.Access, err = access.New(access.Config{Harbor: realHarbor{client}, Auditors: []string{"eve"}, Logger: zerolog.Nop()}); err != nil {
		t.Fatal(err)
	}
	return s
}

func person(name string) http.Header { return basic(name, "Passw0rd:"+name) }

func TestHarborsPeople(t *testing.T) {
	s := newSite(t)
	projects := []string{"demo", "demo.2", "123", "open", "none"}
	tests := []struct {
		name    string
		header  http.Header
		caller  string
		may     string // for each of projects, as in TestWhoMayDoWhat
		visible []string
	}{
		{"system admin", basic("admin", harbortest.DefaultAdminPassword), "user admin true false", "ccccc", nil},
		{"auditor", person("eve"), "user eve false true", "rrrrr", nil},
		{"project admin", person("boss"), "user boss false false", "c--r-", []string{"demo", "open"}},
		{"member", person("dev"), "user dev false false", "rr---", []string{"demo", "demo.2"}},
		{"outsider", person("out"), "user out false false", "-----", []string{}},
		{"robot", s.robot, "robot robot$demo+ci false false", "-----", []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.Authenticate(t.Context(), tt.header, here)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s %s %t %t", c.Kind, c.Name, c.SystemAdmin, c.Auditor); got != tt.caller {
				t.Errorf("caller %q, want %q", got, tt.caller)
			}
			for i, project := range projects {
				want := map[byte]error{'c': nil, 'r': access.ErrForbidden, '-': access.ErrNotFound}[tt.may[i]]
				if err := s.Require(t.Context(), c, access.Change, project); !errors.Is(err, want) {
					t.Errorf("change %s: %v, want %v", project, err, want)
				}
			}
			visible, all, err := s.Visible(t.Context(), c)
			if err != nil || all != (tt.visible == nil) || !slices.Equal(visible, tt.visible) {
				t.Errorf("visible: %q, %t, %v; want %q", visible, all, err, tt.visible)
			}
		})
	}
}

func TestHarborsRobots(t *testing.T) {
	s := newSite(t)
	c, err := s.Authenticate(t.Context(), s.robot, here)
	if err != nil {
		t.Fatal(err)
	}
	// open is public: everybody may pull from it, a robot too.
	for repository, want := range map[string]bool{"demo/app": true, "demo/team/app": true, "demo.2/app": false, "none/app": false, "open/app": true} {
		if got, err := s.CanPull(t.Context(), c, repository); err != nil || got != want {
			t.Errorf("%s: %t, %v; want %t", repository, got, err, want)
		}
	}
}

func TestHarborsRefusals(t *testing.T) {
	s := newSite(t)
	tests := []struct {
		name   string
		header http.Header
	}{
		{"wrong password", basic("boss", "x")},
		{"no such account", basic("nobody", "x")},
		{"robot with a wrong secret", basic("robot$demo+ci", "x")},
		{"id token without OIDC", bearer("e.y.J")},
	}
	for _, mode := range []string{"db_auth", "oidc_auth"} { // in the second a wrong password could be a CLI secret
		s := newSite(t)
		s.admin(t, http.MethodPut, "/configurations", map[string]any{"auth_mode": mode}, nil)
		for _, tt := range tests {
			if _, err := s.Authenticate(t.Context(), tt.header, here); !errors.Is(err, access.ErrUnauthenticated) {
				t.Errorf("%s, %s: %v, want ErrUnauthenticated", mode, tt.name, err)
			}
		}
	}
	if err := s.emulator.Close(); err != nil {
		t.Fatal(err)
	}
	for _, header := range []http.Header{person("boss"), basic("boss", "x"), bearer("e.y.J")} {
		if _, err := s.Authenticate(t.Context(), header, here); !fault.Is(err, fault.Transient) || errors.Is(err, access.ErrUnauthenticated) {
			t.Errorf("without Harbor: %v, want a transient fault", err)
		}
	}
}
