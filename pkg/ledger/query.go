package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// minDigestPrefix is the fewest hexadecimal digits by which a digest can be asked for.
const minDigestPrefix = 7

// Query asks for rows. All filters that are set must hold. Rows come newest first, by FirstSeenAt and then by the first
// sequence: what is written while somebody turns pages neither repeats nor hides a row that was there at the first page
// and matches all along.
type Query struct {
	// Project is a project's exact name.
	Project string
	// Projects restricts the answer to these projects, such as those that somebody may see; nil means all, and an empty list
	// none.
	Projects []string
	// Repository is a repository's exact full name ("demo/team/app"). Where Project is set, it may also be the name below
	// that project ("team/app"); a name that begins with the project and a slash is always the full one.
	Repository string
	// Digest is a digest, or the beginning of one with at least 7 hexadecimal digits; "sha256:" may be left out.
	Digest string
	State  State
	// SignedOnlyBy is a key id: the digests that are signed, and by no other key than this one.
	SignedOnlyBy string
	// LogOwed leaves the digests for which an entry of a transparency log is owed.
	LogOwed bool
	// Since and Until bound FirstSeenAt, the time at which the ledger first heard of the digest: Since <= t < Until. That
	// is the receipt of its first webhook or, where that was lost, the first thing that a signer recorded of it. They
	// count in microseconds; the zero time is no bound.
	Since, Until time.Time
	// Limit is the most rows of a page; 0 means [DefaultLimit].
	Limit int
	// Cursor is the NextCursor of the page before, of a query with the same filters; empty for the first page.
	Cursor string
}

// Page is one page of an answer.
type Page struct {
	// Items are never nil.
	Items []Row
	// NextCursor asks for the next page; empty if this is the last one.
	NextCursor string
}

// InvalidQueryError says which part of a query is wrong and what is allowed.
type InvalidQueryError struct {
	// Field is the part's name, such as "digest".
	Field string
	// Want says what is allowed.
	Want string
}

// Error implements error.
func (e *InvalidQueryError) Error() string { return e.Field + ": " + e.Want }

// Filter is a query as stores take it: checked, with everything filled in.
type Filter struct {
	Project string
	// Projects are sorted, each once; nil means all.
	Projects   []string
	Repository string // full name
	// DigestFrom and DigestTo bound the digest: DigestFrom <= digest < DigestTo. A whole digest stands in DigestFrom alone.
	DigestFrom, DigestTo string
	State                State
	SignedOnlyBy         string
	LogOwed              bool
	Since, Until         time.Time
	Limit                int
	// After is the row after which the page begins; its Seq is 0 for the first page.
	After Place
}

// Place is where a row stands in the order of an answer. FirstSeq alone is unique.
type Place struct {
	FirstSeenAt time.Time
	FirstSeq    uint64
}

// Filter checks the query. The error is an [*InvalidQueryError].
func (q Query) Filter() (Filter, error) {
	f := Filter{
		Project: q.Project, State: q.State, SignedOnlyBy: q.SignedOnlyBy, LogOwed: q.LogOwed, Since: instant(q.Since), Until: instant(q.Until),
	}
	if q.Project != "" && artifact.ValidateProject(q.Project) != nil {
		return Filter{}, invalid("project", wantProject)
	}
	if q.Projects != nil {
		if slices.ContainsFunc(q.Projects, func(name string) bool { return artifact.ValidateProject(name) != nil }) {
			return Filter{}, invalid("projects", "want names of Harbor projects, such as demo")
		}
		f.Projects = slices.Compact(slices.Sorted(slices.Values(q.Projects)))
		if f.Projects == nil {
			f.Projects = []string{}
		}
	}
	if q.Repository != "" {
		f.Repository = q.Repository
		if q.Project != "" && !strings.HasPrefix(q.Repository, q.Project+"/") {
			f.Repository = q.Project + "/" + q.Repository
		}
		if artifact.ValidateRepository(f.Repository) != nil {
			return Filter{}, invalid("repository",
				"want the full name of a repository, such as demo/team/app, or with project its name below the project")
		}
	}
	if q.Digest != "" {
		var err error
		if f.DigestFrom, f.DigestTo, err = digestRange(q.Digest); err != nil {
			return Filter{}, err
		}
	}
	if q.State != "" && !slices.Contains(States(), q.State) {
		return Filter{}, invalid("state", fmt.Sprintf("want one of %s", join(States())))
	}
	if clean(q.SignedOnlyBy, maxText) != q.SignedOnlyBy || strings.ContainsFunc(q.SignedOnlyBy, unicode.IsControl) {
		return Filter{}, invalid("signed_only_by", "want the id of a key, as the rows show it in key_id")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return Filter{}, invalid("until", wantLater)
	}
	var err error
	if f.Limit, err = pageLimit(q.Limit); err != nil {
		return Filter{}, err
	}
	if q.Cursor != "" {
		after, err := f.decodeCursor(q.Cursor)
		if err != nil {
			return Filter{}, err
		}
		f.After = after
	}
	return f, nil
}

// digestRange turns a digest, or the beginning of one, into bounds that an index can use.
func digestRange(s string) (from, to string, err error) {
	hex := strings.TrimPrefix(s, "sha256:")
	if len(hex) < minDigestPrefix || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", "", invalid("digest",
			fmt.Sprintf("want sha256: and 64 lower-case hexadecimal digits, or at least the first %d digits", minDigestPrefix))
	}
	from = "sha256:" + hex
	if len(hex) == 64 {
		return from, "", nil
	}
	// g is the character after f, the last one that a digest can have.
	return from, from + "g", nil
}

// wantProject says what a project's name is.
const wantProject = "want the name of a Harbor project, such as demo"

// wantLater says what until is.
const wantLater = "want a time after since"

// pageLimit checks the most items of a page; 0 means the default.
func pageLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return DefaultLimit, nil
	case limit < 0 || limit > MaxLimit:
		return 0, invalid("limit", fmt.Sprintf("want a whole number from 1 to %d", MaxLimit))
	default:
		return limit, nil
	}
}

func invalid(field, want string) error { return &InvalidQueryError{Field: field, Want: want} }

func join(states []State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}
