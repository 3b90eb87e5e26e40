package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Can says whether the caller may do something with a project; an empty project stands for all, those to come included. A
// project that does not exist is one that nobody may do anything with, but system admins, auditors and API tokens for it.
// The error is a [*ThrottledError] or a transient fault.
func (a *Access) Can(ctx context.Context, c Caller, action Action, project string) (bool, error) {
	switch {
	case action != Read && action != Change, project != "" && !validProject(project):
		return false, nil
	case c.Kind == Token:
		return c.grant != nil && c.grant.allows(action, project), nil
	case c.Kind != User || c.credentials == nil:
		return false, nil
	case c.SystemAdmin, c.Auditor && action == Read:
		return true, nil
	case project == "":
		return false, nil
	}
	role, err := a.role(ctx, c, project)
	if err != nil {
		return false, err
	}
	return role == artifact.RoleProjectAdmin || role > artifact.RoleNone && action == Read, nil
}

// Require is Can as an error: ErrForbidden for who may read the project but not do this, ErrNotFound for all others.
func (a *Access) Require(ctx context.Context, c Caller, action Action, project string) error {
	may, err := a.Can(ctx, c, action, project)
	if err != nil || may {
		return err
	}
	if action != Read {
		// The answer to this is remembered by now, so that it takes no time that could tell anything.
		may, err = a.Can(ctx, c, Read, project)
	}
	switch {
	case err != nil:
		return err
	case may:
		return ErrForbidden
	default:
		return ErrNotFound
	}
}

// Visible gives the projects that the caller may read, sorted and never nil, or says that these are all. Robots have none.
// The error is a [*ThrottledError] or a fault.
func (a *Access) Visible(ctx context.Context, c Caller) (projects []string, all bool, err error) {
	switch {
	case c.Kind == Token && c.grant != nil:
		if c.grant.all() {
			return nil, true, nil
		}
		projects, err = a.granted(ctx, c.grant)
		return projects, false, err
	case c.Kind != User || c.credentials == nil:
		return []string{}, false, nil
	case c.SystemAdmin || c.Auditor:
		return nil, true, nil
	}
	projects, err = remembered(ctx, a, c, a.visible, a.keys.of("visible", c.credentials.authorization), func(ctx context.Context) ([]string, error) {
		roles, err := a.harbor.As(c.credentials.authorization).Roles(ctx)
		if err != nil {
			return nil, unavailable("asking Harbor for the caller's projects", err)
		}
		return membership(roles), nil
	})
	return slices.Clone(projects), false, err
}

// membership gives the sorted names of the projects in which there is a role. It is never nil, which would stand for all.
func membership(roles map[string]artifact.Role) []string {
	projects := make([]string, 0, len(roles))
	for name, role := range roles {
		if role > artifact.RoleNone {
			projects = append(projects, name)
		}
	}
	slices.Sort(projects)
	return projects
}

// granted gives the projects that a grant names, and those that are known and match its globs.
func (a *Access) granted(ctx context.Context, g *grant) ([]string, error) {
	projects := make([]string, 0, len(g.projects))
	for _, glob := range g.projects {
		if validProject(glob) {
			projects = append(projects, glob)
		}
	}
	if len(projects) < len(g.projects) && a.names != nil {
		known, err := a.names(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing the known projects: %w", err)
		}
		for _, name := range known {
			if g.covers(name) {
				projects = append(projects, name)
			}
		}
	}
	slices.Sort(projects)
	return slices.Compact(projects), nil
}

// CanPull says whether the caller may ask about the images of a repository, such as demo/team/app: a robot if Harbor lets it
// pull them, all others if they may read the project. The error is a [*ThrottledError] or a transient fault.
func (a *Access) CanPull(ctx context.Context, c Caller, repository string) (bool, error) {
	project, _, _ := strings.Cut(repository, "/")
	switch {
	case !validRepository(repository):
		return false, nil
	case c.Kind != Robot || c.credentials == nil:
		return a.Can(ctx, c, Read, project)
	}
	return a.mayIn(ctx, c, repository, "pull")
}

// CanPush says whether the caller may ask for the images of a repository to be signed: accounts of Harbor, robots and people, if
// Harbor lets them push there, and API tokens with the scope change. An auditor who may not push may not. The error is a
// [*ThrottledError] or a transient fault.
func (a *Access) CanPush(ctx context.Context, c Caller, repository string) (bool, error) {
	project, _, _ := strings.Cut(repository, "/")
	switch {
	case !validRepository(repository):
		return false, nil
	case c.Kind == Token:
		return a.Can(ctx, c, Change, project)
	case c.credentials == nil:
		return false, nil
	case c.credentials.account == "":
		return a.pushesByRole(ctx, c, project)
	}
	return a.mayIn(ctx, c, repository, "push")
}

// pushesByRole is for who came with an id token.
//
// SPEC: Harbor, src/server/middleware/security/idtoken.go: an id token opens the API alone, so that the token service knows nobody
// by it. docs/administration/managing-users/user-permissions-by-role: admins, maintainers and developers push.
func (a *Access) pushesByRole(ctx context.Context, c Caller, project string) (bool, error) {
	if c.SystemAdmin {
		return true, nil
	}
	role, err := a.role(ctx, c, project)
	if err != nil {
		return false, err
	}
	return role == artifact.RoleProjectAdmin || role == artifact.RoleMaintainer || role == artifact.RoleDeveloper, nil
}

// mayIn says whether Harbor's token service lets an account do something with a repository. It knows people as well as robots,
// and the CLI secrets of those who log in by OIDC.
func (a *Access) mayIn(ctx context.Context, c Caller, repository, action string) (bool, error) {
	return remembered(ctx, a, c, a.tokenRights, a.keys.of(action, c.credentials.authorization, repository), func(ctx context.Context) (bool, error) {
		actions, err := a.harbor.As(c.credentials.authorization).TokenActions(ctx, repository, []string{action})
		switch {
		case err == nil:
			return slices.Contains(actions, action), nil
		case without(err):
			return false, nil
		default:
			return false, unavailable("asking Harbor what the account may do in the repository", err)
		}
	})
}

func validProject(name string) bool    { return artifact.ValidateProject(name) == nil }
func validRepository(name string) bool { return artifact.ValidateRepository(name) == nil }

// role gives the caller's role in a project. RoleNone stands for no project as well.
func (a *Access) role(ctx context.Context, c Caller, project string) (artifact.Role, error) {
	return remembered(ctx, a, c, a.roles, a.keys.of("role", c.credentials.authorization, project), func(ctx context.Context) (artifact.Role, error) {
		role, _, err := a.harbor.As(c.credentials.authorization).RoleIn(ctx, project)
		switch {
		case err == nil:
			return role, nil
		case without(err):
			return artifact.RoleNone, nil
		default:
			return artifact.RoleNone, unavailable("asking Harbor for the caller's role", err)
		}
	})
}

// without says whether Harbor has answered that the caller has no right: because there is none, because there is no project,
// or because the credentials that were good a moment ago are no longer.
func without(err error) bool {
	f := fault.Of(err)
	return f.Kind == fault.Gone || f.Reason == fault.Denied || f.Reason == fault.Unauthorized
}

// remembered gives an answer about a caller who was let in, as remembered or as Harbor says.
func remembered[V any](ctx context.Context, a *Access, c Caller, m *memory[V], k key, ask func(context.Context) (V, error)) (V, error) {
	return m.get(ctx, k, func() (none V, err error) {
		leave, err := a.callers.enter(a.keys.of("caller", c.credentials.authorization))
		if err != nil {
			return none, err
		}
		defer leave()
		ctx, cancel := a.unbroken(ctx)
		defer cancel()
		return ask(ctx)
	})
}
