package harbortest

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

func (r *repository) view() any {
	listed := r.synthetic.listed()
	for _, a := range r.artifacts {
		if a.listed() {
			listed++
		}
	}
	return map[string]any{
		"artifact_count": listed, "creation_time": timestamp(r.created), "id": r.id, "name": r.name,
		"project_id": r.project.id, "pull_count": r.pulls, "update_time": timestamp(r.updated),
	}
}

// pathRepository is the full name of the repository in the path, whose slashes are encoded twice: the proxy in front
// of Harbor, and then Harbor, decode once each. (The router has decoded once; once encoded works too.)
func (c *call) pathRepository(p *project) string {
	name := c.r.PathValue("repository")
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	return p.name + "/" + name
}

// requireRepository finds the project and the repository of the path.
func (c *call) requireRepository(resource, action string) (*repository, error) {
	p, err := c.requireProject(resource, action)
	if err != nil {
		return nil, err
	}
	name := c.pathRepository(p)
	r := c.h.state.repos[name]
	if r == nil {
		return nil, errNotFound("repository %s not found", name)
	}
	return r, nil
}

func (c *call) listRepositories() error {
	p, err := c.requireProject("repository", "list")
	if err != nil {
		return err
	}
	return c.answerRepositories(newestFirst(p.repos))
}

func (c *call) listAllRepositories() error {
	var out []*repository
	for _, p := range c.h.state.projects {
		if p.public() || c.who.covers(p) {
			out = append(out, p.repos...)
		}
	}
	slices.SortFunc(out, func(a, b *repository) int { return int(b.id - a.id) })
	return c.answerRepositories(out)
}

func (c *call) answerRepositories(repos []*repository) error {
	params := c.r.URL.Query()
	q, err := parseQuery(params.Get("q"))
	if err != nil {
		return err
	}
	repos = slices.DeleteFunc(repos, func(r *repository) bool { return !q.matches("name", r.name) })
	for name, at := range map[string]func(*repository) time.Time{
		"update_time":   func(r *repository) time.Time { return r.updated },
		"creation_time": func(r *repository) time.Time { return r.created },
	} {
		if repos, err = filterTime(repos, q, name, at); err != nil {
			return err
		}
	}
	sortBy(repos, params.Get("sort"), map[string]func(a, b *repository) int{
		"update_time":   byTime(func(r *repository) time.Time { return r.updated }),
		"creation_time": byTime(func(r *repository) time.Time { return r.created }),
		"name":          byOrdered(func(r *repository) string { return r.name }),
	})
	return paged(c, repos, func(r *repository) any { return r.view() })
}

func (c *call) getRepository() error {
	r, err := c.requireRepository("repository", "read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, r.view())
}

func (c *call) deleteRepository() error {
	r, err := c.requireRepository("repository", "delete")
	if err != nil {
		return err
	}
	for _, a := range r.artifacts {
		if err := a.refuseImmutableDelete(); err != nil {
			return err
		}
	}
	p := r.project
	for _, a := range r.artifacts {
		p.quota.releaseArtifact(a)
	}
	r.synthetic.drop()
	p.artifacts = slices.DeleteFunc(p.artifacts, func(a *artifact) bool { return a.repo == r })
	p.repos = slices.DeleteFunc(p.repos, func(other *repository) bool { return other == r })
	delete(c.h.state.repos, r.name)
	delete(c.h.state.blobLinks, r.name)
	c.audit("delete", "repository", r.name, "delete repository: "+r.name, p)
	return c.ok()
}
