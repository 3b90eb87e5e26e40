package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// Signatures answers a query with one page. All of a page is read from one state of the database.
func (s *Store) Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error) {
	filter, err := q.Filter()
	if err != nil {
		return ledger.Page{}, err
	}
	var page ledger.Page
	err = s.reading(ctx, "reading signatures", func(tx *sql.Tx) error {
		page, err = s.page(ctx, tx, filter)
		return err
	})
	if err != nil {
		return ledger.Page{}, err
	}
	return page, nil
}

func (s *Store) page(ctx context.Context, tx *sql.Tx, filter ledger.Filter) (ledger.Page, error) {
	units, err := s.units(ctx, tx, filter)
	if err != nil {
		return ledger.Page{}, err
	}
	page := ledger.Page{Items: make([]ledger.Row, 0, len(units))}
	if len(units) > filter.Limit {
		units = units[:filter.Limit]
		last := units[filter.Limit-1].record
		page.NextCursor = filter.Cursor(ledger.Place{FirstSeenAt: last.FirstSeenAt, FirstSeq: last.FirstSeq})
	}
	index := make(map[int64]int, len(units))
	for i, u := range units {
		page.Items = append(page.Items, u.record.Row())
		index[u.id] = i
	}
	err = s.names(ctx, tx, "tags", units, func(id int64, name string, total int) {
		row := &page.Items[index[id]]
		row.Tags, row.TagsTotal = append(row.Tags, name), total
	})
	if err != nil {
		return ledger.Page{}, err
	}
	err = s.names(ctx, tx, "parents", units, func(id int64, name string, total int) {
		row := &page.Items[index[id]]
		row.Parents, row.ParentsTotal = append(row.Parents, name), total
	})
	return page, err
}

// units reads one row more than the page holds, to know whether there is a next one.
func (s *Store) units(ctx context.Context, tx *sql.Tx, filter ledger.Filter) ([]*unit, error) {
	query, args := selectUnits(filter)
	var units []*unit
	err := s.each(ctx, tx, query, args, func(rows *sql.Rows) error {
		u := &unit{}
		units = append(units, u)
		return u.scan(rows)
	})
	return units, err
}

// selectUnits writes the query. Only text of this function becomes SQL; what the caller asked for becomes parameters.
func selectUnits(f ledger.Filter) (query string, args []any) {
	var where []string
	add := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	// A digest leaves few rows. Without statistics a planner does not know that, and may prefer an index that has the rows
	// in order already: an expression keeps it from those.
	text, number := "", ""
	if f.DigestFrom != "" {
		text, number = " || ''", " + 0"
	}
	if f.Project != "" {
		add("project"+text+" = ?", f.Project)
	}
	switch {
	case f.Projects == nil:
	case len(f.Projects) == 0:
		add("1 = 0")
	default:
		add("project"+text+" IN ("+marks(len(f.Projects))+")", values(f.Projects)...)
	}
	if f.Repository != "" {
		add("repository"+text+" = ?", f.Repository)
	}
	switch {
	case f.DigestTo != "":
		add("digest >= ? AND digest < ?", f.DigestFrom, f.DigestTo)
	case f.DigestFrom != "":
		add("digest = ?", f.DigestFrom)
	}
	key := text
	if f.Project != "" {
		key = " || ''" // a key signs in all projects: the index of the project has fewer rows
	}
	if f.LogOwed {
		add("log_owed_since" + number + " IS NOT NULL")
		text, key = " || ''", " || ''" // what owes is signed, by some key, as are most rows
	}
	if f.State != "" {
		add("state"+text+" = ?", string(f.State))
	}
	if f.SignedOnlyBy != "" {
		add("sole_key"+key+" = ?", f.SignedOnlyBy)
	}
	if !f.Since.IsZero() {
		add("first_seen_at"+number+" >= ?", micros(f.Since))
	}
	if !f.Until.IsZero() {
		add("first_seen_at"+number+" < ?", micros(f.Until))
	}
	if f.After.FirstSeq != 0 {
		add("(first_seen_at"+number+", first_seq) < (?, ?)", micros(f.After.FirstSeenAt), f.After.FirstSeq)
	}
	query = "SELECT id, " + unitColumns + " FROM units"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return query + " ORDER BY first_seen_at DESC, first_seq DESC LIMIT ?", append(args, f.Limit+1)
}

// names calls each with the names of the units, for each unit those that were named last, newest first.
func (s *Store) names(ctx context.Context, tx *sql.Tx, table string, units []*unit, each func(id int64, name string, total int)) error {
	if len(units) == 0 {
		return nil
	}
	ids := make([]any, len(units), len(units)+1)
	for i, u := range units {
		ids[i] = u.id
	}
	query := fmt.Sprintf(`
		SELECT unit_id, name, total FROM (
			SELECT unit_id, name,
				ROW_NUMBER() OVER (PARTITION BY unit_id ORDER BY last_seq DESC, name) AS place,
				COUNT(*) OVER (PARTITION BY unit_id) AS total
			FROM %s WHERE unit_id IN (%s)
		) AS named WHERE place <= ? ORDER BY unit_id, place`, table, marks(len(units)))
	return s.each(ctx, tx, query, append(ids, ledger.MaxNames), func(rows *sql.Rows) error {
		var id int64
		var name string
		var total int
		if err := rows.Scan(&id, &name, &total); err != nil {
			return err
		}
		each(id, name, total)
		return nil
	})
}

// marks gives n placeholders.
func marks(n int) string { return "?" + strings.Repeat(", ?", n-1) }

func values(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}
