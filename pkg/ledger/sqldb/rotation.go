package sqldb

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// Resigned says how far a change of keys has come in a project: left are the digests whose signatures are all of one key that
// is not among keys, done those that were known before since and whose signature of one of the keys was recorded from then on.
// There must be at least one key.
func (s *Store) Resigned(ctx context.Context, project string, keys []string, since time.Time) (left, done int, err error) {
	if len(keys) == 0 {
		return 0, 0, nil
	}
	in := marks(len(keys))
	query := "SELECT COUNT(CASE WHEN sole_key <> '' AND sole_key NOT IN (" + in + ") THEN 1 END), " +
		"COUNT(CASE WHEN key_id IN (" + in + ") AND verified_at >= ? AND first_seen_at < ? THEN 1 END) " +
		"FROM units WHERE project = ? AND state = ?"
	args := slices.Concat(values(keys), values(keys), []any{micros(since), micros(since), project, ledger.Signed})
	err = s.reading(ctx, "counting what is signed anew", func(tx *sql.Tx) error {
		return s.each(ctx, tx, query, args, func(rows *sql.Rows) error { return rows.Scan(&left, &done) })
	})
	return left, done, err
}
