package harbor

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// idAge is how long the ID of a project is used.
const idAge = 30 * time.Second

// projectRow is a project as Harbor's listing shows it. The generated client would lose what it does not know of the metadata.
type projectRow struct {
	ID         int64          `json:"project_id"`
	Name       string         `json:"name"`
	RegistryID int64          `json:"registry_id"`
	Role       artifact.Role  `json:"current_user_role_id"`
	Metadata   map[string]any `json:"metadata"`
}

func (p *projectRow) project() artifact.Project {
	out := artifact.Project{ID: p.ID, Name: p.Name, ProxyCache: p.RegistryID != 0, Metadata: make(map[string]string, len(p.Metadata))}
	for name, value := range p.Metadata {
		if text, ok := value.(string); ok {
			out.Metadata[name] = text
		}
	}
	out.SignedOnly = out.Metadata["enable_content_trust_cosign"] == "true"
	return out
}

// ProjectExists says whether there is a project of this name. Every account may ask, whatever its rights. That it does not
// exist is only said when Harbor said so in its own words.
func (c *Client) ProjectExists(ctx context.Context, name string) (bool, error) {
	params := project.NewHeadProjectParams().WithTimeout(c.timeout).WithProjectName(name)
	_, err := c.api.Project.HeadProject(ctx, params)
	switch {
	case err == nil:
		return true, nil
	case fault.Is(err, fault.Gone):
		return false, nil
	default:
		return false, c.wrap("looking for the project", err)
	}
}

// AllProjects gives all projects that the account may see, in no order. One that is made or deleted meanwhile may be missing.
func (c *Client) AllProjects(ctx context.Context) ([]artifact.Project, error) {
	var projects []artifact.Project
	seen := make(map[int64]bool)
	err := c.eachProject(ctx, "", func(p *projectRow) bool {
		if !seen[p.ID] {
			seen[p.ID] = true
			projects = append(projects, p.project())
		}
		return false
	})
	return projects, err
}

// Project gives one project. It is a Gone fault if there is none of this name that the account may see.
func (c *Client) Project(ctx context.Context, name string) (artifact.Project, error) {
	row, err := c.projectRow(ctx, name)
	if err != nil {
		return artifact.Project{}, err
	}
	return row.project(), nil
}

// RoleIn gives the account's role in a project, and the project. Robot accounts have none. It is a Gone fault if there is no
// project of this name that the account may see; a public one is seen by everybody.
func (c *Client) RoleIn(ctx context.Context, name string) (artifact.Role, artifact.Project, error) {
	row, err := c.projectRow(ctx, name)
	if err != nil {
		return artifact.RoleNone, artifact.Project{}, err
	}
	return row.Role, row.project(), nil
}

// Roles gives the account's role in each project in which it has one, by the project's name. The public projects of others are not
// among them; robot accounts, and credentials that Harbor does not take, have none.
func (c *Client) Roles(ctx context.Context) (map[string]artifact.Role, error) {
	roles := make(map[string]artifact.Role)
	err := c.eachProject(ctx, "", func(p *projectRow) bool {
		if p.Role != artifact.RoleNone {
			roles[p.Name] = p.Role
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	return roles, nil
}

// projectID is what Harbor answered about the ID of a project.
type projectID struct {
	id   int64
	gone error // instead of an ID
}

// ProjectID gives the ID of a project, which is another one after the project was deleted and made anew. It is remembered for
// 30 seconds and not beyond, not even while Harbor does not answer; that the project is gone is not remembered.
func (c *Client) ProjectID(ctx context.Context, name string) (int64, error) {
	known, err := c.ids.of(name, true).get(ctx, func(ctx context.Context) (projectID, time.Duration, error) {
		row, err := c.projectRow(ctx, name)
		switch {
		case fault.Is(err, fault.Gone):
			return projectID{gone: err}, 0, nil
		case err != nil:
			return projectID{}, 0, err
		default:
			return projectID{id: row.ID}, idAge, nil
		}
	})
	if err != nil {
		return 0, err
	}
	return known.id, known.gone
}

// projectRow looks for a project by its exact name: Harbor's own filter takes parts of names.
func (c *Client) projectRow(ctx context.Context, name string) (*projectRow, error) {
	if err := checkProject(name); err != nil {
		return nil, err
	}
	var found *projectRow
	err := c.eachProject(ctx, name, func(p *projectRow) bool {
		if p.Name == name {
			found = p
		}
		return found != nil
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, fault.Newf(fault.Gone, fault.NotFound, "there is no project %s, or it is not visible to this account", name)
	default:
		return found, nil
	}
}

// eachProject goes through the projects with a part of a name, until each says that it has enough. A project may come twice.
func (c *Client) eachProject(ctx context.Context, part string, each func(*projectRow) bool) error {
	fetch := func(ctx context.Context, page int64) ([]*projectRow, int64, error) {
		query := url.Values{
			"page": {strconv.FormatInt(page, 10)}, "page_size": {strconv.FormatInt(c.pageSize, 10)}, "sort": {"project_id"},
			"with_detail": {"true"},
		}
		if part != "" {
			query.Set("name", part)
		}
		var rows []*projectRow
		header, err := c.ask(ctx, http.MethodGet, "projects", query, nil, &rows)
		if err == nil {
			err = complete(rows)
		}
		if err != nil {
			return nil, 0, c.wrap("listing the projects", err)
		}
		return rows, totalOf(header), nil
	}
	return backwards(ctx, c.pageSize, fetch, func(rows []*projectRow) (bool, error) {
		return slices.ContainsFunc(rows, each), nil
	})
}
