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
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return ledger.Page{}, s.fail(ctx, "reading signatures", err)
	}
	page, err := s.page(ctx, tx, filter)
	// Nothing was written: there is nothing to commit, and a failed rollback only costs the connection.
	_ = tx.Rollback()
	if err != nil {
		return ledger.Page{}, s.fail(ctx, "reading signatures", err)
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
	rows, err := tx.QueryContext(ctx, s.dialect.rebind(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	var units []*unit
	for rows.Next() {
		u := &unit{}
		if err := u.scan(rows); err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	return units, rows.Err()
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
	if f.Repository != "" {
		add("repository"+text+" = ?", f.Repository)
	}
	switch {
	case f.DigestTo != "":
		add("digest >= ? AND digest < ?", f.DigestFrom, f.DigestTo)
	case f.DigestFrom != "":
		add("digest = ?", f.DigestFrom)
	}
	if f.State != "" {
		add("state"+text+" = ?", string(f.State))
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
			FROM %s WHERE unit_id IN (?%s)
		) AS named WHERE place <= ? ORDER BY unit_id, place`, table, strings.Repeat(", ?", len(units)-1))
	rows, err := tx.QueryContext(ctx, s.dialect.rebind(query), append(ids, ledger.MaxNames)...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var id int64
		var name string
		var total int
		if err := rows.Scan(&id, &name, &total); err != nil {
			return err
		}
		each(id, name, total)
	}
	return rows.Err()
}
