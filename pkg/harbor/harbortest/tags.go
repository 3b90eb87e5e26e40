package harbortest

import (
	"slices"
	"strings"
	"unicode"
)

func (c *call) listTags() error {
	a, err := c.requireArtifact("tag", "list")
	if err != nil {
		return err
	}
	s := c.shows()
	return paged(c, newestFirst(a.tags), func(t *tag) any { return t.view(s) })
}

// createTag sets a tag through the API; no webhook fires for that.
func (c *call) createTag() error {
	var req struct{ Name string }
	if err := c.decode("tag", &req); err != nil {
		return err
	}
	a, err := c.requireOwnArtifact("tag", "create")
	if err != nil {
		return err
	}
	if !validTag(req.Name) {
		return errBadRequest("invalid tag name: %s", req.Name)
	}
	if existing := a.repo.tags[req.Name]; existing != nil {
		return errConflict("tag %s already exists", req.Name)
	}
	c.h.state.attachTag(a, req.Name)
	name := a.repo.name + ":" + req.Name
	c.audit("create", "tag", name, "create tag: "+name, a.repo.project)
	return c.created(c.r.URL.EscapedPath() + "/" + req.Name)
}

func (c *call) deleteTag() error {
	a, err := c.requireOwnArtifact("tag", "delete")
	if err != nil {
		return err
	}
	name := c.r.PathValue("tag")
	t := a.repo.tags[name]
	if t == nil || t.artifact != a {
		return errNotFound("tag %s attached to artifact %d not found", name, a.id)
	}
	if err := t.refuseDelete(); err != nil {
		return err
	}
	delete(a.repo.tags, name)
	a.tags = slices.DeleteFunc(a.tags, func(other *tag) bool { return other == t })
	c.audit("delete", "tag", a.repo.name+":"+name, "delete tag: "+a.repo.name+":"+name, a.repo.project)
	return c.ok()
}

// attachTag points a tag at an artifact, and away from the one that it was on. A tag that is there already keeps its
// id and its times.
func (s *state) attachTag(a *artifact, name string) {
	now := storedNow()
	t := a.repo.tags[name]
	switch {
	case t == nil:
		t = &tag{id: s.next("tag"), name: name, artifact: a, pushed: now}
		a.repo.tags[name] = t
	case t.artifact == a:
		return
	default:
		t.artifact.tags = slices.DeleteFunc(t.artifact.tags, func(other *tag) bool { return other == t })
		t.artifact, t.pushed = a, now
	}
	a.tags = append(a.tags, t)
	slices.SortFunc(a.tags, byOrdered(func(t *tag) int64 { return t.id }))
}

// validTag tells whether a reference can be a tag.
//
// SPEC: OCI distribution, tags: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(name string) bool {
	if name == "" || len(name) > 128 || strings.ContainsAny(name[:1], ".-") {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return !strings.ContainsRune("._-", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r) || r > unicode.MaxASCII
	}) < 0
}
