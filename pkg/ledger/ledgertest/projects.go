package ledgertest

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Known gives what the view knows of each digest.
func (m *Memory) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make([]artifact.Known, 0, len(refs))
	for _, ref := range refs {
		if record := m.records[ref]; record != nil {
			known = append(known, record.Known())
		} else {
			known = append(known, artifact.Known{Ref: ref})
		}
	}
	return known, ctx.Err()
}

// Units gives a page of the digests of a project.
func (m *Memory) Units(ctx context.Context, project, after string, limit int) (refs []artifact.Ref, next string, err error) {
	f, err := ledger.NewUnitFilter(project, after, limit)
	if err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	byName := func(a, b artifact.Ref) int {
		return cmp.Or(cmp.Compare(a.Repository(), b.Repository()), cmp.Compare(a.Digest(), b.Digest()))
	}
	for ref, record := range m.records {
		if ref.Project() == project && record.Listed() && (f.After.IsZero() || byName(ref, f.After) > 0) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, byName)
	if len(refs) > f.Limit {
		refs = refs[:f.Limit]
		next = refs[f.Limit-1].String()
	}
	return refs, next, ctx.Err()
}

// Names gives the names of all projects that rows or events know.
func (m *Memory) Names(ctx context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names(), ctx.Err()
}

// names must be called with mu held.
func (m *Memory) names() []string {
	names := map[string]bool{}
	for ref := range m.records {
		names[ref.Project()] = true
	}
	for _, e := range m.events {
		names[e.Project] = true
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}

// Coverage counts the digests of projects; nil means all.
func (m *Memory) Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if projects == nil {
		projects = m.names()
	}
	covered := make(map[string]ledger.Coverage, len(projects))
	for _, project := range projects {
		var c ledger.Coverage
		for ref, record := range m.records {
			if ref.Project() == project && record.Listed() {
				c.Count(record.State(), 1, record.FirstSeenAt)
				if record.LogState() == ledger.LogOwed {
					c.Owe(1, record.LogOwedSince())
				}
			}
		}
		for _, e := range m.newestEvents() {
			if e.Kind == artifact.Swept && e.Project == project {
				c.Swept(e)
				break
			}
		}
		covered[project] = c
	}
	return covered, ctx.Err()
}

// ProjectEvents answers a query.
func (m *Memory) ProjectEvents(ctx context.Context, q ledger.EventQuery) (ledger.EventPage, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.EventPage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	page := ledger.EventPage{Items: []ledger.ProjectEvent{}}
	for _, e := range m.newestEvents() {
		if f.Project != "" && e.Project != f.Project || f.Before != 0 && e.Seq >= f.Before {
			continue
		}
		if len(page.Items) == f.Limit {
			page.NextCursor = f.Cursor(page.Items[f.Limit-1].Seq)
			break
		}
		page.Items = append(page.Items, e)
	}
	return page, ctx.Err()
}

// newestEvents must be called with mu held.
func (m *Memory) newestEvents() []ledger.ProjectEvent {
	return slices.SortedFunc(maps.Values(m.events), func(a, b ledger.ProjectEvent) int { return cmp.Compare(b.Seq, a.Seq) })
}
