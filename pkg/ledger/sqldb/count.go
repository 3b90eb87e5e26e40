package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// countLimit is how long a page waits for the number of all rows.
const countLimit = 200 * time.Millisecond

// total says how many rows match: from the counts that are kept with the rows, where only project and state are asked for, and else by
// counting, as far as ledger.MaxTotal and countLimit allow. It may be of a newer state of the database than the page.
func (s *Store) total(ctx context.Context, p *plan, page ledger.Page) (*ledger.Total, error) {
	known := &ledger.Total{Value: int64(len(page.Items)), Relation: ledger.Exactly}
	if page.NextCursor != "" {
		known = &ledger.Total{Value: known.Value + 1, Relation: ledger.AtLeast}
	}
	if p.empty || known.Relation == ledger.Exactly && p.filter.After.FirstSeq == 0 {
		return known, nil
	}
	var n int64
	counted := p.kept()
	err := s.readingFor(ctx, countLimit, "counting signatures", func(tx *sql.Tx) (err error) {
		if s.dialect.steer != "" && !counted {
			if _, err := tx.ExecContext(ctx, s.dialect.steer); err != nil {
				return err
			}
		}
		n, err = s.number(ctx, tx, p.counting())
		return err
	})
	switch {
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		known.Relation = ledger.AtLeast
		return known, nil
	case err != nil:
		return nil, err
	case !counted && n > ledger.MaxTotal:
		return &ledger.Total{Value: ledger.MaxTotal, Relation: ledger.AtLeast}, nil
	default:
		return &ledger.Total{Value: n, Relation: ledger.Exactly}, nil
	}
}

// kept says whether the counts of projects and states answer.
func (p *plan) kept() bool {
	return !slices.ContainsFunc(p.asked(), func(asked part) bool { return asked != byProject && asked != byProjects && asked != byState })
}

// counting gives the query for the number of all rows.
func (p *plan) counting() question {
	if p.kept() {
		q := question{text: "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM project_counts AS units WHERE 1 = 1"}
		for _, asked := range p.asked() {
			q.add(p.conditions[asked].indexed, p.conditions[asked].args...)
		}
		return q
	}
	if len(p.asked()) == 1 {
		return p.probe(p.asked(), ledger.MaxTotal+1)
	}
	_, at := timeColumn(p.filter.Sort)
	q := p.where(p.leading(), at)
	return question{text: "SELECT COUNT(*) FROM (SELECT 1 FROM " + q.text + " LIMIT ?) AS counted", args: append(q.args, ledger.MaxTotal+1)}
}
