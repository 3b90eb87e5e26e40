package harbortest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// upstream is a registry that proxy caches stand before. The emulator never asks it anything: a proxy cache is a
// project with that id, which refuses pushes and holds nothing.
type upstream struct {
	id               int64
	name, url, kind  string
	insecure         bool
	created, updated time.Time
}

func (u *upstream) view() any {
	return map[string]any{
		"creation_time": timestamp(u.created), "credential": map[string]any{}, "id": u.id, "insecure": u.insecure,
		"name": u.name, "status": "healthy", "type": u.kind, "update_time": timestamp(u.updated), "url": u.url,
	}
}

func (c *call) listRegistries() error {
	if err := c.requireSystem("registry", "list"); err != nil {
		return err
	}
	return paged(c, c.h.state.registries, func(u *upstream) any { return u.view() })
}

func (c *call) createRegistry() error {
	var req struct {
		Name     string `json:"name"`
		URL      string `json:"url"`
		Type     string `json:"type"`
		Insecure bool   `json:"insecure"`
	}
	if err := c.decode("registry", &req); err != nil {
		return err
	}
	if err := c.requireSystem("registry", "create"); err != nil {
		return err
	}
	if req.Name == "" || !strings.Contains(req.URL, "://") {
		return errBadRequest("invalid registry %q at %q", req.Name, req.URL)
	}
	if slices.ContainsFunc(c.h.state.registries, func(u *upstream) bool { return u.name == req.Name }) {
		return errConflict("registry %s already exists", req.Name)
	}
	now := storedNow()
	u := &upstream{
		id: c.h.state.next("registry"), name: req.Name, url: req.URL, kind: req.Type, insecure: req.Insecure,
		created: now, updated: now,
	}
	c.h.state.registries = append(c.h.state.registries, u)
	return c.created(fmt.Sprintf("%sregistries/%d", apiPrefix, u.id))
}

func (c *call) getRegistry() error {
	if err := c.requireSystem("registry", "read"); err != nil {
		return err
	}
	ref := c.r.PathValue("registry")
	id, err := strconv.ParseInt(ref, 10, 64)
	if err != nil {
		return errUnprocessable(fmt.Sprintf("id in path must be of type int64: %q", ref))
	}
	u := c.h.state.upstream(id)
	if u == nil {
		return errNotFound("registry %d not found", id)
	}
	return c.json(http.StatusOK, u.view())
}

func (s *state) upstream(id int64) *upstream {
	at := slices.IndexFunc(s.registries, func(u *upstream) bool { return u.id == id })
	if at < 0 {
		return nil
	}
	return s.registries[at]
}

// proxiedRegistry is the registry that a new project shall be a cache of; 0 is none.
//
// SPEC: Harbor, src/server/v2.0/handler/project.go: only system administrators make proxy caches.
func (c *call) proxiedRegistry(req *projectRequest) (int64, error) {
	switch {
	case req.RegistryID == nil:
		return 0, nil
	case !c.who.canSystem(kindProject, "create"):
		return 0, &apiError{
			status: http.StatusForbidden, code: "FORBIDDEN", message: "Only system admin can create proxy cache project",
		}
	case *req.RegistryID <= 0:
		return 0, errBadRequest("%d is invalid value of registry_id, it should be geater than 0", *req.RegistryID)
	case c.h.state.upstream(*req.RegistryID) == nil:
		return 0, errNotFound("failed to get the registry %d: registry %d not found", *req.RegistryID, *req.RegistryID)
	default:
		return *req.RegistryID, nil
	}
}

// refuseProxyPush refuses uploads and manifests for a proxy cache.
//
// SPEC: Harbor, src/server/middleware/repoproxy: DENIED, whoever pushes.
func (c *call) refuseProxyPush(repo string) error {
	c.h.mu.RLock()
	defer c.h.mu.RUnlock()
	p, err := c.h.state.projectOf(repo)
	if err != nil || p.registryID == 0 {
		return err
	}
	return &apiError{
		status: http.StatusForbidden, code: "DENIED", message: "can not push artifact to a proxy project: " + p.name,
	}
}
