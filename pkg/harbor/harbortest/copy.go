package harbortest

import (
	"fmt"
	"strings"
)

// copyArtifact copies an artifact from another repository, with its children and its accessories.
func (c *call) copyArtifact() error {
	from := c.r.URL.Query().Get("from")
	if from == "" {
		return errUnprocessable("from in query is required")
	}
	p, err := c.requireProject("artifact", "create")
	if err != nil {
		return err
	}
	source, reference, isDigest := strings.Cut(from, "@")
	if !isDigest {
		source, reference, _ = cutLast(from, ":")
	}
	a, err := c.h.state.lookup(source, reference)
	if err != nil {
		return err
	}
	if !c.who.can(a.repo.project, "repository", "pull") {
		return errForbidden()
	}
	name := c.pathRepository(p)
	to := c.h.state.ensureRepo(p, name)
	tagName := ""
	if !isDigest {
		tagName = reference
	}
	c.copyInto(to, a, tagName)
	return c.created(fmt.Sprintf("%s/%s", c.r.URL.EscapedPath(), a.digest))
}

// copyInto makes a copy, one event for it and one for each accessory.
func (c *call) copyInto(to *repository, a *artifact, tagName string) {
	for _, ch := range a.children {
		c.copyInto(to, ch.artifact, "")
	}
	m, err := parseManifest(a.manifestType, a.content)
	if err != nil {
		return // It was parsed when it was pushed.
	}
	for _, blob := range m.blobs() {
		c.h.state.linkBlob(to.name, blob.Digest)
	}
	c.store(to, m, a.content, a.digest, tagName)
	for _, acc := range a.repo.accessories[a.digest] {
		accTag := ""
		if len(acc.tags) > 0 {
			accTag = acc.tags[0].name
		}
		c.copyInto(to, acc, accTag)
	}
}
