package sqldb

import (
	"context"
	"database/sql"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// One gives the row of one digest of a repository; found is false if the ledger never heard of it. It reads by key.
func (s *Store) One(ctx context.Context, ref artifact.Ref) (row ledger.Row, found bool, err error) {
	err = s.reading(ctx, "reading a row", func(tx *sql.Tx) error {
		page, _, err := s.page(ctx, tx, planOf(ref))
		if err == nil && len(page.Items) > 0 {
			row, found = page.Items[0], true
		}
		return err
	})
	if err != nil {
		return ledger.Row{}, false, err
	}
	return row, found, nil
}

// Each calls fn with all rows of a query, in its order, from its cursor on and whatever its limit: all from one state of the
// database, which is that of the position. An error of fn ends it, and is the error, as it is or wrapped. It holds as many rows as
// a chunk has, however many there are, and takes as long as fn does: who reads slowly keeps a snapshot open, and bounds ctx.
func (s *Store) Each(ctx context.Context, q ledger.Query, fn func(ledger.Row) error) (ledger.Position, error) {
	filter, err := q.Filter()
	if err != nil {
		return ledger.Position{}, err
	}
	filter.Limit = chunk
	var position ledger.Position
	var stopped error
	err = s.readingFor(ctx, 0, "reading all rows", func(tx *sql.Tx) error {
		var err error
		if position, err = scanPosition(tx.QueryRowContext(ctx, selectPosition)); err != nil {
			return err
		}
		p, err := s.choose(ctx, tx, filter)
		if err != nil {
			return err
		}
		for {
			page, last, err := s.page(ctx, tx, p)
			if err != nil {
				return err
			}
			for _, row := range page.Items {
				// The next page would notice, after so many rows.
				if err := ctx.Err(); err != nil {
					return err
				}
				if stopped = fn(row); stopped != nil {
					return stopped
				}
			}
			if page.NextCursor == "" {
				return nil
			}
			p.filter.After = last
		}
	})
	switch {
	case stopped != nil:
		// It is fn's own, and no fault of the database.
		return ledger.Position{}, stopped
	case err != nil:
		return ledger.Position{}, err
	default:
		return position, nil
	}
}
