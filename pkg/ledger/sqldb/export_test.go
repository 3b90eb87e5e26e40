package sqldb

import (
	"context"
	"database/sql"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// AnyOrder applies entries that the position has passed, too: as if the stream were read again.
type AnyOrder struct{ *Store }

// Apply is the store's.
func (a AnyOrder) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	return a.apply(ctx, basis, entries, true)
}

// Explained is how the rows of a query are found.
type Explained struct {
	// Ordered says that the search ends with the page, Leads what leads to the rows.
	Ordered bool
	Leads   []string
	// Lines are what the database says that it does for the page and for the number of all rows.
	Search, Count []string
}

// Explain asks the database how it would answer a query.
func (s *Store) Explain(ctx context.Context, q ledger.Query) (Explained, error) {
	var told Explained
	filter, err := q.Filter()
	if err != nil {
		return told, err
	}
	err = s.reading(ctx, "explaining", func(tx *sql.Tx) error {
		p, err := s.choose(ctx, tx, filter)
		if err != nil || p.empty {
			return err
		}
		told.Ordered = p.ordered
		for _, lead := range p.leads {
			told.Leads = append(told.Leads, string(lead))
		}
		for _, explained := range []struct {
			question question
			into     *[]string
		}{{p.search(filter.Limit + 1), &told.Search}, {p.counting(), &told.Count}} {
			explain := "EXPLAIN "
			if s.dialect.name == "sqlite" {
				explain = "EXPLAIN QUERY PLAN "
			}
			err := s.each(ctx, tx, explain+explained.question.text, explained.question.args, func(rows *sql.Rows) error {
				columns, err := rows.Columns()
				if err != nil {
					return err
				}
				values, last := make([]any, len(columns)), ""
				for i := range values {
					values[i] = new(any)
				}
				values[len(values)-1] = &last
				if err := rows.Scan(values...); err != nil {
					return err
				}
				*explained.into = append(*explained.into, last)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return told, err
}

// CheckedLater checks every SQLite file in the background.
func (c Config) CheckedLater() Config {
	c.checkAtOnce = 1
	return c
}
