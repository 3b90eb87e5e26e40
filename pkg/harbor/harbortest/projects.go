package harbortest

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	metaPublic     = "public"
	metaSignedOnly = "enable_content_trust_cosign"
	zeroTimestamp  = "0001-01-01T00:00:00.000Z"
	maxNameLength  = 255
)

type projectRequest struct {
	Name         string            `json:"project_name"`
	Public       *bool             `json:"public"`
	Metadata     map[string]string `json:"metadata"`
	StorageLimit *int64            `json:"storage_limit"`
	RegistryID   *int64            `json:"registry_id"` // Makes it a proxy cache.
}

func (c *call) createProject() error {
	var req projectRequest
	if err := c.decode("project", &req); err != nil {
		return err
	}
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	if c.who.user == nil && !c.who.canSystem(kindProject, "create") {
		return errForbidden()
	}
	registryID, err := c.proxiedRegistry(&req)
	if err != nil {
		return err
	}
	if len(req.Name) > maxNameLength || !regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`).MatchString(req.Name) {
		return errBadRequest("project name is not in lower case or contains illegal characters")
	}
	if c.h.state.projects[req.Name] != nil {
		return errConflict("The project named %s already exists", req.Name)
	}
	metadata := map[string]string{metaPublic: "false"}
	if req.Public != nil && *req.Public {
		metadata[metaPublic] = "true"
	}
	maps.Copy(metadata, req.Metadata)
	owner := c.who.user
	if owner == nil {
		owner = c.h.state.users["admin"]
	}
	limit, err := c.limitOf(&req)
	if err != nil {
		return err
	}
	p := c.h.state.addProject(req.Name, owner, metadata, limit)
	p.registryID = registryID
	c.audit("create", kindProject, p.name, "create project: "+p.name, p)
	if c.r.Header.Get("X-Resource-Name-In-Location") == "true" {
		return c.created(apiPrefix + "projects/" + p.name)
	}
	return c.created(fmt.Sprintf("%sprojects/%d", apiPrefix, p.id))
}

// limitOf is the quota of a new project: what the request says, if a system administrator makes it.
func (c *call) limitOf(req *projectRequest) (int64, error) {
	if req.StorageLimit == nil || *req.StorageLimit == 0 || !c.who.sysadmin() {
		return c.h.state.defaultLimit(), nil
	}
	return storageLimit(map[string]int64{resourceStorage: *req.StorageLimit})
}

// projectView renders a project as its caller sees it.
func (c *call) projectView(p *project, detail bool) map[string]any {
	allowlist := map[string]any{"creation_time": zeroTimestamp, "update_time": zeroTimestamp, "items": nil}
	out := map[string]any{
		"creation_time": timestamp(p.created), "update_time": timestamp(p.updated), "cve_allowlist": allowlist,
		"current_user_role_ids": nil, "name": p.name, "owner_id": p.owner.id, "project_id": p.id,
		"repo_count": len(p.repos),
	}
	if detail {
		allowlist["id"], allowlist["project_id"], allowlist["items"] = p.id, p.id, []any{}
		out["metadata"], out["owner_name"] = maps.Clone(p.metadata), p.owner.name
	}
	if p.registryID != 0 {
		out["registry_id"] = p.registryID
	}
	// SPEC: Harbor, src/server/v2.0/handler/project.go populateProperties: roles are memberships of users; a robot has
	// none, nor has a system administrator who is no member.
	if c.who.user != nil {
		if m := p.memberOf(c.who.user); m != nil {
			out["current_user_role_id"], out["current_user_role_ids"] = m.role, []int{m.role}
		}
	}
	return out
}

func (c *call) listProjects() error {
	q, err := parseQuery(c.r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	params := c.r.URL.Query()
	public, filterPublic := params.Get(metaPublic), params.Has(metaPublic)
	var out []*project
	for _, p := range c.h.state.projects {
		switch {
		case !p.public() && !c.who.covers(p):
		case !strings.Contains(p.name, strings.ToLower(params.Get("name"))):
		case !q.matches("name", p.name):
		case filterPublic && (public == "true") != p.public():
		case params.Get("owner") != "" && params.Get("owner") != p.owner.name:
		default:
			out = append(out, p)
		}
	}
	slices.SortFunc(out, byOrdered(func(p *project) string { return p.name }))
	sortBy(out, params.Get("sort"), map[string]func(a, b *project) int{
		"name":          byOrdered(func(p *project) string { return p.name }),
		"project_id":    byOrdered(func(p *project) int64 { return p.id }),
		"creation_time": byTime(func(p *project) time.Time { return p.created }),
		"update_time":   byTime(func(p *project) time.Time { return p.updated }),
	})
	detail := c.flag("with_detail", true)
	return paged(c, out, func(p *project) any { return c.projectView(p, detail) })
}

func (c *call) headProject() error {
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	name := c.r.URL.Query().Get("project_name")
	if c.h.state.projects[name] == nil {
		return errNotFound("project %s not found", name)
	}
	return c.ok()
}

func (c *call) getProject() error {
	p, err := c.requireProject(kindProject, "read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.projectView(p, true))
}

func (c *call) getProjectSummary() error {
	p, err := c.requireProject(kindProject, "read")
	if err != nil {
		return err
	}
	counts := make(map[int]int)
	for _, m := range p.members {
		counts[m.role]++
	}
	return c.json(http.StatusOK, map[string]any{
		"repo_count": len(p.repos), "project_admin_count": counts[roleProjectAdmin],
		"maintainer_count": counts[roleMaintainer], "developer_count": counts[roleDeveloper],
		"guest_count": counts[roleGuest], "limited_guest_count": counts[roleLimitedGuest],
		"quota": map[string]any{
			"hard": map[string]int64{resourceStorage: p.quota.hard}, "used": map[string]int64{resourceStorage: p.quota.used},
		},
	})
}

func (c *call) putProject() error {
	var req projectRequest
	if err := c.decode("project", &req); err != nil {
		return err
	}
	p, err := c.requireProject(kindProject, "update")
	if err != nil {
		return err
	}
	maps.Copy(p.metadata, req.Metadata)
	return c.ok()
}

func (c *call) deleteProject() error {
	p, err := c.requireProject(kindProject, "delete")
	if err != nil {
		return err
	}
	if len(p.repos) > 0 {
		return errPrecondition("precondition failed: the project contains repositories, can not be deleted")
	}
	delete(c.h.state.projects, p.name)
	delete(c.h.state.projectByID, p.id)
	for name, r := range c.h.state.robots {
		if r.project == p {
			delete(c.h.state.robots, name)
		}
	}
	c.audit("delete", kindProject, p.name, "delete project: "+p.name, p)
	return c.ok()
}

func (c *call) listMetadata() error {
	p, err := c.requireProject("metadata", "list")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, maps.Clone(p.metadata))
}

func (c *call) getMetadata() error {
	p, err := c.requireProject("metadata", "read")
	if err != nil {
		return err
	}
	key := c.r.PathValue("key")
	out := make(map[string]string)
	if value, ok := p.metadata[key]; ok {
		out[key] = value
	}
	return c.json(http.StatusOK, out)
}

func (c *call) addMetadata() error { return c.setMetadata("create", "") }
func (c *call) putMetadata() error { return c.setMetadata("update", c.r.PathValue("key")) }

// setMetadata takes one key and value; with only set, exactly that key.
func (c *call) setMetadata(action, only string) error {
	var values map[string]string
	if err := c.decode("metadata", &values); err != nil {
		return err
	}
	p, err := c.requireProject("metadata", action)
	if err != nil {
		return err
	}
	if len(values) != 1 {
		return errBadRequest("only allow add one valid metadata")
	}
	if _, ok := values[only]; only != "" && !ok {
		return errBadRequest("metadata %s not found in the request", only)
	}
	maps.Copy(p.metadata, values)
	return c.ok()
}

func (c *call) deleteMetadata() error {
	p, err := c.requireProject("metadata", "delete")
	if err != nil {
		return err
	}
	delete(p.metadata, c.r.PathValue("key"))
	return c.ok()
}
