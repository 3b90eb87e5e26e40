package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Sort is the time by which rows stand in an answer.
type Sort int

// The times.
const (
	ByFirstSeen Sort = iota
	ByPushed
	BySigned
)

// sortNames are the names of the times, by their numbers.
func sortNames() []string { return []string{"first_seen", "pushed", "signed"} }

// Sorts gives all orders of an answer. A leading - has the newest first.
func Sorts() []string {
	var all []string
	for _, name := range sortNames() {
		all = append(all, "-"+name, name)
	}
	return all
}

// Filter is a query as stores take it: checked, with everything filled in.
type Filter struct {
	Project string
	// Projects are sorted, each once; nil means all. Where Project is set, they say whether it may be seen.
	Projects   []string
	Repository string // full name; empty if it is a glob
	// Glob is nil if no glob was asked for. Where its names are all in one project, Project is set.
	Glob *Glob
	// DigestFrom and DigestTo bound the digest: DigestFrom <= digest < DigestTo. A whole digest stands in DigestFrom alone.
	DigestFrom, DigestTo string
	Tag                  string
	State                State
	Key                  string
	Format               string
	Pusher               string
	PusherSource         PusherSource
	SignedOnlyBy         string
	LogOwed              bool
	// Times bound the times of the rows.
	Times [3]Range
	// Sort is the time that orders the rows, the newest first unless Ascending. BySigned leaves out what was never signed.
	Sort      Sort
	Ascending bool
	Limit     int
	// After is the row after which the page begins; its FirstSeq is 0 for the first page.
	After Place
}

// Range bounds a time: Since <= t < Until. The zero time is no bound.
type Range struct{ Since, Until time.Time }

// IsZero says whether nothing is bounded.
func (r Range) IsZero() bool { return r.Since.IsZero() && r.Until.IsZero() }

// Contains says whether a time is within the bounds.
func (r Range) Contains(t time.Time) bool {
	return (r.Since.IsZero() || !t.Before(r.Since)) && (r.Until.IsZero() || t.Before(r.Until))
}

// Place is where a row stands in the order of an answer. FirstSeq alone is unique.
type Place struct {
	// At is the time by which the answer is sorted.
	At       time.Time
	FirstSeq uint64
}

// Filter checks the query. The error is an [*InvalidQueryError].
func (q Query) Filter() (Filter, error) {
	f := Filter{
		Project: q.Project, Tag: q.Tag, State: q.State, Key: q.Key, Format: q.Format, Pusher: q.Pusher, PusherSource: q.PusherSource,
		SignedOnlyBy: q.SignedOnlyBy, LogOwed: q.LogOwed,
		Times: [3]Range{
			ByFirstSeen: {instant(q.Since), instant(q.Until)},
			ByPushed:    {instant(q.PushedSince), instant(q.PushedUntil)},
			BySigned:    {instant(q.SignedSince), instant(q.SignedUntil)},
		},
	}
	for _, check := range []func(*Filter) error{q.scope, q.values, q.order} {
		if err := check(&f); err != nil {
			return Filter{}, err
		}
	}
	var err error
	if f.Limit, err = pageLimit(q.Limit); err != nil {
		return Filter{}, err
	}
	if q.Cursor != "" {
		if f.After, err = f.decodeCursor(q.Cursor); err != nil {
			return Filter{}, err
		}
	}
	return f, nil
}

// scope checks where the rows are.
func (q Query) scope(f *Filter) error {
	if q.Project != "" && artifact.ValidateProject(q.Project) != nil {
		return invalid("project", wantProject)
	}
	if q.Projects != nil {
		if slices.ContainsFunc(q.Projects, func(name string) bool { return artifact.ValidateProject(name) != nil }) {
			return invalid("projects", "want names of Harbor projects, such as demo")
		}
		f.Projects = slices.Compact(slices.Sorted(slices.Values(q.Projects)))
		if f.Projects == nil {
			f.Projects = []string{}
		}
	}
	if q.Repository == "" {
		return nil
	}
	f.Repository = q.Repository
	if q.Project != "" && !strings.HasPrefix(q.Repository, q.Project+"/") {
		f.Repository = q.Project + "/" + q.Repository
	}
	if !IsGlob(f.Repository) {
		if artifact.ValidateRepository(f.Repository) != nil {
			return invalid("repository",
				"want the full name of a repository, such as demo/team/app, or with project its name below the project, or a glob such as demo/team/**")
		}
		return nil
	}
	glob, err := NewGlob(f.Repository)
	if err != nil {
		return err
	}
	f.Repository, f.Glob = "", glob
	if project, _, one := strings.Cut(glob.Prefix(), "/"); one {
		if artifact.ValidateProject(project) != nil {
			return invalid("repository", wantGlob)
		}
		f.Project = project
	}
	return nil
}

// values checks what the rows are to have.
func (q Query) values(f *Filter) error {
	if q.Digest != "" {
		var err error
		if f.DigestFrom, f.DigestTo, err = digestRange(q.Digest); err != nil {
			return err
		}
	}
	if q.State != "" && !slices.Contains(States(), q.State) {
		return invalid("state", "want one of "+join(States()))
	}
	for _, text := range []struct{ field, value, want string }{
		{"tag", q.Tag, "want a tag, exactly as the rows show it"},
		{"key", q.Key, wantKey},
		{"signed_only_by", q.SignedOnlyBy, wantKey},
		{"pusher", q.Pusher, "want who pushed, exactly as the rows show it"},
	} {
		if clean(text.value, maxText) != text.value || strings.ContainsFunc(text.value, unicode.IsControl) {
			return invalid(text.field, text.want)
		}
	}
	if formats := []string{string(artifact.Legacy), string(artifact.Bundle), Both}; q.Format != "" && !slices.Contains(formats, q.Format) {
		return invalid("format", "want one of "+join(formats))
	}
	if q.PusherSource != "" && !slices.Contains(PusherSources(), q.PusherSource) {
		return invalid("pusher_source", "want one of "+join(PusherSources()))
	}
	return nil
}

// order checks the times and what they sort.
func (q Query) order(f *Filter) error {
	var bounded []string
	for sort, r := range f.Times {
		if r.IsZero() {
			continue
		}
		prefix := []string{"", "pushed_", "signed_"}[sort]
		if !r.Since.IsZero() && !r.Until.IsZero() && !r.Since.Before(r.Until) {
			return invalid(prefix+"until", fmt.Sprintf("want a time after %ssince", prefix))
		}
		if len(bounded) == 0 {
			f.Sort = Sort(sort)
		}
		bounded = append(bounded, sortNames()[sort])
	}
	if q.Sort != "" {
		name := strings.TrimPrefix(q.Sort, "-")
		sort := slices.Index(sortNames(), name)
		switch {
		case sort < 0:
			return invalid("sort", "want one of "+join(Sorts()))
		case len(bounded) > 0 && !slices.Contains(bounded, name):
			return invalid("sort", fmt.Sprintf("want a time that is bounded (%s), or leave out its bounds", join(bounded)))
		}
		f.Sort, f.Ascending = Sort(sort), name == q.Sort
	}
	if once := []State{Signed, Unsigned, Gone}; f.Sort == BySigned && f.State != "" && !slices.Contains(once, f.State) {
		return invalid("sort", fmt.Sprintf("cannot be by the time of a signature in state %s: want first_seen or pushed, or one of the states %s", f.State, join(once)))
	}
	return nil
}

// Time gives the time of a record that a sort goes by; false if it has none and is left out.
func (r *Record) Time(sort Sort) (time.Time, bool) {
	switch sort {
	case ByPushed:
		if at := r.Push().At; !at.IsZero() {
			return at, true
		}
		return r.FirstSeenAt, true
	case BySigned:
		return r.SignedAt, !r.SignedAt.IsZero()
	default:
		return r.FirstSeenAt, true
	}
}

// Place gives where a record stands in the answer.
func (f Filter) Place(r *Record) Place {
	at, _ := r.Time(f.Sort)
	return Place{At: at, FirstSeq: r.FirstSeq}
}
