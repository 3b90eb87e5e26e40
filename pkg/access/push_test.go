package access_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// TestCanPush: Harbor's token service says it for accounts, the scope for API tokens, and the role for who came with an id token.
func TestCanPush(t *testing.T) {
	d, callers := people(t)
	for who, want := range map[string]map[string]bool{
		"robot":  {"demo/app": true, "demo/other": false, "app/x": false, "demo": false, "": false, "demo/../app": false},
		"dev":    {"demo/app": false}, // this Harbor lets nobody but the robot push
		"eve":    {"demo/app": false}, // an auditor reads everything
		"nobody": {"demo/app": false, "open/x": false},
	} {
		for repository, want := range want {
			for range 2 {
				if got, err := d.CanPush(t.Context(), callers[who], repository); err != nil || got != want {
					t.Errorf("%s, %s: %t, %v; want %t", who, repository, got, err, want)
				}
			}
		}
	}
	d.harbor.set(func(f *fakeHarbor) { f.err = errors.New("away") })
	if _, err := d.CanPush(t.Context(), callers["robot"], "demo/new"); verdict(err) != "away" {
		t.Errorf("Harbor away: %v, want a transient fault", err)
	}
}

// TestPullIsNoPush: what the token service said about one is not remembered for the other.
func TestPullIsNoPush(t *testing.T) {
	d, callers := people(t)
	d.harbor.set(func(f *fakeHarbor) { f.pullOnly = true })
	if may, err := d.CanPull(t.Context(), callers["robot"], "demo/app"); err != nil || !may {
		t.Fatalf("CanPull = %t, %v; want true", may, err)
	}
	if may, err := d.CanPush(t.Context(), callers["robot"], "demo/app"); err != nil || may {
		t.Errorf("CanPush = %t, %v; want false", may, err)
	}
	if may, err := d.CanPull(t.Context(), callers["robot"], "demo/app"); err != nil || !may {
		t.Errorf("CanPull = %t, %v once more; want true", may, err)
	}
}

func TestTokensPushByTheirScope(t *testing.T) {
	d, callers := people(t)
	for who, want := range map[string]map[string]bool{
		"reader": {"demo/app": false}, "changer": {"demo/app": true}, "team": {"team-a/x": true, "app/x": false},
		"team reader": {"team-a/x": false}, "forged grant": {"demo/app": false}, "forged": {"demo/app": false},
	} {
		for repository, want := range want {
			if got, err := d.CanPush(t.Context(), callers[who], repository); err != nil || got != want {
				t.Errorf("%s, %s: %t, %v; want %t", who, repository, got, err, want)
			}
		}
	}
	if d.harbor.count("token") != 0 {
		t.Error("Harbor was asked about API tokens")
	}
}

// TestIDTokensPushByTheirRole: the token service does not know who came with one.
func TestIDTokensPushByTheirRole(t *testing.T) {
	for role, want := range map[artifact.Role]bool{
		artifact.RoleProjectAdmin: true, artifact.RoleMaintainer: true, artifact.RoleDeveloper: true,
		artifact.RoleGuest: false, artifact.RoleLimitedGuest: false, artifact.RoleNone: false,
	} {
		d := open(t, "")
		d.harbor.set(func(f *fakeHarbor) {
			f.mode = "oidc_auth"
			f.logins["Bearer id.token.x"] = login{account: artifact.Account{Name: "oda"}, roles: map[string]artifact.Role{"demo": role}}
		})
		c := d.enter(t, bearer("id.token.x"))
		if got, err := d.CanPush(t.Context(), c, "demo/app"); err != nil || got != want {
			t.Errorf("role %d: %t, %v; want %t", role, got, err, want)
		}
		if d.harbor.count("token") != 0 {
			t.Errorf("role %d: the token service was asked", role)
		}
	}
}

// TestHarborSaysWhoPushes asks the token service of a Harbor.
func TestHarborSaysWhoPushes(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		name   string
		header http.Header
		may    map[string]bool
	}{
		{"system admin", basic("admin", harbortest.DefaultAdminPassword), map[string]bool{"demo/app": true, "open/app": true}},
		{"project admin", person("boss"), map[string]bool{"demo/app": true, "demo.2/app": false, "open/app": false}},
		{"maintainer, developer", person("dev"), map[string]bool{"demo/app": true, "demo.2/app": true, "open/app": false}},
		{"auditor", person("eve"), map[string]bool{"demo/app": false, "open/app": false}},
		{"a robot that may pull", s.robot, map[string]bool{"demo/app": false, "none/app": false}},
	} {
		c, err := s.Authenticate(t.Context(), tt.header, here)
		if err != nil {
			t.Fatal(err)
		}
		for repository, want := range tt.may {
			if got, err := s.CanPush(t.Context(), c, repository); err != nil || got != want {
				t.Errorf("%s, %s: %t, %v; want %t", tt.name, repository, got, err, want)
			}
		}
	}
}
