package harbortest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestRightsShowWithoutHarm asks for each right on webhook policies in a way that changes nothing: what the right
// answers, and what its absence answers.
func TestRightsShowWithoutHarm(t *testing.T) {
	t.Parallel()
	const policies = "/api/v2.0/projects/demo/webhook/policies"
	full := map[string]any{
		"name": "n", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []any{map[string]string{"type": "http", "address": "http://127.0.0.1:1/"}},
	}
	for _, probe := range []struct {
		name, right, method, path string
		body                      any
		granted, refused          int
	}{
		{"list", "notification-policy:list", http.MethodGet, policies, nil, 200, 403},
		{"read what is not there", "notification-policy:read", http.MethodGet, policies + "/0", nil, 404, 403},
		{"create without an event", "notification-policy:create", http.MethodPost, policies, map[string]any{}, 400, 403},
		{"update id 0", "notification-policy:update", http.MethodPut, policies + "/0", full, 404, 403},
		{"update id 0 with nothing", "notification-policy:update", http.MethodPut, policies + "/0", map[string]any{}, 404, 403},
		{"update a big id", "notification-policy:update", http.MethodPut, policies + "/99999", full, 404, 403},
		{"delete id 0", "notification-policy:delete", http.MethodDelete, policies + "/0", nil, 404, 403},
		{"delete a big id", "notification-policy:delete", http.MethodDelete, policies + "/99999", nil, 404, 403},
		{"read the project", "project:read", http.MethodGet, "/api/v2.0/projects/demo", nil, 200, 403},
		{"immutability", "immutable-tag:list", http.MethodGet, "/api/v2.0/projects/demo/immutabletagrules", nil, 200, 403},
	} {
		t.Run(probe.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, fast(t))
			c.project("demo", nil)
			with := c.robot("with", "project", "demo", probe.right)
			without := c.robot("without", "project", "demo", "repository:pull")
			c.want(probe.granted, with, probe.method, probe.path, probe.body)
			c.want(probe.refused, without, probe.method, probe.path, probe.body)
			var left []json.RawMessage
			c.want(http.StatusOK, admin(), http.MethodGet, policies, nil).decode(t, &left)
			if len(left) != 0 {
				t.Errorf("policies after the probes: got %s, want none", left)
			}
		})
	}
}

func TestUnreadablePolicyIsRefusedBeforeTheRight(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	without := c.robot("without", "project", "demo", "repository:pull")
	c.want(http.StatusUnprocessableEntity, without, http.MethodPost, "/api/v2.0/projects/demo/webhook/policies", "{")
}

func TestQuotaOfOneProject(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("one", nil)
	c.project("two", nil)
	reader := c.robot("quotas", "system", "/", "quota:list")
	outsider := c.robot("puller", "project", "*", "repository:pull")
	id := c.shownProject(admin(), "two").ID
	path := fmt.Sprintf("/api/v2.0/quotas?reference=project&reference_id=%d", id)
	var got []recordedQuota
	c.want(http.StatusOK, reader, http.MethodGet, path, nil).decode(t, &got)
	if len(got) != 1 || got[0].Ref.Name != "two" {
		t.Errorf("quotas of project %d: got %+v, want that of two alone", id, got)
	}
	c.want(http.StatusForbidden, outsider, http.MethodGet, path, nil)
	c.want(http.StatusUnauthorized, login{}, http.MethodGet, path, nil)
}

// shownProject is a project as GET /projects?name= shows it.
type shownProject struct {
	ID       int64             `json:"project_id"`
	Name     string            `json:"name"`
	Role     int               `json:"current_user_role_id"`
	Roles    []int             `json:"current_user_role_ids"`
	Registry int64             `json:"registry_id"`
	Metadata map[string]string `json:"metadata"`
}

// shownProject finds a project by its exact name among those that match a part of it; the zero value is none.
func (c *client) shownProject(who login, name string) shownProject {
	c.t.Helper()
	var found []shownProject
	c.want(http.StatusOK, who, http.MethodGet, "/api/v2.0/projects?page_size=100&name="+strings.ToUpper(name), nil).
		decode(c.t, &found)
	at := slices.IndexFunc(found, func(p shownProject) bool { return p.Name == name })
	if at < 0 {
		return shownProject{}
	}
	return found[at]
}

func TestRolesInTheProjectList(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", map[string]string{"enable_content_trust_cosign": "true"})
	c.project("demo2", nil)
	member := c.user("member")
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/demo/members",
		map[string]any{"role_id": 4, "member_user": map[string]string{"username": "member"}})
	root := c.user("root")
	c.want(http.StatusOK, admin(), http.MethodPut, fmt.Sprintf("/api/v2.0/users/%d/sysadmin", c.userID(root)),
		map[string]bool{"sysadmin_flag": true})
	robot := c.robot("all", "project", "*", "repository:list")
	for _, test := range []struct {
		name    string
		who     login
		project string
		role    int
		visible bool
	}{
		{"the owner", admin(), "demo", 1, true},
		{"a maintainer", member, "demo", 4, true},
		{"a maintainer elsewhere", member, "demo2", 0, false},
		{"a system administrator who is no member", root, "demo", 0, true},
		{"a robot", robot, "demo", 0, true},
		{"nobody", login{}, "demo", 0, false},
	} {
		got := c.shownProject(test.who, test.project)
		if (got.Name != "") != test.visible || got.Role != test.role || (test.role != 0) != (len(got.Roles) == 1) {
			t.Errorf("%s: got %+v, want visible %t with role %d", test.name, got, test.visible, test.role)
		}
		if test.visible && test.project == "demo" && got.Metadata["enable_content_trust_cosign"] != "true" {
			t.Errorf("%s: metadata: got %v, want the pull policy in it", test.name, got.Metadata)
		}
	}
}

// user makes a user whose password is its name.
func (c *client) user(name string) login {
	c.t.Helper()
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/users", map[string]string{
		"username": name, "email": name + "@example.com", "realname": name, "password": "Password-" + name,
	})
	return login{name, "Password-" + name}
}

func (c *client) userID(who login) int64 {
	c.t.Helper()
	var out struct {
		ID int64 `json:"user_id"`
	}
	c.want(http.StatusOK, who, http.MethodGet, "/api/v2.0/users/current", nil).decode(c.t, &out)
	return out.ID
}

func TestAProjectMadeAnewHasAnotherID(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	before := c.shownProject(admin(), "demo").ID
	c.push(admin(), c.image(), "demo/app:v1")
	c.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, "/api/v2.0/projects/demo", nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, "/api/v2.0/projects/demo/repositories/app", nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, "/api/v2.0/projects/demo", nil)
	if got := c.shownProject(admin(), "demo"); got.Name != "" {
		t.Errorf("after its deletion: got %+v, want nothing", got)
	}
	c.project("demo", nil)
	after := c.shownProject(admin(), "demo").ID
	if after <= before {
		t.Errorf("id of the project made anew: got %d, want above %d", after, before)
	}
	c.want(http.StatusNotFound, admin(), http.MethodGet, fmt.Sprintf("/api/v2.0/projects/%d", before), nil)
	c.want(http.StatusOK, admin(), http.MethodGet, fmt.Sprintf("/api/v2.0/projects/%d", after), nil)
}

func TestProxyCachesTakeNoPushes(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	at := c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/registries",
		map[string]any{"name": "hub", "url": "https://registry.example.com", "type": "docker-hub"}).header.Get("Location")
	var upstream struct{ ID int64 }
	c.want(http.StatusOK, admin(), http.MethodGet, at, nil).decode(t, &upstream)
	cache := func(name string, registry int64) map[string]any {
		return map[string]any{"project_name": name, "registry_id": registry}
	}
	c.want(http.StatusForbidden, c.user("dev"), http.MethodPost, "/api/v2.0/projects", cache("hub", upstream.ID))
	c.want(http.StatusNotFound, admin(), http.MethodPost, "/api/v2.0/projects", cache("hub", upstream.ID+1))
	c.want(http.StatusBadRequest, admin(), http.MethodPost, "/api/v2.0/projects", cache("hub", 0))
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects", cache("hub", upstream.ID))
	c.project("plain", nil)
	if got := c.shownProject(admin(), "hub").Registry; got != upstream.ID {
		t.Errorf("registry_id of the cache: got %d, want %d", got, upstream.ID)
	}
	if got := c.shownProject(admin(), "plain").Registry; got != 0 {
		t.Errorf("registry_id of a plain project: got %d, want none", got)
	}
	for _, request := range [][2]string{
		{http.MethodPost, "/v2/hub/library/app/blobs/uploads/"}, {http.MethodPut, "/v2/hub/library/app/manifests/v1"},
	} {
		got := c.want(http.StatusForbidden, admin(), request[0], request[1], "{}", "Content-Type", ociManifest)
		const want = "can not push artifact to a proxy project: hub"
		if !strings.Contains(string(got.body), want) || !strings.Contains(string(got.body), "DENIED") {
			t.Errorf("%s %s: got %s, want DENIED and %q", request[0], request[1], got.body, want)
		}
	}
}
