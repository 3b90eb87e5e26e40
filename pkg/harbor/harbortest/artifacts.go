package harbortest

import (
	"net/http"
	"slices"
	"strings"
)

// requireArtifact finds the artifact of the path, by tag or digest.
func (c *call) requireArtifact(resource, action string) (*artifact, error) {
	p, err := c.requireProject(resource, action)
	if err != nil {
		return nil, err
	}
	return c.h.state.lookup(c.pathRepository(p), c.r.PathValue("reference"))
}

// requireOwnArtifact is requireArtifact for what will change the artifact.
func (c *call) requireOwnArtifact(resource, action string) (*artifact, error) {
	a, err := c.requireArtifact(resource, action)
	if err != nil || !a.isSynthetic() {
		return a, err
	}
	a.repo.own(a.digest.String())
	return c.h.state.lookup(a.repo.name, a.digest.String())
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
	return paged(c, a.repo.accessoriesOf(a.digest), func(acc *artifact) any { return accessoryView(a, acc) })
}

func (c *call) deleteArtifact() error {
	a, err := c.requireOwnArtifact("artifact", "delete")
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
