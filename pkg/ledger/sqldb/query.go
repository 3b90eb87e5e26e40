package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// Signatures answers a query with one page. All of a page is read from one state of the database.
func (s *Store) Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error) {
	filter, err := q.Filter()
	if err != nil {
		return ledger.Page{}, err
	}
	var page ledger.Page
	var p *plan
	err = s.reading(ctx, "reading signatures", func(tx *sql.Tx) error {
		if p, err = s.choose(ctx, tx, filter); err != nil {
			return err
		}
		page, _, err = s.page(ctx, tx, p)
		return err
	})
	if err != nil {
		return ledger.Page{}, err
	}
	if q.Total {
		if page.Total, err = s.total(ctx, p, page); err != nil {
			return ledger.Page{}, err
		}
	}
	return page, nil
}

// page reads the page of a plan, and says where its last row stands.
func (s *Store) page(ctx context.Context, tx *sql.Tx, p *plan) (ledger.Page, ledger.Place, error) {
	page := ledger.Page{Items: []ledger.Row{}}
	if p.empty {
		return page, ledger.Place{}, nil
	}
	limit := p.filter.Limit
	// One more than the page holds, to know whether there is a next one.
	search := p.search(limit + 1)
	var ids []int64
	var last ledger.Place
	more := false
	err := s.each(ctx, tx, search.text, search.args, func(rows *sql.Rows) error {
		if more = len(ids) == limit; more {
			return nil
		}
		var id int64
		var at micros
		var place ledger.Place
		if err := rows.Scan(&id, &at, &place.FirstSeq); err != nil {
			return err
		}
		place.At = time.Time(at)
		ids, last = append(ids, id), place
		return nil
	})
	if err != nil {
		return ledger.Page{}, ledger.Place{}, err
	}
	if more {
		page.NextCursor = p.filter.Cursor(last)
	}
	page.Items, err = s.rows(ctx, tx, ids)
	return page, last, err
}

// rows reads rows by their ids, and gives them in that order.
func (s *Store) rows(ctx context.Context, tx *sql.Tx, ids []int64) ([]ledger.Row, error) {
	items := make([]ledger.Row, len(ids))
	if len(ids) == 0 {
		return items, nil
	}
	index := make(map[int64]int, len(ids))
	for i, id := range ids {
		index[id] = i
	}
	query := "SELECT id, " + unitColumns + " FROM units WHERE id IN (" + marks(len(ids)) + ")"
	err := s.each(ctx, tx, query, numbers(ids), func(rows *sql.Rows) error {
		u := &unit{}
		if err := u.scan(rows); err != nil {
			return err
		}
		items[index[u.id]] = u.record.Row()
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.names(ctx, tx, "tags", ids, func(id int64, name string, total int) {
		row := &items[index[id]]
		row.Tags, row.TagsTotal = append(row.Tags, name), total
	})
	if err != nil {
		return nil, err
	}
	err = s.names(ctx, tx, "parents", ids, func(id int64, name string, total int) {
		row := &items[index[id]]
		row.Parents, row.ParentsTotal = append(row.Parents, name), total
	})
	return items, err
}

// names calls each with the names of the units, for each unit those that were named last, newest first.
func (s *Store) names(ctx context.Context, tx *sql.Tx, table string, ids []int64, each func(id int64, name string, total int)) error {
	query := fmt.Sprintf(`
		SELECT unit_id, name, total FROM (
			SELECT unit_id, name,
				ROW_NUMBER() OVER (PARTITION BY unit_id ORDER BY last_seq DESC, name) AS place,
				COUNT(*) OVER (PARTITION BY unit_id) AS total
			FROM %s WHERE unit_id IN (%s)
		) AS named WHERE place <= ? ORDER BY unit_id, place`, table, marks(len(ids)))
	return s.each(ctx, tx, query, append(numbers(ids), ledger.MaxNames), func(rows *sql.Rows) error {
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

func numbers(ids []int64) []any {
	all := make([]any, len(ids), len(ids)+1)
	for i, id := range ids {
		all[i] = id
	}
	return all
}

// number reads one number.
func (s *Store) number(ctx context.Context, tx *sql.Tx, q question) (int64, error) {
	var n int64
	err := s.each(ctx, tx, q.text, q.args, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, err
}
