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
	tagName := ""
	if !isDigest {
		tagName = reference
	}
	if err := c.admitCopy(p, name, a, tagName); err != nil {
		return err
	}
	c.copyInto(c.h.state.ensureRepo(p, name), a, tagName)
	return c.created(fmt.Sprintf("%s/%s", c.r.URL.EscapedPath(), a.digest))
}

// admitCopy refuses a copy that the quota has no room for, or that would move an immutable tag.
func (c *call) admitCopy(p *project, name string, a *artifact, tagName string) error {
	var parts []part
	for _, one := range a.withAll() {
		parts = append(parts, one.parts...)
	}
	if err := c.h.state.admit(p, p.quota.missing(parts)); err != nil {
		return err
	}
	to := c.h.state.repos[name]
	if to == nil {
		return nil
	}
	for _, one := range a.withAll() {
		moved := ""
		switch {
		case one == a:
			moved = tagName
		case one.accessory != nil && len(one.tags) > 0:
			moved = one.tags[0].name
		}
		if t := to.tags[moved]; t != nil && t.artifact.digest != one.digest && t.immutable() {
			return errPrecondition("the tag %s configured as immutable, cannot be updated", moved)
		}
	}
	return nil
}

// withAll lists an artifact, its children, and the accessories of them all.
func (a *artifact) withAll() []*artifact {
	out := []*artifact{a}
	for _, ch := range a.children {
		out = append(out, ch.artifact.withAll()...)
	}
	for _, acc := range a.repo.accessoriesOf(a.digest) {
		out = append(out, acc.withAll()...)
	}
	return out
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
	for _, acc := range a.repo.accessoriesOf(a.digest) {
		accTag := ""
		if len(acc.tags) > 0 {
			accTag = acc.tags[0].name
		}
		c.copyInto(to, acc, accTag)
		// A legacy signature that its tag has left stays an accessory, too.
		if copied := to.artifacts[acc.digest]; copied != nil && copied.accessory == nil {
			c.h.state.makeAccessory(copied, acc.accessory.kind, acc.accessory.subject)
		}
	}
}
