package sqldb

import (
	"context"
	"database/sql"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// owes is the condition of the indexes that hold only what owes: a query that repeats it is answered by one of them.
const owes = "log_owed_since IS NOT NULL"

// Totals sums up what the rows of all projects say. It looks at one row for each state, and at what owes.
func (s *Store) Totals(ctx context.Context) (ledger.Totals, error) {
	var totals ledger.Totals
	err := s.reading(ctx, "summing up the report", func(tx *sql.Tx) error {
		for _, state := range ledger.MissingStates() {
			query := "SELECT first_seen_at FROM units WHERE state = ? ORDER BY first_seen_at, first_seq LIMIT 1"
			err := s.each(ctx, tx, query, []any{state}, func(rows *sql.Rows) error {
				var oldest micros
				err := rows.Scan(&oldest)
				totals.Count(state, time.Time(oldest))
				return err
			})
			if err != nil {
				return err
			}
		}
		return s.each(ctx, tx, "SELECT COUNT(*), MIN(log_owed_since) FROM units WHERE "+owes, nil, func(rows *sql.Rows) error {
			var digests int
			var oldest micros
			err := rows.Scan(&digests, &oldest)
			totals.Owe(digests, time.Time(oldest))
			return err
		})
	})
	if err != nil {
		return ledger.Totals{}, err
	}
	return totals, nil
}

// countDebts adds to the counts of projects how many of their digests owe an entry in a transparency log.
func (s *Store) countDebts(ctx context.Context, tx *sql.Tx, projects []string, into map[string]*ledger.Coverage) error {
	query := "SELECT project, COUNT(*), MIN(log_owed_since) FROM units WHERE " + owes + " AND project IN (" + marks(len(projects)) + ") GROUP BY project"
	return s.each(ctx, tx, query, values(projects), func(rows *sql.Rows) error {
		var name string
		var digests int
		var oldest micros
		if err := rows.Scan(&name, &digests, &oldest); err != nil {
			return err
		}
		into[name].Owe(digests, time.Time(oldest))
		return nil
	})
}
