package ledgertest

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Signatures answers a query.
func (m *Memory) Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.Page{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ledger.Page{}, err
	}
	found := m.found(f)
	page := ledger.Page{Items: []ledger.Row{}}
	if q.Total {
		page.Total = &ledger.Total{Value: int64(len(found)), Relation: ledger.Exactly}
	}
	left := slices.DeleteFunc(found, func(r *ledger.Record) bool { return passed(f, r) })
	for i, record := range left {
		if i == f.Limit {
			page.NextCursor = f.Cursor(f.Place(left[i-1]))
			break
		}
		page.Items = append(page.Items, record.Row())
	}
	return page, nil
}

// Each calls fn with all rows of a query from its cursor on. fn must not ask the view.
func (m *Memory) Each(ctx context.Context, q ledger.Query, fn func(ledger.Row) error) (ledger.Position, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.Position{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, record := range m.found(f) {
		if passed(f, record) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return ledger.Position{}, err
		}
		if err := fn(record.Row()); err != nil {
			return ledger.Position{}, err
		}
	}
	return m.position, ctx.Err()
}

// One gives the row of a digest in a repository.
func (m *Memory) One(ctx context.Context, ref artifact.Ref) (row ledger.Row, found bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ledger.Row{}, false, err
	}
	record := m.records[ref]
	if record == nil {
		return ledger.Row{}, false, nil
	}
	return record.Row(), true, nil
}

// found gives all records of an answer, in its order. The caller has locked.
func (m *Memory) found(f ledger.Filter) []*ledger.Record {
	var found []*ledger.Record
	for _, record := range m.records {
		if matches(f, record) {
			found = append(found, record)
		}
	}
	slices.SortFunc(found, func(a, b *ledger.Record) int { return compare(f, f.Place(a), f.Place(b)) })
	return found
}

func matches(f ledger.Filter, r *ledger.Record) bool {
	digest, push := r.Ref.Digest(), r.Push()
	_, tagged := r.Tags[f.Tag]
	switch {
	case f.Project != "" && r.Ref.Project() != f.Project,
		f.Repository != "" && r.Ref.Repository() != f.Repository,
		f.Glob != nil && !f.Glob.Matches(r.Ref.Repository()),
		!strings.HasPrefix(digest, f.DigestFrom),
		f.Projects != nil && !slices.Contains(f.Projects, r.Ref.Project()),
		f.State != "" && r.State() != f.State,
		f.Tag != "" && !tagged,
		f.Key != "" && !slices.ContainsFunc(r.Evidence(), func(e artifact.Evidence) bool { return e.KeyID == f.Key }),
		f.Format != "" && !hasFormat(r, f.Format),
		f.Pusher != "" && push.Pusher != f.Pusher,
		f.PusherSource != "" && push.Source != f.PusherSource,
		f.SignedOnlyBy != "" && !signedOnlyBy(r, f.SignedOnlyBy),
		f.LogOwed && r.LogState() != ledger.LogOwed:
		return false
	}
	for _, sort := range []ledger.Sort{ledger.ByFirstSeen, ledger.ByPushed, ledger.BySigned} {
		at, known := r.Time(sort)
		if !known && (f.Sort == sort || !f.Times[sort].IsZero()) || known && !f.Times[sort].Contains(at) {
			return false
		}
	}
	return true
}

func hasFormat(r *ledger.Record, format string) bool {
	has := func(format artifact.Format) bool {
		return slices.ContainsFunc(r.Evidence(), func(e artifact.Evidence) bool { return e.Format == format })
	}
	if format == ledger.Both {
		return has(artifact.Legacy) && has(artifact.Bundle)
	}
	return has(artifact.Format(format))
}

func signedOnlyBy(r *ledger.Record, key string) bool {
	other := func(s artifact.Evidence) bool { return s.KeyID != key }
	return r.State() == ledger.Signed && len(r.Evidence()) > 0 && !slices.ContainsFunc(r.Evidence(), other)
}

// passed says whether a record was on a page before.
func passed(f ledger.Filter, r *ledger.Record) bool {
	return f.After.FirstSeq != 0 && compare(f, f.Place(r), f.After) <= 0
}

// compare says which place comes first in the answer.
func compare(f ledger.Filter, a, b ledger.Place) int {
	if !f.Ascending {
		a, b = b, a
	}
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.FirstSeq, b.FirstSeq))
}
