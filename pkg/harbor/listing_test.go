package harbor_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// row is an artifact in a listing.
type row struct {
	id         int
	repository string // with its project
	digest     string
	pushed     time.Time
}

// repositoryRow is a repository in a listing.
type repositoryRow struct {
	id               int
	name             string
	created, updated time.Time
}

// listing is the part of Harbor that lists what a project has: in the order of its database, bounded by whole seconds, page by
// page. It is used by one client at a time.
type listing struct {
	t            *testing.T
	rows         []row
	repositories []repositoryRow
	old          bool   // before 2.12
	noTotal      bool   // a proxy drops it
	before       func() // runs before each answer
	requests     []string
	ids          int
}

func (l *listing) push(repository string, at time.Time) {
	l.ids++
	l.rows = append(l.rows, row{
		id: l.ids, repository: repository, digest: fmt.Sprintf("sha256:%064x", l.ids), pushed: at.Truncate(time.Microsecond),
	})
	i := slices.IndexFunc(l.repositories, func(known repositoryRow) bool { return known.name == repository })
	if i < 0 {
		l.repositories = append(l.repositories, repositoryRow{id: len(l.repositories) + 1, name: repository, created: at, updated: at})
		return
	}
	l.repositories[i].updated = at
}

func (l *listing) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.before != nil {
		l.before()
	}
	l.requests = append(l.requests, r.URL.Path)
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/api/v2.0/projects/")
	if !ok {
		l.t.Errorf("%s %s, want a listing of a project", r.Method, r.URL)
	}
	project, path, _ := strings.Cut(path, "/")
	repository, _ := strings.CutSuffix(strings.TrimPrefix(path, "repositories/"), "/artifacts")
	repository, err := url.PathUnescape(strings.ReplaceAll(repository, "%25", "%"))
	if err != nil {
		l.t.Errorf("%s: %v", r.URL, err)
	}
	switch {
	case path == "artifacts" && l.old:
		return canned(func(*http.Request) (int, string, error) { return http.StatusNotFound, "{}", nil }).RoundTrip(r)
	case path == "artifacts":
		return l.answer(r, l.artifacts(r, func(a row) bool { return strings.HasPrefix(a.repository, project+"/") }))
	case path == "repositories":
		return l.answer(r, l.changed(r))
	default:
		return l.answer(r, l.artifacts(r, func(a row) bool { return a.repository == project+"/"+repository }))
	}
}

func (l *listing) artifacts(r *http.Request, of func(row) bool) []any {
	q := l.query(r)
	if q["base"] != "*" {
		l.t.Errorf("query %v, want every digest", q)
	}
	var rows []row
	for _, a := range l.rows {
		if of(a) && l.within(q["push_time"], a.pushed) {
			rows = append(rows, a)
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		if r.URL.Query().Get("sort") == "push_time" {
			return cmp.Or(a.pushed.Compare(b.pushed), cmp.Compare(b.id, a.id)) // the database has no order for a tie
		}
		return cmp.Compare(a.id, b.id)
	})
	views := make([]any, 0, len(rows))
	for _, a := range rows {
		views = append(views, map[string]any{
			"id": a.id, "repository_name": a.repository, "digest": a.digest, "push_time": a.pushed.Format("2006-01-02T15:04:05.000Z"),
		})
	}
	return views
}

func (l *listing) changed(r *http.Request) []any {
	q := l.query(r)
	var rows []repositoryRow
	for _, repository := range l.repositories {
		if l.within(q["update_time"], repository.updated) {
			rows = append(rows, repository)
		}
	}
	slices.SortFunc(rows, func(a, b repositoryRow) int {
		if strings.HasPrefix(r.URL.Query().Get("sort"), "update_time") {
			return cmp.Or(a.updated.Compare(b.updated), cmp.Compare(a.name, b.name))
		}
		return cmp.Compare(a.id, b.id)
	})
	views := make([]any, 0, len(rows))
	for _, repository := range rows {
		views = append(views, map[string]any{
			"id": repository.id, "name": repository.name, "update_time": repository.updated.Format("2006-01-02T15:04:05.000Z"),
		})
	}
	return views
}

// query reads q as Harbor does, which decodes it once more than HTTP.
func (l *listing) query(r *http.Request) map[string]string {
	read := make(map[string]string)
	q, err := url.QueryUnescape(r.URL.Query().Get("q"))
	if err != nil {
		l.t.Errorf("query of %s: %v", r.URL, err)
	}
	for term := range strings.SplitSeq(q, ",") {
		name, value, _ := strings.Cut(term, "=")
		read[name] = value
	}
	return read
}

// within reads a range as Harbor does: the fractions of its ends are cut off.
func (l *listing) within(bounds string, at time.Time) bool {
	if bounds == "" {
		return true
	}
	from, until, ok := strings.Cut(strings.Trim(bounds, "[]"), "~")
	if !ok {
		l.t.Errorf("range %q, want one", bounds)
	}
	end := func(text string) time.Time {
		parsed, err := time.Parse(time.DateTime, text[:min(len(text), len(time.DateTime))])
		if err != nil {
			l.t.Errorf("range %q: %v", bounds, err)
		}
		return parsed
	}
	return (from == "" || !at.Before(end(from))) && (until == "" || !at.After(end(until)))
}

func (l *listing) answer(r *http.Request, rows []any) (*http.Response, error) {
	number := func(name string) int {
		n, err := strconv.Atoi(r.URL.Query().Get(name))
		if err != nil || n < 1 {
			l.t.Errorf("%s: %s, want a number", r.URL, name)
		}
		return n
	}
	page, size := number("page"), number("page_size")
	from := min((page-1)*size, len(rows))
	body, err := json.Marshal(rows[from:min(from+size, len(rows))])
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := canned(func(*http.Request) (int, string, error) { return http.StatusOK, string(body), nil }).RoundTrip(r)
	if err == nil && !l.noTotal {
		resp.Header.Set("X-Total-Count", strconv.Itoa(len(rows)))
	}
	return resp, err
}

// refs are the rows in the words of the client.
func refs(t *testing.T, rows []row) []artifact.Ref {
	t.Helper()
	out := make([]artifact.Ref, 0, len(rows))
	for _, r := range rows {
		ref, err := artifact.NewRef(r.repository, r.digest)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ref)
	}
	return out
}
