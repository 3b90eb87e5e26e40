package harbor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// longAgo is when the first artifact of these tests was pushed.
func longAgo() time.Time { return time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC) }

// TestFewestRequests counts what a whole listing costs.
func TestFewestRequests(t *testing.T) {
	t.Parallel()
	const second, millisecond = time.Second, time.Millisecond
	for _, tt := range []struct {
		name     string
		rows     int
		apart    time.Duration
		noTotal  bool
		requests int
	}{
		{"nothing", 0, second, false, 1},
		{"a part of a page", 99, second, false, 1},
		{"a whole page", 100, second, false, 1},
		{"a whole page, and a proxy drops the total", 100, second, true, 2},
		{"three pages", 250, second, false, 3},
		{"three pages, and a proxy drops the total", 250, second, true, 3},
		{"a hundred pages", 9901, second, false, 100},
		{"4 in each second", 1000, 250 * millisecond, false, 11},
		{"a second for all", 1000, 0, false, 13},
		{"a second for all, and a proxy drops the total", 1000, 0, true, 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &listing{t: t, noTotal: tt.noTotal}
			for i := range tt.rows {
				l.push("2024/team/app", longAgo().Add(time.Duration(i)*tt.apart))
			}
			c := cannedClient(t, nil, through(l))
			got, _ := population(t, c, "2024", artifact.Cursor{})
			wantOnce(t, got, refs(t, l.rows))
			if len(l.requests) != tt.requests {
				t.Errorf("%d requests, want %d", len(l.requests), tt.requests)
			}
		})
	}
}

// through lets a client ask a listing.
func through(l http.RoundTripper) func(*harbor.Config) {
	return func(cfg *harbor.Config) { cfg.Transport = l }
}

// population lists a project, and gives its cursors too.
func population(t interface {
	Helper()
	Fatal(args ...any)
	Context() context.Context
	Errorf(format string, args ...any)
}, c *harbor.Client, project string, from artifact.Cursor,
) (got []artifact.Ref, next []artifact.Cursor) {
	t.Helper()
	err := c.Population(t.Context(), project, from, func(_ context.Context, page artifact.Page) error {
		if len(page.Manifests) == 0 {
			t.Errorf("an empty page")
		}
		for _, l := range page.Manifests {
			got = append(got, l.Ref)
		}
		next = append(next, page.Next)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, next
}

// wantOnce wants each of some references exactly once; others may be there, once too.
func wantOnce(t interface {
	Helper()
	Errorf(format string, args ...any)
}, got, want []artifact.Ref,
) {
	t.Helper()
	times := make(map[artifact.Ref]int, len(got))
	for _, ref := range got {
		times[ref]++
		if times[ref] > 1 {
			t.Errorf("%s comes %d times, want once", ref, times[ref])
		}
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(ref artifact.Ref) bool { return times[ref] > 0 })
	if len(missing) > 0 {
		t.Errorf("%d of %d are missing, such as %s", len(missing), len(want), missing[0])
	}
}

// TestPopulationOfAMovingProject lists a project while others push and delete before each answer, by both ways, with times that
// fall together, and resumes from one of the cursors.
func TestPopulationOfAMovingProject(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := &listing{t: t, old: rapid.Bool().Draw(rt, "old"), noTotal: rapid.Bool().Draw(rt, "no total")}
		size := rapid.Int64Range(1, 7).Draw(rt, "page size")
		apart := rapid.SampledFrom([]time.Duration{0, 100 * time.Microsecond, 90 * time.Millisecond, 700 * time.Millisecond, time.Hour})
		at := longAgo().Add(time.Duration(rapid.IntRange(0, 999_999).Draw(rt, "start")) * time.Microsecond)
		pushOne := func() {
			at = at.Add(apart.Draw(rt, "apart"))
			l.push("2024/"+rapid.SampledFrom([]string{"app", "team/app", "a.b-c_d"}).Draw(rt, "repository"), at)
		}
		for range rapid.IntRange(0, 40).Draw(rt, "rows") {
			pushOne()
		}
		stay := slices.Clone(l.rows)
		l.before = func() {
			if rapid.Bool().Draw(rt, "pushes") {
				pushOne()
			}
			for range rapid.IntRange(0, 3).Draw(rt, "deletions") {
				if len(l.rows) == 0 {
					return
				}
				i := rapid.IntRange(0, len(l.rows)-1).Draw(rt, "which")
				gone := l.rows[i]
				l.rows = slices.Delete(l.rows, i, i+1)
				stay = slices.DeleteFunc(stay, func(r row) bool { return r.id == gone.id })
			}
		}
		c := cannedClient(t, nil, through(l), func(cfg *harbor.Config) { cfg.PageSize = size })
		got, next := population(rt, c, "2024", artifact.Cursor{})
		wantOnce(rt, got, refs(t, stay))
		if len(next) == 0 || rt.Failed() {
			return
		}
		// Somebody stops behind a page, and goes on later.
		stopAfter := rapid.IntRange(1, len(next)).Draw(rt, "stop after")
		stop, pages := errors.New("stop"), 0
		var first []artifact.Ref
		var cursor artifact.Cursor
		err := c.Population(rt.Context(), "2024", artifact.Cursor{}, func(_ context.Context, page artifact.Page) error {
			for _, m := range page.Manifests {
				first = append(first, m.Ref)
			}
			cursor = overJSON(t, page.Next)
			if pages++; pages == stopAfter {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			rt.Fatal(err)
		}
		rest, _ := population(rt, c, "2024", cursor)
		wantOnce(rt, append(first, rest...), refs(t, stay))
	})
}

// overJSON stores a cursor, and reads it again.
func overJSON(t *testing.T, c artifact.Cursor) (read artifact.Cursor) {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

func TestPopulationFrom(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		l := &listing{t: t, old: old}
		for i := range 40 {
			l.push("2024/team/app", longAgo().Add(time.Duration(i)*100*time.Millisecond))
		}
		c := cannedClient(t, nil, through(l), func(cfg *harbor.Config) { cfg.PageSize = 3 })
		got, _ := population(t, c, "2024", artifact.Cursor{PushedAt: l.rows[17].pushed})
		wantOnce(t, got, refs(t, l.rows[17:]))
		if len(got) != 23 {
			t.Errorf("old %t: from the 18th on: %d, want 23: that one and all behind it", old, len(got))
		}
		var since []artifact.Ref
		err := c.PushedSince(t.Context(), "2024", l.rows[17].pushed, func(_ context.Context, page []artifact.Listed) error {
			for _, m := range page {
				since = append(since, m.Ref)
			}
			return nil
		})
		if err != nil || !slices.Equal(since, got) {
			t.Errorf("old %t: PushedSince gives %d, %v; want the same %d", old, len(since), err, len(got))
		}
	}
}

// TestPushedSinceOfAnOldHarbor has repositories that change while they are listed.
func TestPushedSinceOfAnOldHarbor(t *testing.T) {
	t.Parallel()
	l := &listing{t: t, old: true}
	for i := range 10 {
		l.push(fmt.Sprintf("demo/r%d", i), longAgo().Add(time.Duration(i)*time.Second))
	}
	since := longAgo().Add(4 * time.Second)
	answers := 0
	l.before = func() {
		if answers++; answers < 20 {
			l.repositories[9-answers%10].updated = longAgo().Add(time.Duration(10+answers) * time.Second) // somebody pulls
		}
	}
	c := cannedClient(t, nil, through(l), func(cfg *harbor.Config) { cfg.PageSize = 2 })
	var got []artifact.Ref
	err := c.PushedSince(t.Context(), "demo", since, func(_ context.Context, page []artifact.Listed) error {
		for _, m := range page {
			got = append(got, m.Ref)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOnce(t, got, refs(t, l.rows[4:]))
	if len(got) != 6 {
		t.Errorf("%d artifacts, want the 6 that were pushed since", len(got))
	}
	before := len(l.requests)
	if err := c.PushedSince(t.Context(), "demo", longAgo().Add(time.Hour), func(context.Context, []artifact.Listed) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := len(l.requests) - before; n != 1 {
		t.Errorf("%d requests when nothing changed, want 1: that Harbor is old is remembered", n)
	}
}

// TestAnUnsortedListing meets something that does not do what it was asked for.
func TestAnUnsortedListing(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	c := cannedClient(t, func(*http.Request) (int, string, error) {
		return http.StatusOK, fmt.Sprintf(`[{"repository_name":"demo/app","digest":%q,"push_time":"2026-11-22T05:00:01.000Z"},
			{"repository_name":"demo/app","digest":%q,"push_time":"2026-11-22T05:00:00.000Z"}]`, digest, digest), nil
	})
	err := c.Population(t.Context(), "demo", artifact.Cursor{}, nowhere)
	if !fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.BadAnswer {
		t.Errorf("Population() = %v, want a bad answer", err)
	}
}

// TestPopulationOfTheEmulator pushes and deletes between the pages, in Harbors of all kinds.
func TestPopulationOfTheEmulator(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v2.10.3", "v2.12.0", "v2.15.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := harbortest.New(t, harbortest.Config{Version: version})
			const project = "a.b-1"
			post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
			var stay []artifact.Ref
			var doomed []string
			for i := range 24 {
				image := randomImage(t)
				name := []string{"app", "team/app", "x"}[i%3]
				push(t, h, fmt.Sprintf("%s/%s:v%d", project, name, i), image)
				if i%4 == 0 {
					doomed = append(doomed, fmt.Sprintf("%s/artifacts/%s", strings.ReplaceAll(name, "/", "%252F"), digestOf(t, image)))
					continue
				}
				ref, err := artifact.NewRef(project+"/"+name, digestOf(t, image))
				if err != nil {
					t.Fatal(err)
				}
				stay = append(stay, ref)
			}
			c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) {
				cfg.PageSize, cfg.Transport = 3, meanwhile{cfg.Transport, func() {
					if len(doomed) == 0 {
						return
					}
					admin(t, http.MethodDelete, h.URL()+"/api/v2.0/projects/"+project+"/repositories/"+doomed[0], nil)
					doomed = doomed[1:]
					push(t, h, project+"/team/app:new", randomImage(t))
				}}
			})
			got, _ := population(t, c, project, artifact.Cursor{})
			wantOnce(t, got, stay)
			if len(doomed) != 0 {
				t.Errorf("%d deletions are left: too few pages", len(doomed))
			}
		})
	}
}

// meanwhile does something before each request.
type meanwhile struct {
	next http.RoundTripper
	do   func()
}

func (m meanwhile) RoundTrip(r *http.Request) (*http.Response, error) {
	m.do()
	return m.next.RoundTrip(r)
}

func TestArtifact(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	const project = "2024"
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	image := randomImage(t)
	push(t, h, project+"/team/app:v1", image)
	push(t, h, project+"/team/app:v2", image)
	c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	ref, err := artifact.NewRef(project+"/team/app", digestOf(t, image))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Artifact(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Tags)
	if got.Ref != ref || !slices.Equal(got.Tags, []string{"v1", "v2"}) || time.Since(got.PushedAt).Abs() > time.Minute {
		t.Errorf("Artifact() = %+v, want %s with its tags and its push time", got, ref)
	}
	other, err := ref.Sibling("sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Artifact(t.Context(), other); !fault.Is(err, fault.Gone) {
		t.Errorf("another one: %v, want a fault of kind gone", err)
	}
}
