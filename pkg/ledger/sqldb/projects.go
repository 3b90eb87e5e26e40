package sqldb

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// chunk is how many names or digests one statement asks for: far below what any database takes as parameters.
const chunk = 500

// Known gives what the view knows of each digest, in the order of refs. One that it never heard of has its Ref alone.
func (s *Store) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	found := make(map[artifact.Ref]artifact.Known, len(refs))
	err := s.reading(ctx, "reading what is known", func(tx *sql.Tx) error {
		for part := range slices.Chunk(refs, chunk) {
			var args []any
			for _, ref := range part {
				args = append(args, ref.Repository(), ref.Digest())
			}
			err := s.each(ctx, tx, knownText(len(part)), args, func(rows *sql.Rows) error {
				var u unit
				err := u.scan(rows)
				found[u.record.Ref] = u.record.Known()
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	known := make([]artifact.Known, len(refs))
	for i, ref := range refs {
		known[i] = found[ref]
		known[i].Ref = ref
	}
	return known, nil
}

// knownText asks for so many digests, as isUnit does. In this order: a planner that begins with units would look at all of them.
func knownText(n int) string {
	return "SELECT id, " + unitColumns + " FROM (VALUES (?, ?)" + strings.Repeat(", (?, ?)", n-1) + ") AS asked " +
		"CROSS JOIN units WHERE units.repository || '' = asked.column1 AND units.digest = asked.column2"
}

// unlisted are rows that no listing of Harbor should have: see ledger.Record.Listed.
func unlisted() (condition string, args []any) {
	reasons := ledger.AccessoryReasons()
	args = []any{ledger.Gone, ledger.Skipped}
	for _, reason := range reasons {
		args = append(args, reason)
	}
	return "(state = ? OR state = ? AND reason IN (" + marks(len(reasons)) + "))", args
}

// Units gives the digests of a project that are neither gone nor accessories, in the order of repository and digest, beginning
// after a place that was given as next before; empty for the first page. next is empty if this page is the last.
func (s *Store) Units(ctx context.Context, project, after string, limit int) (refs []artifact.Ref, next string, err error) {
	f, err := ledger.NewUnitFilter(project, after, limit)
	if err != nil {
		return nil, "", err
	}
	err = s.reading(ctx, "reading the digests of a project", func(tx *sql.Tx) error {
		repository, digest := f.Project+"/", ""
		if !f.After.IsZero() {
			repository, digest = f.After.Repository(), f.After.Digest()
		}
		condition, reasons := unlisted()
		query := "SELECT repository, digest FROM units WHERE (repository, digest) > (?, ?) AND repository < ? " +
			"AND NOT " + condition + " ORDER BY repository, digest LIMIT ?"
		// The names of a project's repositories begin with it and a slash; 0 is the character after that.
		args := slices.Concat([]any{repository, digest, f.Project + "0"}, reasons, []any{f.Limit + 1})
		return s.each(ctx, tx, query, args, func(rows *sql.Rows) error {
			var repository, digest string
			if err := rows.Scan(&repository, &digest); err != nil {
				return err
			}
			ref, err := artifact.NewRef(repository, digest)
			refs = append(refs, ref)
			return err
		})
	})
	if err != nil {
		return nil, "", err
	}
	if len(refs) > f.Limit {
		refs = refs[:f.Limit]
		next = refs[f.Limit-1].String()
	}
	return refs, next, nil
}

// Names gives the names of all projects that rows or events know, sorted.
func (s *Store) Names(ctx context.Context) (names []string, err error) {
	err = s.reading(ctx, "reading the names of projects", func(tx *sql.Tx) error {
		names, err = s.projectNames(ctx, tx)
		return err
	})
	return names, err
}

// projectNames goes from one name to the next in an index, whatever the number of rows.
func (s *Store) projectNames(ctx context.Context, tx *sql.Tx) (names []string, err error) {
	for _, table := range []string{"units", "project_events"} {
		query := `
			WITH RECURSIVE named (project) AS (
				SELECT MIN(project) FROM ` + table + ` WHERE project <> ''
				UNION ALL
				SELECT (SELECT MIN(t.project) FROM ` + table + ` t WHERE t.project > named.project) FROM named WHERE named.project IS NOT NULL
			) SELECT project FROM named WHERE project IS NOT NULL`
		err := s.each(ctx, tx, query, nil, func(rows *sql.Rows) error {
			var name string
			err := rows.Scan(&name)
			names = append(names, name)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Coverage gives the counts of the projects that are named, also of those that nothing is known of; nil means all that
// [Store.Names] gives.
func (s *Store) Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error) {
	covered := make(map[string]*ledger.Coverage, len(projects))
	err := s.reading(ctx, "counting the digests of projects", func(tx *sql.Tx) (err error) {
		names := projects
		if names == nil {
			if names, err = s.projectNames(ctx, tx); err != nil {
				return err
			}
		}
		for part := range slices.Chunk(names, chunk) {
			some, err := s.cover(ctx, tx, part)
			if err != nil {
				return err
			}
			maps.Copy(covered, some)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result := make(map[string]ledger.Coverage, len(covered))
	for name, c := range covered {
		result[name] = *c
	}
	return result, nil
}

func (s *Store) lastSweeps(ctx context.Context, tx *sql.Tx, projects []string, into map[string]*ledger.Coverage) error {
	query := "SELECT " + eventColumns + " FROM project_events WHERE seq IN (" +
		"SELECT (SELECT MAX(seq) FROM project_events WHERE kind = ? AND project = asked.column1) FROM (VALUES (?)" +
		strings.Repeat(", (?)", len(projects)-1) + ") AS asked)"
	return s.each(ctx, tx, query, append([]any{artifact.Swept}, values(projects)...), func(rows *sql.Rows) error {
		event, err := scanEvent(rows)
		if err != nil {
			return err
		}
		into[event.Project].Swept(event)
		return nil
	})
}

// ProjectEvents answers a query with one page.
func (s *Store) ProjectEvents(ctx context.Context, q ledger.EventQuery) (ledger.EventPage, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.EventPage{}, err
	}
	page := ledger.EventPage{Items: []ledger.ProjectEvent{}}
	err = s.reading(ctx, "reading the events of projects", func(tx *sql.Tx) error {
		query, args := "SELECT "+eventColumns+" FROM project_events WHERE 1 = 1", []any{}
		if f.Project != "" {
			query, args = query+" AND project = ?", append(args, f.Project)
		}
		if f.Before != 0 {
			query, args = query+" AND seq < ?", append(args, f.Before)
		}
		return s.each(ctx, tx, query+" ORDER BY seq DESC LIMIT ?", append(args, f.Limit+1), func(rows *sql.Rows) error {
			event, err := scanEvent(rows)
			page.Items = append(page.Items, event)
			return err
		})
	})
	if err != nil {
		return ledger.EventPage{}, err
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		page.NextCursor = f.Cursor(page.Items[f.Limit-1].Seq)
	}
	return page, nil
}

// scanEvent reads eventColumns.
func scanEvent(rows *sql.Rows) (ledger.ProjectEvent, error) {
	var e ledger.ProjectEvent
	var d data
	err := rows.Scan(&e.Seq, &e.Project, &e.Kind, (*micros)(&e.At), &e.Actor, &e.Origin, &e.Reason, &e.Detail, &d)
	d.into(&e)
	return e, err
}
