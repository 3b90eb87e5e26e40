package harbor

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"github.com/harborseal/harborseal/pkg/redact"
)

const (
	// maxPattern bounds a pattern, in bytes: a rule with a longer one is passed over.
	maxPattern = 1024
	// maxEffort bounds what the patterns of all rules of a project may cost for one tag. It is some tenths of a second, and
	// enough for four stars against the tag of a signature.
	maxEffort = 5e7
)

// lock is an immutability rule. It is never changed.
type lock struct {
	tags, repositories selector
	text               string // for people
}

// selector picks tags or repositories by a pattern.
type selector struct {
	pattern  string
	excludes bool
}

// newLock reads a rule. It is none if the rule is disabled or can never lock anything.
//
// SPEC: Harbor, src/pkg/immutable/match/rule: of several selectors only the first counts, and a rule without one locks
// nothing.
func newLock(rule *models.ImmutableRule, redactor *redact.Redactor) (l lock, ok bool) {
	scopes := rule.ScopeSelectors["repository"]
	if rule.Disabled || len(scopes) == 0 || len(rule.TagSelectors) == 0 || rule.TagSelectors[0] == nil {
		return lock{}, false
	}
	tags, ok := newSelector(*rule.TagSelectors[0])
	if !ok {
		return lock{}, false
	}
	repositories, ok := newSelector(scopes[0])
	if !ok {
		return lock{}, false
	}
	text := fmt.Sprintf("rule %d: tags %s in repositories %s", rule.ID, tags, repositories)
	return lock{tags: tags, repositories: repositories, text: redactor.Text(text, maxText)}, true
}

// newSelector reads a selector.
//
// SPEC: Harbor, src/lib/selector/selectors/doublestar: the decorations.
func newSelector(s models.ImmutableSelector) (selector, bool) {
	read := selector{pattern: s.Pattern}
	switch s.Decoration {
	case "matches", "repoMatches":
	case "excludes", "repoExcludes":
		read.excludes = true
	default:
		return selector{}, false
	}
	return read, len(s.Pattern) <= maxPattern
}

// String is for people.
func (s selector) String() string {
	pattern := s.pattern
	if pattern == "" {
		pattern = `""`
	}
	if s.excludes {
		return "not matching " + pattern
	}
	return "matching " + pattern
}

// selects matches a name with the library of Harbor, in which * ends at a slash and ** does not. What cannot be matched
// selects nothing, whether it excludes or not.
//
// SPEC: Harbor, src/lib/selector/selectors/doublestar: an empty pattern matches everything.
func (s selector) selects(name string, left *effort) bool {
	if s.pattern == "" {
		return !s.excludes
	}
	if !left.spend(s.pattern, name) {
		return false
	}
	matched, err := doublestar.Match(s.pattern, name)
	return err == nil && matched != s.excludes
}

// effort is how many bytes of patterns may still be looked at. The library tries all ways to spread a name over the stars
// of a pattern, and it cannot be stopped: whoever may make rules could keep it busy for years.
type effort float64

// spend takes off what a match costs at most, or gives false and takes nothing if that is more than what is left.
func (left *effort) spend(pattern, name string) bool {
	cost := effort(ways(pattern, name) * float64(len(pattern)))
	if cost > *left {
		return false
	}
	*left -= cost
	return true
}

// ways is an upper bound of the number of ways in which a pattern can be tried on a name: stars in a row multiply, the
// alternatives of {a,b} add up.
func ways(pattern, name string) float64 {
	room := 0
	parts := strings.Split(name, "/")
	for _, part := range parts {
		room = max(room, len(part), len(parts))
	}
	// A class or an escape may hide braces and commas. Each comma is then taken for two ways more in everything.
	plain := !strings.ContainsAny(pattern, `[\`)
	type group struct{ before, others float64 } // what stands before the brace, and the alternatives before this one
	var groups []group
	product, stars := 1.0, 0.0
	closeGroup := func() {
		g := groups[len(groups)-1]
		groups, product, stars = groups[:len(groups)-1], g.before*(g.others+product), 0
	}
	for i := range len(pattern) {
		switch char := pattern[i]; {
		case char == '/':
			stars = 0
		case char == '*' && !opensDoubleStar(pattern, i):
			stars++
			product *= (float64(room) + stars) / stars // all in all: room+stars over stars
		case char == ',' && !plain:
			product *= 2
		case char == '{' && plain:
			groups, product, stars = append(groups, group{before: product}), 1, 0
		case char == ',' && len(groups) > 0:
			groups[len(groups)-1].others += product
			product, stars = 1, 0
		case char == '}' && len(groups) > 0:
			closeGroup()
		}
	}
	for len(groups) > 0 {
		closeGroup()
	}
	return product
}

// opensDoubleStar is for the first star of a ** that stands between slashes: the two are one.
func opensDoubleStar(pattern string, at int) bool {
	before, after := pattern[:at], pattern[at+1:]
	return (before == "" || strings.HasSuffix(before, "/")) && (after == "*" || strings.HasPrefix(after, "*/"))
}
