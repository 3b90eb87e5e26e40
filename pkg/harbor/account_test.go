package harbor_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// basic is the header of a name and a password.
func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// member makes a user with a role in a project, and gives their header.
func member(t *testing.T, h *harbortest.Harbor, name, project string, role artifact.Role) string {
	t.Helper()
	password := "Pass-of-" + name
	post(t, h.URL()+"/api/v2.0/users", map[string]any{"username": name, "email": name + "@example.com", "realname": name, "password": password})
	if role != artifact.RoleNone {
		post(t, h.URL()+"/api/v2.0/projects/"+project+"/members", map[string]any{"role_id": role, "member_user": map[string]any{"username": name}})
	}
	return basic(name, password)
}

func TestAs(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	for _, project := range []string{"demo", "a-demo", "demo-2", "public"} {
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project, "metadata": map[string]string{"public": fmt.Sprint(project == "public")}})
	}
	own := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) { cfg.PageSize = 1 })
	if account, err := own.CurrentAccount(t.Context()); err != nil || account != (artifact.Account{Name: "admin", SystemAdmin: true}) {
		t.Errorf("the configured account: %+v, %v; want admin", account, err)
	}
	for name, role := range map[string]artifact.Role{"boss": artifact.RoleProjectAdmin, "dev": artifact.RoleDeveloper, "stranger": artifact.RoleNone} {
		c := own.As(member(t, h, name, "demo", role))
		if account, err := c.CurrentAccount(t.Context()); err != nil || account != (artifact.Account{Name: name}) {
			t.Errorf("%s: account %+v, %v; want themselves, no admin", name, account, err)
		}
		got, project, err := c.RoleIn(t.Context(), "demo")
		if role == artifact.RoleNone {
			if !fault.Is(err, fault.Gone) {
				t.Errorf("%s: role in a project that they do not see: %v, want a fault of kind gone", name, err)
			}
		} else if err != nil || got != role || project.Name != "demo" || project.ID == 0 {
			t.Errorf("%s: role %d in %+v, %v; want %d in demo", name, got, project, err, role)
		}
		roles, err := c.Roles(t.Context())
		want := map[string]artifact.Role{"demo": role}
		if role == artifact.RoleNone {
			want = nil
		}
		if err != nil || !maps.Equal(roles, want) {
			t.Errorf("%s: roles %v, %v; want %v", name, roles, err, want)
		}
		if got, project, err := c.RoleIn(t.Context(), "public"); err != nil || got != artifact.RoleNone || project.Name != "public" {
			t.Errorf("%s: role %d in %+v, %v; want none in public", name, got, project, err)
		}
	}
	raw := post(t, h.URL()+"/api/v2.0/robots", map[string]any{
		"name": "puller", "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "demo", "access": []any{map[string]any{"resource": "repository", "action": "pull"}}}},
	})
	var robot struct{ Name, Secret string }
	if err := json.Unmarshal(raw, &robot); err != nil {
		t.Fatal(err)
	}
	c := own.As(basic(robot.Name, robot.Secret))
	if account, err := c.CurrentAccount(t.Context()); err != nil || account != (artifact.Account{Name: robot.Name, Robot: true}) {
		t.Errorf("a robot: account %+v, %v; want itself", account, err)
	}
	if actions, err := c.TokenActions(t.Context(), "demo/team/app", []string{"push", "pull"}); err != nil || !slices.Equal(actions, []string{"pull"}) {
		t.Errorf("a robot may %v, %v; want pull", actions, err)
	}
	for name, c := range map[string]*harbor.Client{"nobody": own.As(""), "a wrong password": own.As(basic("dev", "wrong")), "a token of somebody else's": own.As("Bearer x.y.z")} {
		if account, err := c.CurrentAccount(t.Context()); err == nil || fault.Of(err).Reason != fault.Unauthorized || !fault.Is(err, fault.Permanent) {
			t.Errorf("%s: account %+v, %v; want unauthorized", name, account, err)
		}
		if actions, err := c.TokenActions(t.Context(), "demo/app", []string{"pull"}); err != nil || len(actions) != 0 {
			t.Errorf("%s may %v, %v; want nothing, and no error", name, actions, err)
		}
	}
}

// TestAsLeaksNothing lets Harbor echo what a caller handed in.
func TestAsLeaksNothing(t *testing.T) {
	t.Parallel()
	const password, token = "pässword of dev", "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl" //nolint:gosec // of this test alone
	for _, authorization := range []string{basic("dev", password), "Bearer " + token, "odd-header-value"} {
		for _, status := range []int{200, 401, 403, 404, 409, 412, 500} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Authorization"); got != authorization {
					t.Errorf("%s with %q, want the caller's header alone", r.URL, got)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				said := password + " " + r.Header.Get("Authorization") + " " + hookSecret
				_ = json.NewEncoder(w).Encode(map[string]any{"token": said, "errors": []any{map[string]any{"code": said, "message": said}}})
			}))
			for name, operation := range operations(t, newClient(t, server.URL, "s3cr3t").As(authorization)) {
				err := operation()
				if err == nil {
					continue
				}
				_, credentials, _ := strings.Cut(authorization, " ")
				hidden := []string{authorization}
				if credentials != "" {
					hidden = append(hidden, credentials)
				}
				if strings.HasPrefix(authorization, "Basic ") {
					hidden = append(hidden, password)
				}
				if name == "CreateWebhook" || name == "UpdateWebhook" {
					hidden = append(hidden, hookSecret)
				}
				for _, secret := range hidden {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("%d, %s: %q holds %q", status, name, err, secret)
					}
				}
			}
			server.Close()
		}
	}
}

// TestAsSharesTheVersionAlone asks the same of two callers.
func TestAsSharesTheVersionAlone(t *testing.T) {
	t.Parallel()
	asked := make(map[string]int)
	own := cannedClient(t, func(r *http.Request) (int, string, error) {
		asked[r.URL.Path]++
		switch {
		case strings.HasSuffix(r.URL.Path, "/systeminfo"):
			return http.StatusOK, systemInfo("v2.15.2"), nil
		case strings.HasSuffix(r.URL.Path, "/projects"):
			return http.StatusOK, `[{"project_id":7,"name":"demo"}]`, nil
		default:
			return http.StatusOK, "[]", nil
		}
	})
	for _, c := range []*harbor.Client{own, own.As("Bearer a"), own.As("Bearer b")} {
		for range 2 {
			if can, _, err := c.Bundles(t.Context()); err != nil || !can {
				t.Errorf("Bundles() = %t, %v", can, err)
			}
			if id, err := c.ProjectID(t.Context(), "demo"); err != nil || id != 7 {
				t.Errorf("ProjectID() = %d, %v; want 7", id, err)
			}
			if _, err := c.LockedBy(t.Context(), "demo/app", "v1"); err != nil {
				t.Errorf("LockedBy: %v", err)
			}
		}
	}
	want := map[string]int{"/api/v2.0/systeminfo": 1, "/api/v2.0/projects": 3, "/api/v2.0/projects/demo/immutabletagrules": 3}
	if !maps.Equal(asked, want) {
		t.Errorf("requests %v, want %v", asked, want)
	}
}

// TestProjectIDIsRemembered walks through the life of an answer, on fake time.
func TestProjectIDIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, id, status := 0, 7, http.StatusOK
		c := cannedClient(t, func(*http.Request) (int, string, error) {
			asked++
			if id == 0 {
				return status, `[{"project_id":1,"name":"demo-2"}]`, nil
			}
			return status, fmt.Sprintf(`[{"project_id":1,"name":"demo-2"},{"project_id":%d,"name":"demo"}]`, id), nil
		})
		check := func(what string, wantAsked int, want int64, reason fault.Reason) {
			t.Helper()
			got, err := c.ProjectID(t.Context(), "demo")
			if got != want || (err != nil) != (reason != "") || err != nil && fault.Of(err).Reason != reason {
				t.Errorf("%s: ProjectID() = %d, %v; want %d, %s", what, got, err, want, reason)
			}
			if asked != wantAsked {
				t.Errorf("%s: %d requests, want %d", what, asked, wantAsked)
			}
		}
		check("the first answer", 1, 7, "")
		id = 8
		time.Sleep(30*time.Second - time.Nanosecond)
		check("30 seconds are not over", 1, 7, "")
		time.Sleep(time.Nanosecond)
		check("30 seconds are over", 2, 8, "")
		status = http.StatusServiceUnavailable
		time.Sleep(30 * time.Second)
		check("Harbor does not answer", 3, 0, fault.Unavailable)
		status, id = http.StatusOK, 0
		check("the project is gone", 4, 0, fault.NotFound)
		id = 9
		check("and is made anew", 5, 9, "")
	})
}

func TestProject(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(r *http.Request) (int, string, error) {
		if got := r.URL.Query().Get("name"); got != "demo" {
			t.Errorf("%s, want the projects with demo in their names", r.URL)
		}
		return http.StatusOK, recorded(t, "projects-by-name"), nil
	})
	got, err := c.Project(t.Context(), "demo")
	if err != nil || got.ID != 2 || got.Name != "demo" || got.ProxyCache || got.SignedOnly || got.Metadata["public"] != "false" {
		t.Errorf("recorded: %+v, %v; want demo", got, err)
	}
	if role, _, err := c.RoleIn(t.Context(), "demo"); err != nil || role != artifact.RoleDeveloper {
		t.Errorf("recorded: role %d, %v; want developer", role, err)
	}
	c = cannedClient(t, func(*http.Request) (int, string, error) {
		return http.StatusOK, `[{"project_id":7,"name":"demo","registry_id":3,"metadata":{"enable_content_trust_cosign":"true","webhook_private":"deny","odd":1}}]`, nil
	})
	got, err = c.Project(t.Context(), "demo")
	want := map[string]string{"enable_content_trust_cosign": "true", "webhook_private": "deny"}
	if err != nil || !got.ProxyCache || !got.SignedOnly || !maps.Equal(got.Metadata, want) {
		t.Errorf("%+v, %v; want a proxy cache for signed images, with all of its metadata", got, err)
	}
	for _, name := range []string{"", ".", "..", "demo/app", "dem", "Demo", "demo?x", "DEMO"} {
		if _, err := c.Project(t.Context(), name); !fault.Is(err, fault.Gone) {
			t.Errorf("%q: %v, want a fault of kind gone", name, err)
		}
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, recorded(t, "systeminfo-admin"), nil })
	want := artifact.SystemInfo{
		Version: "v2.15.2-080b0220", AuthMode: "db_auth", Notifications: true, Now: time.Date(2026, 11, 22, 4, 35, 27, 528_000_000, time.UTC),
	}
	if got, err := c.System(t.Context()); err != nil || got != want {
		t.Errorf("recorded: %+v, %v; want %+v", got, err, want)
	}
	h := harbortest.New(t, harbortest.Config{})
	admin(t, http.MethodPut, h.URL()+"/api/v2.0/configurations", map[string]any{"notification_enable": false, "read_only": true})
	got, err := newClient(t, h.URL(), harbortest.DefaultAdminPassword).System(t.Context())
	if err != nil || got.Notifications || !got.ReadOnly {
		t.Errorf("%+v, %v; want no notifications, and read only", got, err)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "limited", "storage_limit": 1 << 20})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "free"})
	push(t, h, "limited/app:v1", randomImage(t))
	boss := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	quota := func(project string) artifact.Quota {
		t.Helper()
		id, err := boss.ProjectID(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		got, err := boss.Quota(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := quota("limited"); got.Hard != 1<<20 || got.Used <= 0 {
		t.Errorf("quota %+v, want 1 MiB, partly used", got)
	}
	if got := quota("free"); got != (artifact.Quota{Hard: -1}) {
		t.Errorf("quota %+v, want no limit", got)
	}
	if _, err := robot(t, h, "signer", "repository", "pull").Quota(t.Context(), 1); err == nil || fault.Of(err).Reason != fault.Denied {
		t.Errorf("without the right: %v, want denied", err)
	}
}
