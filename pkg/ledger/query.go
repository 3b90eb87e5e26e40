package ledger

import (
	"fmt"
	"strings"
	"time"
)

// Limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// minDigestPrefix is the fewest hexadecimal digits by which a digest can be asked for.
const minDigestPrefix = 7

// Query asks for rows. All filters that are set must hold. Rows come in the order of Sort, and at the same time by the first sequence.
//
// What is written while somebody turns pages neither repeats nor hides a row that matches all along and keeps its time: when the
// ledger first heard of a digest and when it was first signed stay what they are, and its push time changes once, when Harbor's own
// feed tells it.
type Query struct {
	// Project is a project's exact name.
	Project string
	// Projects restricts the answer to these projects, such as those that somebody may see; nil means all, and an empty list
	// none.
	Projects []string
	// Repository is a repository's full name ("demo/team/app"), or a glob of such names: see [Glob]. Where Project is set, it may also
	// be the name below that project ("team/app"); a name that begins with the project and a slash is always the full one.
	Repository string
	// Digest is a digest, or the beginning of one with at least 7 hexadecimal digits; "sha256:" may be left out.
	Digest string
	// Tag is a tag that was seen on the digest, be it on another one by now.
	Tag   string
	State State
	// Key is a key id: one of the signatures that the row shows is of this key, whether it counts or not.
	Key string
	// Format is legacy or bundle (one of the signatures has this format), or [Both].
	Format string
	// Pusher is who pushed, as the row shows it, and PusherSource whose word that is.
	Pusher       string
	PusherSource PusherSource
	// SignedOnlyBy is a key id: the digests that are signed, and by no other key than this one.
	SignedOnlyBy string
	// LogOwed leaves the digests for which an entry of a transparency log is owed.
	LogOwed bool
	// Since and Until bound FirstSeenAt, the time at which the ledger first heard of the digest: Since <= t < Until. That
	// is the receipt of its first webhook or, where that was lost, the first thing that a signer recorded of it. They
	// count in microseconds; the zero time is no bound.
	Since, Until time.Time
	// PushedSince and PushedUntil bound PushedAt, or FirstSeenAt where nobody told when it was pushed.
	PushedSince, PushedUntil time.Time
	// SignedSince and SignedUntil bound SignedAt, and leave out what was never signed.
	SignedSince, SignedUntil time.Time
	// Sort is one of [Sorts]. Empty means the newest first, by the time that is bounded, or else by FirstSeenAt. Where times are bounded,
	// it must be by one of those. "signed" leaves out what was never signed, and so cannot be asked for with a state that has no signature.
	Sort string
	// Limit is the most rows of a page; 0 means [DefaultLimit].
	Limit int
	// Cursor is the NextCursor of the page before, of a query with the same filters and sort; empty for the first page.
	Cursor string
	// Total asks how many rows there are on all pages.
	Total bool
}

// Page is one page of an answer.
type Page struct {
	// Items are never nil.
	Items []Row
	// NextCursor asks for the next page; empty if this is the last one.
	NextCursor string
	// Total is nil unless it was asked for.
	Total *Total
}

// MaxTotal is how far rows are counted one by one.
const MaxTotal = 10_000

// Total is how many rows match.
type Total struct {
	Value int64 `json:"value"`
	// Relation is "eq" if that is the number, and "gte" if there may be more.
	Relation string `json:"relation"`
}

// The relations of a [Total].
const (
	Exactly = "eq"
	AtLeast = "gte"
)

// InvalidQueryError says which part of a query is wrong and what is allowed.
type InvalidQueryError struct {
	// Field is the part's name, such as "digest".
	Field string
	// Want says what is allowed.
	Want string
}

// Error implements error.
func (e *InvalidQueryError) Error() string { return e.Field + ": " + e.Want }

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

// wantKey says what the id of a key is.
const wantKey = "want the id of a key, as the rows show it in key_id"

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

func join[T ~string](names []T) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(name))
	}
	return b.String()
}
