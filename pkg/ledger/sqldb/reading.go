package sqldb

import (
	"context"
	"database/sql"
	"time"
)

// readLimit is how long a question may take that names no limit of its own.
const readLimit = 30 * time.Second

// reading runs f on one state of the database, and gives an error its kind. It takes at most readLimit.
func (s *Store) reading(ctx context.Context, doing string, f func(tx *sql.Tx) error) error {
	return s.readingFor(ctx, readLimit, doing, f)
}

// readingFor is reading with a limit of its own; 0 is none, for what is bounded by whoever reads.
func (s *Store) readingFor(ctx context.Context, limit time.Duration, doing string, f func(tx *sql.Tx) error) error {
	v, err := s.acquire()
	if err != nil {
		return s.fail(ctx, doing, err)
	}
	defer s.release(v)
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(v.life, func() { cancel(errLost) })() //nolint:contextcheck // the view may end before the caller
	if limit > 0 {
		timed, stop := context.WithTimeout(bounded, limit)
		defer stop()
		bounded = timed
	}
	tx, err := v.read.BeginTx(bounded, s.dialect.snapshot)
	if err == nil {
		err = f(tx)
		// Nothing was written: there is nothing to commit, and a failed rollback only costs the connection.
		_ = tx.Rollback()
	}
	switch cause := context.Cause(bounded); {
	case err == nil:
		return nil
	case cause != nil:
		return s.fail(ctx, doing, cause)
	default:
		return s.fail(ctx, doing, err)
	}
}

// each calls scan with the rows of a query.
func (s *Store) each(ctx context.Context, tx *sql.Tx, query string, args []any, scan func(rows *sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, s.dialect.rebind(query), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
