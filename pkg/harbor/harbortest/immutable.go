package harbortest

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar"
)

// Decorations of selectors.
const (
	tagMatches      = "matches"
	tagExcludes     = "excludes"
	repoMatches     = "repoMatches"
	repoExcludes    = "repoExcludes"
	scopeRepository = "repository"
)

// ruleSelector picks tags or repositories by a pattern.
type ruleSelector struct {
	Decoration string `json:"decoration,omitempty"`
	Extras     string `json:"extras,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Pattern    string `json:"pattern,omitempty"`
}

// immutableRule keeps tags from being moved and deleted. Rules are replaced, never changed.
type immutableRule struct {
	Action         string                    `json:"action,omitempty"`
	Disabled       bool                      `json:"disabled,omitempty"`
	ID             int64                     `json:"id,omitempty"`
	Priority       int64                     `json:"priority,omitempty"`
	ScopeSelectors map[string][]ruleSelector `json:"scope_selectors,omitempty"`
	TagSelectors   []ruleSelector            `json:"tag_selectors,omitempty"`
	Template       string                    `json:"template,omitempty"`
}

// covers tells whether the rule keeps a tag of a repository (without its project) where it is.
//
// SPEC: Harbor, src/pkg/immutable/match/rule: of several selectors only the first counts, a rule without one covers
// nothing, and the repository's name is matched without its project.
func (r *immutableRule) covers(repo, tagName string) bool {
	scopes := r.ScopeSelectors[scopeRepository]
	return !r.Disabled && len(scopes) > 0 && len(r.TagSelectors) > 0 && scopes[0].selects(repo) &&
		r.TagSelectors[0].selects(tagName)
}

// selects matches as Harbor does, with the same library, in which * ends at a slash and ** does not. An empty pattern
// matches everything, a pattern that is none nothing.
func (s ruleSelector) selects(name string) bool {
	matched := s.Pattern == ""
	if !matched {
		var err error
		if matched, err = doublestar.Match(s.Pattern, name); err != nil {
			return false
		}
	}
	switch s.Decoration {
	case tagMatches, repoMatches:
		return matched
	case tagExcludes, repoExcludes:
		return !matched
	default:
		return false
	}
}

func (t *tag) immutable() bool {
	repo := t.artifact.repo
	return slices.ContainsFunc(repo.project.rules, func(r *immutableRule) bool { return r.covers(repo.short(), t.name) })
}

// refuseImmutablePush refuses a push to an immutable tag that is there already: the same manifest again, too.
//
// SPEC: Harbor, src/server/middleware/immutable: a rule impacts existing tags alone, whatever they point to; a push by
// digest names no tag.
func (r *repository) refuseImmutablePush(tagName string) error {
	if t := r.tags[tagName]; t != nil && t.immutable() {
		return errPrecondition("Failed to process request due to '%s:%s' configured as immutable.", r.short(), tagName)
	}
	return nil
}

// refuseImmutableDelete refuses to delete what an immutable tag points to: the artifact itself, or what would go with
// it, accessories and children of an index.
func (a *artifact) refuseImmutableDelete() error {
	for _, acc := range a.repo.accessories[a.digest] {
		if err := acc.refuseImmutableDelete(); err != nil {
			return err
		}
	}
	for _, ch := range a.children {
		if len(ch.artifact.parents) > 1 || len(ch.artifact.tags) > 0 {
			continue // It stays.
		}
		if err := ch.artifact.refuseImmutableDelete(); err != nil {
			return err
		}
	}
	for _, t := range a.tags {
		if err := t.refuseDelete(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tag) refuseDelete() error {
	if t.immutable() {
		return errPrecondition("the tag %s configured as immutable, cannot be deleted", t.name)
	}
	return nil
}

// requireRule finds the rule of the path and its place in the project.
func (c *call) requireRule(action string) (*project, int, error) {
	p, err := c.requireProject("immutable-tag", action)
	if err != nil {
		return nil, 0, err
	}
	ref := c.r.PathValue("rule")
	id, err := strconv.ParseInt(ref, 10, 64)
	if err != nil {
		return nil, 0, errUnprocessable(fmt.Sprintf("immutable_rule_id in path must be of type int64: %q", ref))
	}
	at := slices.IndexFunc(p.rules, func(r *immutableRule) bool { return r.ID == id })
	if at >= 0 {
		return p, at, nil
	}
	for _, other := range c.h.state.projects {
		if slices.ContainsFunc(other.rules, func(r *immutableRule) bool { return r.ID == id }) {
			return nil, 0, errNotFound("project id %d does not match", p.id)
		}
	}
	return nil, 0, errNotFound("immutable rule %d not found", id)
}

func (c *call) listImmutableRules() error {
	p, err := c.requireProject("immutable-tag", "list")
	if err != nil {
		return err
	}
	return paged(c, p.rules, func(r *immutableRule) any { return r })
}

// createImmutableRule takes a rule as it comes: Harbor checks nothing in it but that it is no copy, and a new rule is
// enabled, whatever the request says.
func (c *call) createImmutableRule() error {
	r := new(immutableRule)
	if err := c.decode("ImmutableRule", r); err != nil {
		return err
	}
	p, err := c.requireProject("immutable-tag", "create")
	if err != nil {
		return err
	}
	r.ID, r.Disabled = 0, false
	if slices.ContainsFunc(p.rules, func(other *immutableRule) bool {
		same := *other
		same.ID, same.Disabled = 0, false
		return reflect.DeepEqual(same, *r)
	}) {
		return errConflict("immutable rule already exists")
	}
	r.ID = c.h.state.next("immutable rule")
	p.rules = append(p.rules, r)
	return c.created(strings.TrimSuffix(c.r.URL.EscapedPath(), "/") + "/" + strconv.FormatInt(r.ID, 10))
}

// putImmutableRule switches a rule on or off or replaces the rest of it, never both at once: that is Harbor's way.
func (c *call) putImmutableRule() error {
	r := new(immutableRule)
	if err := c.decode("ImmutableRule", r); err != nil {
		return err
	}
	if c.r.PathValue("rule") != strconv.FormatInt(r.ID, 10) {
		return errBadRequest("the immutable_rule_id doesn't match the id in the payload body of ImmutableRule")
	}
	p, at, err := c.requireRule("update")
	if err != nil {
		return err
	}
	if old := *p.rules[at]; old.Disabled != r.Disabled {
		old.Disabled = r.Disabled
		r = &old
	}
	p.rules[at] = r
	return c.ok()
}

func (c *call) deleteImmutableRule() error {
	p, at, err := c.requireRule("delete")
	if err != nil {
		return err
	}
	p.rules = slices.Delete(p.rules, at, at+1)
	return c.ok()
}
