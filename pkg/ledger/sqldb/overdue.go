package sqldb

import (
	"context"
	"database/sql"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/overdue"
)

// Overdue gives digests that were received, are pending, and have had no event above a sequence: those behind a place, the oldest
// first. next is where the page ends, and zero at the end.
func (s *Store) Overdue(ctx context.Context, upTo uint64, after overdue.Place, limit int) (refs []artifact.Ref, next overdue.Place, err error) {
	more := false
	err = s.reading(ctx, "reading what is pending", func(tx *sql.Tx) error {
		position, err := scanPosition(tx.QueryRowContext(ctx, selectPosition))
		if err != nil || position.Seq < upTo {
			return err
		}
		// The index by state leads from one page to the next.
		query := "SELECT repository, digest, first_seen_at, first_seq FROM units WHERE state = ? AND (first_seen_at, first_seq) > (?, ?) " +
			"AND received_seq > 0 AND last_seq <= ? ORDER BY first_seen_at, first_seq LIMIT ?"
		place := []any{int64(-1 << 62), int64(0)}
		if !after.IsZero() {
			place = []any{after.FirstSeenAt.UnixMicro(), int64(after.FirstSeq)} //nolint:gosec // a sequence of the queue
		}
		args := append([]any{ledger.Pending}, append(place, int64(upTo), limit+1)...) //nolint:gosec // as above
		return s.each(ctx, tx, query, args, func(rows *sql.Rows) error {
			var repository, digest string
			var at, seq int64
			if err := rows.Scan(&repository, &digest, &at, &seq); err != nil {
				return err
			}
			if len(refs) == limit {
				more = true
				return nil
			}
			ref, err := artifact.NewRef(repository, digest)
			refs = append(refs, ref)
			next = overdue.Place{FirstSeenAt: time.UnixMicro(at).UTC(), FirstSeq: uint64(seq)} //nolint:gosec // as above
			return err
		})
	})
	if err != nil {
		return nil, overdue.Place{}, err
	}
	if !more {
		next = overdue.Place{}
	}
	return refs, next, nil
}
