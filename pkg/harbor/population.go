package harbor

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	artifactapi "github.com/goharbor/go-client/pkg/sdk/v2.0/client/artifact"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/project"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/repository"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// everyDigest asks for the untagged children of an index too; without it a listing leaves them out.
	everyDigest = "base=*"
	// queryTime is how times stand in a query, in UTC: as in the recorded queries of Harbor 2.15. It has no plus sign, which
	// would become a blank, because Harbor decodes a query twice.
	queryTime = time.DateTime
)

// Population gives every manifest of a project from a cursor on, page by page, the older ones before those of later seconds:
// children of indexes and untagged ones included, accessories excluded. Each one that is there from the beginning to the end is
// given exactly once, whatever is pushed and deleted meanwhile; what is pushed meanwhile may be given. Pages are never empty.
// Page.Next leads on behind its page; its Edge are all that were given of the second of PushedAt, because Harbor bounds times by
// seconds. A cursor without an Edge begins at PushedAt, to the millisecond.
//
// A Harbor before 2.12 has no listing of a whole project: there it goes repository by repository in the order of their names,
// each from its own beginning (a cursor of one repository bounds that one alone), and the first page of each repository has a
// Total. A repository that is made meanwhile may be left out there.
//
// A project that is not there, or that the account may not see, is a Gone or a Denied fault, as Harbor answers.
func (c *Client) Population(
	ctx context.Context, name string, from artifact.Cursor, each func(context.Context, artifact.Page) error,
) error {
	if err := checkProject(name); err != nil {
		return err
	}
	if from.Repository == "" {
		if listed, err := c.walkProject(ctx, name, from, each); listed {
			return err
		}
	}
	return c.populationByRepository(ctx, name, from, each)
}

// walkProject goes through the listing of a whole project. It gives false if Harbor may not have such listings: a Harbor before 2.12
// gives the same 404 as for a missing project. If the project is missing, whatever is tried instead fails too.
func (c *Client) walkProject(
	ctx context.Context, name string, from artifact.Cursor, each func(context.Context, artifact.Page) error,
) (listed bool, err error) {
	if !c.shared.listsProjects() {
		return false, nil
	}
	fetch := c.projectArtifacts(name)
	err = c.walkArtifacts(ctx, func(ctx context.Context, from, until time.Time, page int64) ([]artifact.Listed, int64, error) {
		rows, total, err := fetch(ctx, from, until, page)
		listed = listed || !fault.Is(err, fault.Gone)
		return rows, total, err
	}, from, each)
	return listed, err
}

// populationByRepository is for a Harbor before 2.12.
func (c *Client) populationByRepository(
	ctx context.Context, name string, from artifact.Cursor, each func(context.Context, artifact.Page) error,
) error {
	repositories, err := c.repositories(ctx, name)
	if err != nil {
		return err
	}
	c.shared.listsNoProjects()
	for _, short := range repositories {
		start := artifact.Cursor{Repository: short, PushedAt: from.PushedAt}
		switch {
		case short < from.Repository:
			continue
		case short == from.Repository:
			start = from
		case from.Repository != "":
			start.PushedAt = time.Time{}
		}
		if err := c.walkArtifacts(ctx, c.repositoryArtifacts(name, short), start, each); err != nil {
			return err
		}
	}
	return nil
}

// PushedSince gives the manifests of a project that were pushed at or after a time, children of indexes and untagged ones
// included, accessories excluded, each one once. On a Harbor before 2.12 it looks into each repository that was pushed to, or
// pulled from, since then.
func (c *Client) PushedSince(
	ctx context.Context, name string, since time.Time, each func(context.Context, []artifact.Listed) error,
) error {
	if err := checkProject(name); err != nil {
		return err
	}
	page := func(ctx context.Context, p artifact.Page) error { return each(ctx, p.Manifests) }
	if listed, err := c.walkProject(ctx, name, artifact.Cursor{PushedAt: since}, page); listed {
		return err
	}
	changed, err := c.changedRepositories(ctx, name, since)
	if err != nil {
		return err
	}
	c.shared.listsNoProjects()
	for _, short := range changed {
		from := artifact.Cursor{Repository: short, PushedAt: since}
		if err := c.walkArtifacts(ctx, c.repositoryArtifacts(name, short), from, page); err != nil {
			return err
		}
	}
	return nil
}

// Artifact gives one manifest with its tags and accessories. It is a Gone fault if Harbor does not have it.
func (c *Client) Artifact(ctx context.Context, ref artifact.Ref) (artifact.Listed, error) {
	yes := true
	params := artifactapi.NewGetArtifactParams().WithTimeout(c.timeout).WithProjectName(ref.Project()).
		WithRepositoryName(url.PathEscape(ref.Name())).WithReference(ref.Digest()).WithWithTag(&yes).WithWithAccessory(&yes)
	answer, err := c.api.Artifact.GetArtifact(ctx, params)
	if err != nil {
		return artifact.Listed{}, c.wrap("asking for the artifact", err)
	}
	if answer.Payload == nil || answer.Payload.Digest != ref.Digest() {
		return artifact.Listed{}, fault.Newf(fault.Transient, fault.BadAnswer, "asking for the artifact: the answer is about another one")
	}
	answer.Payload.RepositoryName = ref.Repository()
	listed, err := toListed(answer.Payload)
	if err != nil {
		return artifact.Listed{}, c.wrap("reading the artifact", err)
	}
	return listed, nil
}

// walkArtifacts goes through a listing of artifacts by their push time.
func (c *Client) walkArtifacts(
	ctx context.Context, fetch fetchArtifacts, from artifact.Cursor, each func(context.Context, artifact.Page) error,
) error {
	listing := keyset[artifact.Listed, artifact.Ref]{
		size: c.pageSize, fetch: fetch,
		at:  func(l artifact.Listed) time.Time { return l.PushedAt },
		key: func(l artifact.Listed) artifact.Ref { return l.Ref },
	}
	resumed := len(from.Edge) > 0
	return listing.walk(ctx, from.PushedAt, from.Edge, func(s stretch[artifact.Listed, artifact.Ref]) error {
		page := artifact.Page{
			Manifests: s.rows, Next: artifact.Cursor{Repository: from.Repository, PushedAt: s.at, Edge: s.edge},
		}
		if !resumed {
			page.Total = int(s.total)
		}
		return each(ctx, page)
	})
}

// fetchArtifacts asks for a page of artifacts that were pushed from a time on, until another; zero times are no bounds.
type fetchArtifacts = func(ctx context.Context, from, until time.Time, page int64) ([]artifact.Listed, int64, error)

func (c *Client) projectArtifacts(name string) fetchArtifacts {
	yes := true
	return func(ctx context.Context, from, until time.Time, page int64) ([]artifact.Listed, int64, error) {
		q, sort := artifactsBetween(from, until)
		params := project.NewListArtifactsOfProjectParams().WithTimeout(c.timeout).WithProjectNameOrID(name).WithXIsResourceName(isName()).
			WithQ(&q).WithSort(&sort).WithPage(&page).WithPageSize(&c.pageSize).WithWithTag(&yes).WithWithAccessory(&yes)
		answer, err := c.api.Project.ListArtifactsOfProject(ctx, params)
		if err != nil {
			return nil, 0, c.wrap("listing the artifacts of the project", err)
		}
		listed, err := listedRows(answer.Payload)
		if err != nil {
			return nil, 0, c.wrap("listing the artifacts of the project", err)
		}
		return listed, answer.XTotalCount, nil
	}
}

func (c *Client) repositoryArtifacts(name, short string) fetchArtifacts {
	yes := true
	// Harbor wants the slashes of a nested repository encoded twice; the client library does it once.
	escaped := url.PathEscape(short)
	return func(ctx context.Context, from, until time.Time, page int64) ([]artifact.Listed, int64, error) {
		q, sort := artifactsBetween(from, until)
		params := artifactapi.NewListArtifactsParams().WithTimeout(c.timeout).WithProjectName(name).WithRepositoryName(escaped).
			WithQ(&q).WithSort(&sort).WithPage(&page).WithPageSize(&c.pageSize).WithWithTag(&yes).WithWithAccessory(&yes)
		answer, err := c.api.Artifact.ListArtifacts(ctx, params)
		if err != nil {
			return nil, 0, c.wrap("listing the artifacts of the repository", err)
		}
		for _, a := range answer.Payload {
			if a != nil {
				a.RepositoryName = name + "/" + short
			}
		}
		listed, err := listedRows(answer.Payload)
		if err != nil {
			return nil, 0, c.wrap("listing the artifacts of the repository", err)
		}
		return listed, answer.XTotalCount, nil
	}
}

// repositories gives the names of a project's repositories without the project's, sorted.
func (c *Client) repositories(ctx context.Context, name string) ([]string, error) {
	fetch := func(ctx context.Context, page int64) ([]*models.Repository, int64, error) {
		return c.repositoryPage(ctx, name, "", "creation_time,name", page)
	}
	var names []string
	err := backwards(ctx, c.pageSize, fetch, func(rows []*models.Repository) (bool, error) {
		for _, r := range rows {
			names = append(names, strings.TrimPrefix(r.Name, name+"/"))
		}
		return false, nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

// changedRepositories gives the names of the repositories that were pushed to or pulled from at or after a time. One that
// changes meanwhile moves to the end of the listing, where it is met again.
func (c *Client) changedRepositories(ctx context.Context, name string, since time.Time) ([]string, error) {
	listing := keyset[*models.Repository, string]{
		size: c.pageSize,
		fetch: func(ctx context.Context, from, until time.Time, page int64) ([]*models.Repository, int64, error) {
			q := strings.TrimPrefix(between("update_time", from, until), ",")
			return c.repositoryPage(ctx, name, q, "update_time,name", page)
		},
		at:  func(r *models.Repository) time.Time { return timeOf(r.UpdateTime) },
		key: func(r *models.Repository) string { return r.Name },
	}
	var names []string
	err := listing.walk(ctx, since, nil, func(s stretch[*models.Repository, string]) error {
		for _, r := range s.rows {
			names = append(names, strings.TrimPrefix(r.Name, name+"/"))
		}
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

func (c *Client) repositoryPage(ctx context.Context, name, q, sort string, page int64) ([]*models.Repository, int64, error) {
	params := repository.NewListRepositoriesParams().WithTimeout(c.timeout).WithProjectName(name).
		WithSort(&sort).WithPage(&page).WithPageSize(&c.pageSize)
	if q != "" {
		params = params.WithQ(&q)
	}
	answer, err := c.api.Repository.ListRepositories(ctx, params)
	if err == nil {
		err = complete(answer.Payload)
	}
	if err != nil {
		return nil, 0, c.wrap("listing the repositories of the project", err)
	}
	return answer.Payload, answer.XTotalCount, nil
}

// artifactsBetween asks for every digest of a range of push times. Those between two times are
// sorted by their id: the database gives rows of the same time in any order, and what is new comes last.
func artifactsBetween(from, until time.Time) (q, sort string) {
	q, sort = everyDigest, "push_time"
	if !until.IsZero() {
		sort = "id"
	}
	return q + between("push_time", from, until), sort
}

// between is a further condition of a query: a time in a range, both ends included, from the second of the first until the second
// that begins after the last. It is empty without bounds.
func between(name string, from, until time.Time) string {
	if from.IsZero() && until.IsZero() {
		return ""
	}
	write := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(queryTime)
	}
	if end := until.Truncate(grain); end.Before(until) {
		until = end.Add(grain)
	}
	return "," + name + "=[" + write(from) + "~" + write(until) + "]"
}

func listedRows(artifacts []*models.Artifact) ([]artifact.Listed, error) {
	if err := complete(artifacts); err != nil {
		return nil, err
	}
	listed := make([]artifact.Listed, 0, len(artifacts))
	for _, a := range artifacts {
		l, err := toListed(a)
		if err != nil {
			return nil, err
		}
		listed = append(listed, l)
	}
	return listed, nil
}

func toListed(a *models.Artifact) (artifact.Listed, error) {
	ref, err := artifact.NewRef(a.RepositoryName, a.Digest)
	if err != nil {
		return artifact.Listed{}, fault.New(fault.Transient, fault.BadAnswer, err)
	}
	l := artifact.Listed{Ref: ref, PushedAt: timeOf(a.PushTime)}
	for _, tag := range a.Tags {
		if tag != nil {
			l.Tags = append(l.Tags, tag.Name)
		}
	}
	for _, accessory := range a.Accessories {
		if accessory != nil && strings.HasPrefix(accessory.Type, "signature.") {
			l.Signatures = append(l.Signatures, accessory.Digest)
		}
	}
	for _, child := range a.References {
		if child != nil {
			l.Children = append(l.Children, child.ChildDigest)
		}
	}
	return l, nil
}
