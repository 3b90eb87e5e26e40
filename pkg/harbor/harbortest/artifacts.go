package harbortest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// listArtifacts answers the artifacts of a repository; one that does not exist has none.
func (c *call) listArtifacts() error {
	p, err := c.requireProject("artifact", "list")
	if err != nil {
		return err
	}
	name := c.pathRepository(p)
	return c.answerArtifacts(p, func(a *artifact) bool { return a.repo.name == name })
}

// listProjectArtifacts answers the artifacts of all repositories of a project.
func (c *call) listProjectArtifacts() error {
	p, err := c.requireProject("artifact", "list")
	if err != nil {
		return err
	}
	return c.answerArtifacts(p, func(*artifact) bool { return true })
}

func (c *call) answerArtifacts(p *project, of func(*artifact) bool) error {
	params := c.r.URL.Query()
	q, err := parseQuery(params.Get("q"))
	if err != nil {
		return err
	}
	out := make([]*artifact, 0, len(p.artifacts))
	for _, a := range slices.Backward(p.artifacts) {
		if of(a) && a.selected(q) {
			out = append(out, a)
		}
	}
	for name, at := range map[string]func(*artifact) time.Time{
		"push_time": func(a *artifact) time.Time { return a.pushed },
		"pull_time": func(a *artifact) time.Time { return a.pulled },
	} {
		if out, err = filterTime(out, q, name, at); err != nil {
			return err
		}
	}
	sortBy(out, params.Get("sort"), map[string]func(a, b *artifact) int{
		"push_time": byTime(func(a *artifact) time.Time { return a.pushed }),
		"pull_time": byTime(func(a *artifact) time.Time { return a.pulled }),
		"id":        byOrdered(func(a *artifact) int64 { return a.id }),
		"size":      byOrdered(func(a *artifact) int64 { return a.size }),
	})
	s := c.shows()
	return paged(c, out, func(a *artifact) any { return a.view(s) })
}

// selected tells whether a listing with this query shows the artifact: by default no children of an index, with
// base=* every digest; accessories never.
func (a *artifact) selected(q query) bool {
	if a.accessory != nil {
		return false
	}
	if q["base"] != "*" && !a.listed() {
		return false
	}
	if want, ok := q["tags"]; ok {
		switch want {
		case "nil":
			if len(a.tags) > 0 {
				return false
			}
		case "*":
			if len(a.tags) == 0 {
				return false
			}
		default:
			if !slices.ContainsFunc(a.tags, func(t *tag) bool { return q.matches("tags", t.name) }) {
				return false
			}
		}
	}
	return q.matches("digest", a.digest.String()) && q.matches("type", a.kind) && q.matches("media_type", a.mediaType)
}

// requireArtifact finds the artifact of the path, by tag or digest.
func (c *call) requireArtifact(resource, action string) (*artifact, error) {
	p, err := c.requireProject(resource, action)
	if err != nil {
		return nil, err
	}
	return c.h.state.lookup(c.pathRepository(p), c.r.PathValue("reference"))
}

// lookup finds an artifact, in Harbor's words when there is none.
func (s *state) lookup(repoName, reference string) (*artifact, error) {
	byDigest := strings.Contains(reference, ":")
	r := s.repos[repoName]
	if r == nil && !byDigest {
		return nil, errNotFound("repository %s not found", repoName)
	}
	if r != nil {
		if a := r.resolve(reference); a != nil {
			return a, nil
		}
	}
	if byDigest {
		return nil, errNotFound("artifact %s@%s not found", repoName, reference)
	}
	return nil, errNotFound("artifact %s:%s not found", repoName, reference)
}

func (c *call) getArtifact() error {
	a, err := c.requireArtifact("artifact", "read")
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, a.view(c.shows()))
}

func (c *call) listAccessories() error {
	a, err := c.requireArtifact("accessory", "list")
	if err != nil {
		return err
	}
	return paged(c, a.repo.accessories[a.digest], func(acc *artifact) any { return accessoryView(a, acc) })
}

func (c *call) deleteArtifact() error {
	a, err := c.requireArtifact("artifact", "delete")
	if err != nil {
		return err
	}
	if len(a.parents) > 0 {
		return &apiError{
			status: http.StatusPreconditionFailed, code: "VIOLATE_FOREIGN_KEY_CONSTRAINT",
			message: "the deleting artifact is referenced by others",
		}
	}
	if err := a.refuseImmutableDelete(); err != nil {
		return err
	}
	c.remove(a)
	return c.ok()
}

// remove deletes an artifact, its tags, its accessories, and those children of an index that nothing else holds.
func (c *call) remove(a *artifact) {
	r := a.repo
	for _, t := range a.tags {
		delete(r.tags, t.name)
	}
	a.tags = nil
	delete(r.artifacts, a.digest)
	p := r.project
	p.quota.releaseArtifact(a)
	p.artifacts = slices.DeleteFunc(p.artifacts, func(other *artifact) bool { return other == a })
	for _, acc := range slices.Clone(r.accessories[a.digest]) {
		c.remove(acc)
	}
	if a.accessory != nil {
		left := slices.DeleteFunc(r.accessories[a.accessory.subject], func(other *artifact) bool { return other == a })
		r.accessories[a.accessory.subject] = left
	}
	for _, ch := range a.children {
		delete(ch.artifact.parents, a)
		if len(ch.artifact.parents) == 0 && len(ch.artifact.tags) == 0 {
			c.remove(ch.artifact)
		}
	}
	name := r.name + "@" + a.digest.String()
	c.audit("delete", "artifact", name, "delete artifact: "+name, p)
}
