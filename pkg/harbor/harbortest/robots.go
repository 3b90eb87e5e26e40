package harbortest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	kindSystem   = "system"
	kindProject  = "project"
	robotPrefix  = "robot$"
	secretLength = 32
	daySeconds   = 24 * 60 * 60
)

type robot struct {
	id               int64
	name             string // Full, as robot$demo+pusher.
	secret           string
	level            string
	description      string
	project          *project // Of a project-level robot.
	disabled         bool
	duration         int64
	expires          int64 // Unix seconds; -1 is never.
	permissions      []robotPermission
	created, updated time.Time
}

type robotPermission struct {
	Access    []right `json:"access"`
	Kind      string  `json:"kind"`
	Namespace string  `json:"namespace"`
}

func (r *robot) expired() bool { return r.expires > 0 && time.Now().Unix() >= r.expires }

// can tells whether the robot may do an action on a resource of a project.
//
// An access to the resource "project" opens the same action on everything below the project: Harbor matches paths, and
// a recording shows it (project:read reads artifacts, repositories and webhook policies).
func (r *robot) can(projectName, resource, action string) bool {
	return slices.ContainsFunc(r.permissions, func(p robotPermission) bool {
		return p.covers(projectName) && slices.ContainsFunc(p.Access, func(a right) bool {
			return (a.Resource == resource || a.Resource == kindProject || a.Resource == "*") &&
				(a.Action == action || a.Action == "*") && a.Effect != "deny"
		})
	})
}

func (r *robot) canSystem(resource, action string) bool {
	return slices.ContainsFunc(r.permissions, func(p robotPermission) bool {
		return p.Kind == kindSystem && slices.ContainsFunc(p.Access, func(a right) bool {
			return (a.Resource == resource || a.Resource == "*") && (a.Action == action || a.Action == "*")
		})
	})
}

func (p robotPermission) covers(projectName string) bool {
	return p.Kind == kindProject && (p.Namespace == "*" || p.Namespace == projectName)
}

func (r *robot) covers(projectName string) bool {
	return slices.ContainsFunc(r.permissions, func(p robotPermission) bool { return p.covers(projectName) })
}

type robotRequest struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Secret      string            `json:"secret"`
	Level       string            `json:"level"`
	Disable     bool              `json:"disable"`
	Duration    int64             `json:"duration"`
	Permissions []robotPermission `json:"permissions"`
}

// validateRobot checks a robot's rights against the catalog, and resolves the project of a project-level robot (nil for
// a system robot).
func (c *call) validateRobot(req *robotRequest) (*project, error) {
	if req.Level != kindSystem && req.Level != kindProject {
		return nil, errBadRequest("bad request error level input")
	}
	if len(req.Permissions) == 0 {
		return nil, errBadRequest("bad request empty permission")
	}
	if req.Duration != -1 && req.Duration <= 0 {
		return nil, errBadRequest("bad request invalid duration: %d", req.Duration)
	}
	for _, p := range req.Permissions {
		if len(p.Access) == 0 {
			return nil, errBadRequest("bad request empty access")
		}
		for _, a := range p.Access {
			if !c.h.state.permissions.knows(p.Kind, a) {
				return nil, errBadRequest("bad request permission: %s:%s", a.Resource, a.Action)
			}
		}
	}
	if req.Level == kindSystem {
		return nil, nil //nolint:nilnil // a system robot has no project, and that is no error
	}
	if len(req.Permissions) > 1 {
		return nil, errBadRequest("bad request permission")
	}
	p := c.h.state.projects[req.Permissions[0].Namespace]
	if p == nil {
		return nil, errNotFound("project %s not found", req.Permissions[0].Namespace)
	}
	return p, nil
}

// requireRobot refuses whoever may not manage the robots of a project, or, when p is nil, of the system.
func (c *call) requireRobot(p *project, action string) error {
	if p != nil && c.who.can(p, "robot", action) {
		return nil
	}
	return c.requireSystem("robot", action)
}

func (c *call) createRobot() error {
	var req robotRequest
	if err := c.decode("robot", &req); err != nil {
		return err
	}
	if !c.who.authenticated() {
		return errUnauthorized()
	}
	p, err := c.validateRobot(&req)
	if err != nil {
		return err
	}
	if err := c.requireRobot(p, "create"); err != nil {
		return err
	}
	if !regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`).MatchString(req.Name) {
		return errBadRequest("robot name is not in lower case or contains illegal characters")
	}
	local, projectID := req.Name, int64(0)
	if p != nil {
		local, projectID = p.name+"+"+req.Name, p.id
	}
	if c.h.state.robots[robotPrefix+local] != nil {
		return errConflict("robot account %d:%s already exists", projectID, local)
	}
	now := storedNow()
	r := &robot{
		id: c.h.state.next("robot"), name: robotPrefix + local, secret: req.Secret, level: req.Level, project: p,
		description: req.Description, disabled: req.Disable, duration: req.Duration, expires: -1,
		permissions: req.Permissions, created: now, updated: now,
	}
	if r.secret == "" {
		r.secret = newSecret(secretLength)
	}
	if req.Duration > 0 {
		r.expires = now.Unix() + req.Duration*daySeconds
	}
	c.h.state.robots[r.name] = r
	c.audit("create", "robot", r.name, "create robot: "+r.name, p)
	c.w.Header().Set("Location", fmt.Sprintf("%srobots/%d", apiPrefix, r.id))
	return c.json(http.StatusCreated, map[string]any{
		"creation_time": timestamp(r.created), "expires_at": r.expires, "id": r.id, "name": r.name, "secret": r.secret,
	})
}

func (r *robot) view() any {
	return map[string]any{
		"creation_time": timestamp(r.created), "creator_ref": 1, "creator_type": "local", "disable": r.disabled,
		"duration": r.duration, "editable": true, "expires_at": r.expires, "id": r.id, "level": r.level,
		"name": r.name, "permissions": r.permissions, "update_time": timestamp(r.updated),
	}
}

// listRobots answers the system's robots, or with q=Level=project,ProjectID=N those of a project.
func (c *call) listRobots() error {
	q, err := parseQuery(c.r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	var of *project
	if strings.EqualFold(q["level"], kindProject) {
		id, err := strconv.ParseInt(q["projectid"], 10, 64)
		if err != nil {
			return errBadRequest("must with project ID when to query project robots")
		}
		of = c.h.state.projectByID[id]
		if of == nil {
			return errNotFound("project %d not found", id)
		}
	}
	if err := c.requireRobot(of, "list"); err != nil {
		return err
	}
	var out []*robot
	for _, r := range c.h.state.robots {
		if r.project == of && (of != nil || r.level == kindSystem) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *robot) int { return int(a.id - b.id) })
	return paged(c, out, func(r *robot) any { return r.view() })
}

// pathRobot finds the robot of the path and refuses whoever may not do the action.
func (c *call) pathRobot(action string) (*robot, error) {
	ref := c.r.PathValue("robot")
	id, err := strconv.ParseInt(ref, 10, 64)
	if err != nil {
		return nil, errUnprocessable(fmt.Sprintf("robot_id in path must be of type int64: %q", ref))
	}
	for _, r := range c.h.state.robots {
		if r.id == id {
			return r, c.requireRobot(r.project, action)
		}
	}
	if err := c.requireSystem("robot", action); err != nil {
		return nil, err
	}
	return nil, errNotFound("robot %d not found", id)
}

func (c *call) getRobot() error {
	r, err := c.pathRobot("read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, r.view())
}

func (c *call) putRobot() error {
	var req robotRequest
	if err := c.decode("robot", &req); err != nil {
		return err
	}
	r, err := c.pathRobot("update")
	if err != nil {
		return err
	}
	if _, err := c.validateRobot(&req); err != nil {
		return err
	}
	// A copy: identities of running requests keep the old one without a lock.
	next := *r
	next.disabled, next.description, next.permissions = req.Disable, req.Description, req.Permissions
	next.duration, next.updated = req.Duration, storedNow()
	next.expires = -1
	if req.Duration > 0 {
		next.expires = next.created.Unix() + req.Duration*daySeconds
	}
	c.h.state.robots[r.name] = &next
	return c.ok()
}

// patchRobot sets a new secret, or makes one.
func (c *call) patchRobot() error {
	var req struct {
		Secret string `json:"secret"`
	}
	if err := c.decode("robotSec", &req); err != nil {
		return err
	}
	r, err := c.pathRobot("update")
	if err != nil {
		return err
	}
	next := *r
	next.secret = req.Secret
	if next.secret == "" {
		next.secret = newSecret(secretLength)
	}
	c.h.state.robots[r.name] = &next
	return c.json(http.StatusOK, map[string]any{"secret": next.secret})
}

func (c *call) deleteRobot() error {
	r, err := c.pathRobot("delete")
	if err != nil {
		return err
	}
	delete(c.h.state.robots, r.name)
	c.audit("delete", "robot", r.name, "delete robot: "+r.name, r.project)
	return c.ok()
}
