package api

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// signaturesAnswer is the body of GET /api/v1/signatures. Registry is the host that the repositories are pulled from.
// NextCursor is empty on the last page.
type signaturesAnswer struct {
	Registry   string       `json:"registry"`
	Items      []ledger.Row `json:"items"`
	NextCursor string       `json:"next_cursor"`
}

func (a *API) getSignatures(c *gin.Context) {
	q, err := parseQuery(c.Request.URL.RawQuery)
	if err != nil {
		a.refuse(c, err)
		return
	}
	projects, all, err := a.access.Visible(c.Request.Context(), caller(c))
	if err != nil {
		a.refuse(c, err)
		return
	}
	if !all {
		q.Projects = projects
	}
	page, err := a.signatures.Signatures(c.Request.Context(), q)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, signaturesAnswer{Registry: a.registry, Items: page.Items, NextCursor: page.NextCursor})
}

// parseQuery reads the parameters of GET /api/v1/signatures. The error is a [*ledger.InvalidQueryError]. What the values
// mean is checked by the ledger; here each parameter is known, comes once, and has the right type.
func parseQuery(raw string) (ledger.Query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return ledger.Query{}, wrong("query", "cannot be decoded: want name=value pairs joined by &, percent-encoded")
	}
	var q ledger.Query
	for _, name := range slices.Sorted(maps.Keys(values)) {
		set, all := setter(&q, name), values[name]
		switch {
		case set == nil:
			return ledger.Query{}, wrong(fmt.Sprintf("%.64s", name),
				"not a parameter: want project, repository, digest, state, since, until, limit or cursor")
		case len(all) != 1:
			return ledger.Query{}, wrong(name, "given more than once")
		case all[0] == "":
			return ledger.Query{}, wrong(name, "is empty: give a value, or leave it out")
		}
		if err := set(all[0]); err != nil {
			return ledger.Query{}, err
		}
	}
	return q, nil
}

// setter gives what reads a parameter; nil if there is none of that name.
func setter(q *ledger.Query, name string) func(value string) error {
	text := func(field *string) func(string) error {
		return func(value string) error {
			*field = value
			return nil
		}
	}
	instant := func(field *time.Time) func(string) error {
		return func(value string) (err error) {
			*field, err = parseTime(name, value)
			return err
		}
	}
	switch name {
	case "project":
		return text(&q.Project)
	case "repository":
		return text(&q.Repository)
	case "digest":
		return text(&q.Digest)
	case "state":
		return text((*string)(&q.State))
	case "cursor":
		return text(&q.Cursor)
	case "since":
		return instant(&q.Since)
	case "until":
		return instant(&q.Until)
	case "limit":
		return func(value string) error {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > ledger.MaxLimit {
				return wrong(name, fmt.Sprintf("want a whole number from 1 to %d", ledger.MaxLimit))
			}
			q.Limit = n
			return nil
		}
	default:
		return nil
	}
}

// parseTime reads a time of RFC 3339, or a day, which is its first moment in UTC.
func parseTime(name, value string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, value); err == nil && !t.IsZero() {
			return t.UTC(), nil
		}
	}
	want := "want a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31"
	if strings.Contains(value, " ") {
		want += " (in an address, a + is written %2B)"
	}
	return time.Time{}, wrong(name, want)
}

func wrong(field, want string) error { return &ledger.InvalidQueryError{Field: field, Want: want} }
