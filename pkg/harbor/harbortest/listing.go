package harbortest

import (
	"cmp"
	"slices"
	"time"
)

// listArtifacts answers the artifacts of a repository; one that does not exist has none.
func (c *call) listArtifacts() error {
	p, err := c.requireProject("artifact", "list")
	if err != nil {
		return err
	}
	r := c.h.state.repos[c.pathRepository(p)]
	if r == nil {
		r = &repository{project: p}
	}
	return c.answerArtifacts(p, r)
}

// listProjectArtifacts answers the artifacts of all repositories of a project.
func (c *call) listProjectArtifacts() error {
	p, err := c.requireProject("artifact", "list")
	if err != nil {
		return err
	}
	return c.answerArtifacts(p, nil)
}

// entry is an artifact in a listing. Rows stay rows until their page is rendered.
type entry struct {
	id       int64
	pushed   time.Time
	artifact *artifact // nil for a row.
	row      int32
}

func (p *project) artifactOf(e entry) *artifact {
	if e.artifact != nil {
		return e.artifact
	}
	return p.synthetic.artifact(e.row)
}

// answerArtifacts lists the artifacts of a project, or of one of its repositories.
//
// SPEC: Harbor, src/pkg/artifact/dao: newest first by default. How PostgreSQL orders equal push times is undefined;
// here they are ordered by id, in the same direction.
func (c *call) answerArtifacts(p *project, of *repository) error {
	params := c.r.URL.Query()
	q, err := parseQuery(params.Get("q"))
	if err != nil {
		return err
	}
	sel := selection{q: q, of: of}
	if sel.pushed, err = q.timeRange("push_time"); err != nil {
		return err
	}
	if sel.pulled, err = q.timeRange("pull_time"); err != nil {
		return err
	}
	out := sel.entries(p)
	sortEntries(p, out, params.Get("sort"))
	s := c.shows()
	return paged(c, out, func(e entry) any { return p.artifactOf(e).view(s) })
}

// selection is what a listing asks for.
type selection struct {
	q              query
	of             *repository // nil is the whole project.
	pushed, pulled timeRange
}

// entries lists what is selected, newest first.
func (s *selection) entries(p *project) []entry {
	out := s.rows(p.synthetic)
	ordinary := len(out) == 0
	for _, a := range slices.Backward(p.artifacts) {
		if s.of != nil && a.repo != s.of {
			continue
		}
		if a.selected(s.q) && s.pushed.includes(a.pushed) && s.pulled.includes(a.pulled) {
			out = append(out, entry{id: a.id, pushed: a.pushed, artifact: a})
		}
	}
	if !ordinary {
		slices.SortStableFunc(out, func(a, b entry) int { return cmp.Compare(b.id, a.id) })
	}
	return out
}

// rows lists the synthetic rows that are selected, newest first.
func (s *selection) rows(sp *syntheticProject) []entry {
	if sp == nil || (s.of != nil && s.of.synthetic == nil) {
		return nil
	}
	wanted := sp.all
	if s.of != nil {
		wanted = sp.byRepo[s.of.synthetic.index]
	}
	// Rows rise by push time: what lies outside of the range is at both ends.
	from, _ := slices.BinarySearchFunc(wanted, s.pushed.from, func(i int32, at time.Time) int {
		if at.IsZero() {
			return 1
		}
		return sp.rows[i].time().Compare(at)
	})
	out := make([]entry, 0, len(wanted)-from)
	for _, i := range slices.Backward(wanted[from:]) {
		row := &sp.rows[i]
		pushed := row.time()
		if row.gone || !s.pushed.includes(pushed) || !s.selects(sp, i) {
			continue
		}
		out = append(out, entry{id: sp.set.artifactID(row.number, 0), pushed: pushed, row: i})
	}
	return out
}

// selects tells whether the conditions that are not on times select a row.
func (s *selection) selects(sp *syntheticProject, i int32) bool {
	switch row := &sp.rows[i]; {
	case len(s.q) == 0:
		return row.parent == 0
	case row.parent > 0 && s.q["base"] != "*":
		return false
	case !s.pulled.includes(time.Time{}):
		return false
	case s.plain():
		return true
	default:
		return sp.artifact(i).selected(s.q)
	}
}

// plain tells whether the query says nothing but base and push_time.
func (s *selection) plain() bool {
	for name := range s.q {
		if name != "base" && name != "push_time" {
			return false
		}
	}
	return true
}

// sortEntries orders entries, which come newest first, as the request says.
func sortEntries(p *project, out []entry, spec string) {
	size := func(e entry) int64 { return p.artifactOf(e).size }
	pulled := func(e entry) time.Time { return p.artifactOf(e).pulled }
	if spec == "push_time" {
		slices.Reverse(out) // What is sorted already is sorted fast.
	}
	sortBy(out, spec, map[string]func(a, b entry) int{
		"push_time": byTime(func(e entry) time.Time { return e.pushed }),
		"pull_time": byTime(pulled),
		"id":        byOrdered(func(e entry) int64 { return e.id }),
		"size":      byOrdered(size),
	})
}

// selected tells whether a listing with this query shows the artifact: by default no children of an index, with
// base=* every digest; accessories never.
func (a *artifact) selected(q query) bool {
	if a.accessory != nil {
		return false
	}
	if q["base"] != "*" && !a.listed() {
		return false
	}
	if want, ok := q["tags"]; ok {
		switch want {
		case "nil":
			if len(a.tags) > 0 {
				return false
			}
		case "*":
			if len(a.tags) == 0 {
				return false
			}
		default:
			if !slices.ContainsFunc(a.tags, func(t *tag) bool { return q.matches("tags", t.name) }) {
				return false
			}
		}
	}
	return q.matches("digest", a.digest.String()) && q.matches("type", a.kind) && q.matches("media_type", a.mediaType)
}
