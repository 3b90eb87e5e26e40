package harbor

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// robotRow is a robot account as Harbor lists it.
type robotRow struct {
	Name string `json:"name"`
	// ExpiresAt is in Unix seconds; -1 stands for never.
	ExpiresAt int64 `json:"expires_at"`
}

// RobotExpiry says when the client's own robot account expires, the zero time if it never does. It is a Denied fault without the
// right robot:list, of the system or of the robot's project, and Gone if the account is none of the robots that Harbor lists: users
// expire nowhere.
func (c *Client) RobotExpiry(ctx context.Context) (time.Time, error) {
	name, q := userOf(c.transport.authorization), ""
	// SPEC: recorded answers of Harbor 2.15: the robot of a project is called robot$project+name, and is listed there alone.
	if owner, _, ofProject := strings.Cut(name, "+"); ofProject {
		projects, err := c.AllProjects(ctx)
		if err != nil {
			return time.Time{}, err
		}
		id := ownerOf(projects, owner)
		if id == 0 {
			return time.Time{}, fault.Newf(fault.Gone, fault.NotFound, "the account's project is not to be seen")
		}
		q = "Level=project,ProjectID=" + strconv.FormatInt(id, 10)
	}
	var own *robotRow
	fetch := func(ctx context.Context, page int64) ([]*robotRow, int64, error) { return c.robotPage(ctx, q, page) }
	err := backwards(ctx, c.pageSize, fetch, func(rows []*robotRow) (bool, error) {
		for _, r := range rows {
			if r.Name == name {
				own = r
			}
		}
		return own != nil, nil
	})
	switch {
	case err != nil:
		return time.Time{}, err
	case own == nil:
		return time.Time{}, fault.Newf(fault.Gone, fault.NotFound, "the account is none of the robots that Harbor lists")
	case own.ExpiresAt > 0:
		return time.Unix(own.ExpiresAt, 0).UTC(), nil
	default:
		return time.Time{}, nil
	}
}

func (c *Client) robotPage(ctx context.Context, q string, page int64) ([]*robotRow, int64, error) {
	query := url.Values{"page": {strconv.FormatInt(page, 10)}, "page_size": {strconv.FormatInt(c.pageSize, 10)}}
	if q != "" {
		query.Set("q", q)
	}
	var rows []*robotRow
	header, err := c.ask(ctx, http.MethodGet, "robots", query, nil, &rows)
	if err == nil {
		err = complete(rows)
	}
	if err != nil {
		return nil, 0, c.wrap("listing the robot accounts", err)
	}
	return rows, totalOf(header), nil
}

// ownerOf gives the project of a robot whose name is a prefix that Harbor's admin may choose, the project, a plus sign and
// more; 0 if it is not among them. owner is what stands before the plus sign.
func ownerOf(projects []artifact.Project, owner string) (id int64) {
	longest := 0
	for _, p := range projects {
		if strings.HasSuffix(owner, p.Name) && len(p.Name) > longest {
			longest, id = len(p.Name), p.ID
		}
	}
	return id
}

// RemoveArtifact deletes a manifest with all that hangs on it, for which it needs the right artifact:delete. What is gone already
// is no error. The repository stays, also if nothing is left there.
func (c *Client) RemoveArtifact(ctx context.Context, ref artifact.Ref) error {
	if err := checkProject(ref.Project()); err != nil {
		return err
	}
	_, err := c.ask(ctx, http.MethodDelete, repositoryPath(ref)+"/artifacts/"+url.PathEscape(ref.Digest()), nil, nil, nil)
	return c.wrapUnlessGone("deleting the artifact", err)
}

// RemoveEmptyRepository deletes the repository of a reference if nothing is left there, for which it needs the rights
// repository:read and repository:delete. Whoever pushes into it between the look and the deletion loses that image: it is for
// repositories in which nobody else pushes.
func (c *Client) RemoveEmptyRepository(ctx context.Context, ref artifact.Ref) error {
	if err := checkProject(ref.Project()); err != nil {
		return err
	}
	var left struct {
		Artifacts int64 `json:"artifact_count"`
	}
	_, err := c.ask(ctx, http.MethodGet, repositoryPath(ref), nil, nil, &left)
	if err == nil && left.Artifacts == 0 {
		_, err = c.ask(ctx, http.MethodDelete, repositoryPath(ref), nil, nil, nil)
	}
	return c.wrapUnlessGone("deleting the empty repository", err)
}

// SPEC: Harbor API: the name of a repository is escaped twice, because it may have slashes.
func repositoryPath(ref artifact.Ref) string {
	return "projects/" + url.PathEscape(ref.Project()) + "/repositories/" + url.PathEscape(url.PathEscape(ref.Name()))
}

// wrapUnlessGone is wrap for what shall not be there.
func (c *Client) wrapUnlessGone(doing string, err error) error {
	if err == nil || fault.Is(err, fault.Gone) {
		return nil
	}
	return c.wrap(doing, err)
}
