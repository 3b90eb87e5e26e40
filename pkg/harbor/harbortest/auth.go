package harbortest

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
)

// identity is who makes a request: a user, a robot, the holder of a registry token, or nobody.
type identity struct {
	name  string // The operator's name in events and logs; empty for nobody.
	user  *user
	robot *robot
	token *tokenClaims
}

func (i *identity) authenticated() bool { return i.name != "" }
func (i *identity) sysadmin() bool      { return i.user != nil && i.user.sysadmin }

// identify finds out who makes a request. Wrong credentials are nobody: each endpoint then decides by itself.
func (h *Harbor) identify(r *http.Request) *identity {
	header := r.Header.Get("Authorization")
	if raw, ok := strings.CutPrefix(header, "Bearer "); ok {
		if strings.HasPrefix(r.URL.Path, "/api") {
			return h.byIDToken(r.URL.Path, raw)
		}
		claims, err := h.tokens.verify(raw)
		if err != nil {
			return &identity{}
		}
		return &identity{name: claims.Subject, token: claims}
	}
	name, secret, ok := r.BasicAuth()
	if !ok {
		return &identity{}
	}
	return h.login(r, name, secret)
}

func (h *Harbor) login(r *http.Request, name, secret string) *identity {
	h.mu.RLock()
	defer h.mu.RUnlock()
	same := func(want string) bool { return subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1 }
	if robot := h.state.robots[name]; robot != nil && !robot.disabled && !robot.expired() && same(robot.secret) {
		return &identity{name: name, robot: robot}
	}
	if u := h.state.users[name]; u != nil {
		if want, ok := h.state.passwordOf(u, r); ok && same(want) {
			return &identity{name: name, user: u}
		}
	}
	return &identity{}
}

// can tells whether the caller may do an action on a resource of a project.
func (i *identity) can(p *project, resource, action string) bool {
	switch {
	case i.token != nil:
		return false // Tokens carry rights on repositories only: see canRepository.
	case i.robot != nil:
		return i.robot.can(p.name, resource, action) || (p.public() && roleAllows(rolePublic, resource, action))
	case i.sysadmin():
		return true
	}
	if i.user != nil {
		if m := p.memberOf(i.user); m != nil && roleAllows(m.role, resource, action) {
			return true
		}
	}
	return p.public() && roleAllows(rolePublic, resource, action)
}

// canRepository tells whether the caller may pull, push or delete in a repository over /v2.
func (i *identity) canRepository(p *project, repoName, action string) bool {
	if i.token != nil {
		return i.token.allows("repository", repoName, action)
	}
	return i.can(p, "repository", action)
}

// canSystem tells whether the caller may do an action on a resource of the whole system.
func (i *identity) canSystem(resource, action string) bool {
	return i.sysadmin() || (i.robot != nil && i.robot.canSystem(resource, action))
}

// covers tells whether a project is visible to the caller beyond its being public.
func (i *identity) covers(p *project) bool {
	switch {
	case i.sysadmin():
		return true
	case i.robot != nil:
		return i.robot.covers(p.name) || i.robot.canSystem("project", "list")
	case i.user != nil:
		return p.memberOf(i.user) != nil
	default:
		return false
	}
}

func (p *project) memberOf(u *user) *member {
	at := slices.IndexFunc(p.members, func(m *member) bool { return m.user == u })
	if at < 0 {
		return nil
	}
	return p.members[at]
}

// requireSystem refuses whoever lacks a right on the whole system.
func (c *call) requireSystem(resource, action string) error {
	switch {
	case c.who.canSystem(resource, action):
		return nil
	case c.who.authenticated():
		return errForbidden()
	default:
		return errUnauthorized()
	}
}

// requireProject finds the project of the path and refuses whoever lacks the right on it. A project that does not
// exist is 404 to system administrators only; to others it looks like one that they may not see.
func (c *call) requireProject(resource, action string) (*project, error) {
	name := c.r.PathValue("project")
	// SPEC: Harbor API, paths /projects/{project_name}/repositories…: the parameter is a name, whatever it looks like.
	byName := c.r.Header.Get("X-Is-Resource-Name") == "true" || strings.Contains(c.r.Pattern, "{project}/repositories")
	p := c.h.state.findProject(name, byName)
	switch {
	case p != nil && c.who.can(p, resource, action):
		return p, nil
	case !c.who.authenticated():
		return nil, errUnauthorized()
	case p == nil && c.who.sysadmin():
		return nil, errNotFound("project %s not found", name)
	default:
		return nil, errForbidden()
	}
}
