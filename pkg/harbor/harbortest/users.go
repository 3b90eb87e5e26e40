package harbortest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

func (u *user) view() map[string]any {
	out := map[string]any{
		"admin_role_in_auth": false, "comment": u.comment, "creation_time": timestamp(u.created),
		"realname": u.realname, "sysadmin_flag": u.sysadmin, "update_time": timestamp(u.updated), "user_id": u.id,
		"username": u.name,
	}
	if u.email != "" {
		out["email"] = u.email
	}
	return out
}

func (c *call) getCurrentUser() error {
	switch {
	case c.who.robot != nil:
		return errPrecondition("get current user not available for security context: robot")
	case c.who.user == nil:
		return errUnauthorized()
	default:
		return c.json(http.StatusOK, c.who.user.view())
	}
}

func (c *call) listUsers() error {
	if err := c.requireSystem("user", "list"); err != nil {
		return err
	}
	out := make([]*user, 0, len(c.h.state.users))
	for _, u := range c.h.state.users {
		out = append(out, u)
	}
	slices.SortFunc(out, byOrdered(func(u *user) int64 { return u.id }))
	return paged(c, out, func(u *user) any { return u.view() })
}

func (c *call) createUser() error {
	var req struct {
		Username, Email, Realname, Password, Comment string
	}
	if err := c.decode("userReq", &req); err != nil {
		return err
	}
	if err := c.requireSystem("user", "create"); err != nil {
		return err
	}
	if req.Username == "" || req.Password == "" {
		return errBadRequest("user name and password are required")
	}
	if c.h.state.users[req.Username] != nil {
		return errConflict("user %s or email %s already exists", req.Username, req.Email)
	}
	now := storedNow()
	u := &user{
		id: c.h.state.next("user"), name: req.Username, password: req.Password, email: req.Email,
		realname: req.Realname, comment: req.Comment, created: now, updated: now,
	}
	c.h.state.users[u.name] = u
	c.audit("create", "user", u.name, "create user: "+u.name, nil)
	return c.created(fmt.Sprintf("%susers/%d", apiPrefix, u.id))
}

func (c *call) pathUser() (*user, error) {
	id, err := strconv.ParseInt(c.r.PathValue("user"), 10, 64)
	if err != nil {
		return nil, errUnprocessable("user_id in path must be of type int64: " + strconv.Quote(c.r.PathValue("user")))
	}
	for _, u := range c.h.state.users {
		if u.id == id {
			return u, nil
		}
	}
	return nil, errNotFound("user %d not found", id)
}

func (c *call) deleteUser() error {
	if err := c.requireSystem("user", "delete"); err != nil {
		return err
	}
	u, err := c.pathUser()
	if err != nil {
		return err
	}
	if u == c.who.user || u.id == 1 {
		return errForbidden()
	}
	delete(c.h.state.users, u.name)
	for _, p := range c.h.state.projects {
		p.members = slices.DeleteFunc(p.members, func(m *member) bool { return m.user == u })
	}
	return c.ok()
}

func (c *call) putSysadmin() error {
	var req struct {
		Sysadmin bool `json:"sysadmin_flag"`
	}
	if err := c.decode("sysadmin_flag", &req); err != nil {
		return err
	}
	if err := c.requireSystem("user", "update"); err != nil {
		return err
	}
	u, err := c.pathUser()
	if err != nil {
		return err
	}
	u.sysadmin = req.Sysadmin
	return c.ok()
}

func (c *call) listMembers() error {
	p, err := c.requireProject("member", "list")
	if err != nil {
		return err
	}
	return paged(c, p.members, func(m *member) any {
		return map[string]any{
			"entity_id": m.user.id, "entity_name": m.user.name, "entity_type": "u", "id": m.id, "project_id": p.id,
			"role_id": m.role, "role_name": roleName(m.role),
		}
	})
}

func (c *call) createMember() error {
	var req struct {
		Role int `json:"role_id"`
		User struct {
			ID   int64  `json:"user_id"`
			Name string `json:"username"`
		} `json:"member_user"`
	}
	if err := c.decode("projectMember", &req); err != nil {
		return err
	}
	p, err := c.requireProject("member", "create")
	if err != nil {
		return err
	}
	if req.Role < roleProjectAdmin || req.Role > roleLimitedGuest {
		return errBadRequest("The project member id: %d is invalid, project member role ID must be in range 1 to 5", req.Role)
	}
	var found *user
	for _, u := range c.h.state.users {
		if u.id == req.User.ID || u.name == req.User.Name {
			found = u
		}
	}
	if found == nil {
		return errNotFound("user %s not found", req.User.Name)
	}
	if p.memberOf(found) != nil {
		return errConflict("a project member already exist with user name %s", found.name)
	}
	m := &member{id: c.h.state.next("member"), user: found, role: req.Role}
	p.members = append(p.members, m)
	return c.created(fmt.Sprintf("%sprojects/%s/members/%d", apiPrefix, c.r.PathValue("project"), m.id))
}

// pathMember finds the member of the path, and its place in the list.
func (c *call) pathMember(p *project) (int, error) {
	ref := c.r.PathValue("member")
	at := slices.IndexFunc(p.members, func(m *member) bool { return strconv.FormatInt(m.id, 10) == ref })
	if at < 0 {
		return 0, errNotFound("project member %s not found", ref)
	}
	return at, nil
}

func (c *call) putMember() error {
	var req struct {
		Role int `json:"role_id"`
	}
	if err := c.decode("role", &req); err != nil {
		return err
	}
	p, err := c.requireProject("member", "update")
	if err != nil {
		return err
	}
	at, err := c.pathMember(p)
	if err != nil {
		return err
	}
	p.members[at].role = req.Role
	return c.ok()
}

func (c *call) deleteMember() error {
	p, err := c.requireProject("member", "delete")
	if err != nil {
		return err
	}
	at, err := c.pathMember(p)
	if err != nil {
		return err
	}
	p.members = slices.Delete(p.members, at, at+1)
	return c.ok()
}
