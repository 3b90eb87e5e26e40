package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// statement is one of those of the writer.
type statement int

const (
	lockPosition statement = iota
	updatePosition
	readUnit
	insertUnit
	updateUnit
	upsertTag
	upsertParent
	insertKey
	deleteKey
	addProjectCount
	dropProjectCount
	addDayCount
	dropDayCount
	addSignTime
	dropSignTime
	insertEvent
	readOutage
	writeOutage
	statements // how many there are
)

// text gives the SQL of a statement, with placeholders ?. What it reads is locked for the writer by lock.
func (s statement) text(lock string) string {
	switch s {
	case lockPosition:
		return selectPosition + lock
	case updatePosition:
		return "UPDATE view_position SET seq = ? WHERE id = 1 AND seq < ?"
	case readUnit:
		return selectUnit
	case insertUnit:
		return insertUnitText()
	case updateUnit:
		return updateUnitText()
	case upsertTag:
		return upsertName("tags")
	case upsertParent:
		return upsertName("parents")
	case insertKey:
		return "INSERT INTO unit_keys (key_id, first_seen_at, first_seq, unit_id) VALUES (?, ?, ?, ?)"
	case deleteKey:
		return "DELETE FROM unit_keys WHERE key_id = ? AND first_seen_at = ? AND first_seq = ?"
	case addProjectCount:
		return addCount("project_counts", "project", "state", "class")
	case dropProjectCount:
		return dropCount("project_counts", "project", "state", "class")
	case addDayCount:
		return addCount("day_counts", "project", "day", "state", "class")
	case dropDayCount:
		return dropCount("day_counts", "project", "day", "state", "class")
	case addSignTime:
		return addCount("sign_times", "project", "day", "bucket")
	case dropSignTime:
		return dropCount("sign_times", "project", "day", "bucket")
	case insertEvent:
		return insertEventText
	case readOutage:
		return selectOutage
	case writeOutage:
		return upsertOutage
	default:
		return ""
	}
}

// call runs a statement. Row is called with what it gives; nil for a statement that gives nothing, or whose rows do not matter.
type call struct {
	statement statement
	args      []any
	// row may be left out; it is not called if there is no row.
	row func(row scanner) error
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// session runs statements in a transaction.
type session interface {
	// run runs calls in their order. The first error ends it.
	run(ctx context.Context, calls []call) error
}

// preparedStatements are those of the writer, prepared once.
type preparedStatements []*sql.Stmt

func prepare(ctx context.Context, db *sql.DB) (preparedStatements, error) {
	prepared := make(preparedStatements, 0, statements)
	for s := range statements {
		stmt, err := db.PrepareContext(ctx, s.text(""))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("preparing %q: %w", s.text(""), err), prepared.close())
		}
		prepared = append(prepared, stmt)
	}
	return prepared, nil
}

func (p preparedStatements) close() error {
	var errs []error
	for _, stmt := range p {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// preparedSession runs one statement after the other: for a database in the same process.
type preparedSession struct {
	tx         *sql.Tx
	statements preparedStatements
	bound      [statements]*sql.Stmt // ends with the transaction
}

func (s *preparedSession) run(ctx context.Context, calls []call) error {
	for _, c := range calls {
		stmt := s.bound[c.statement]
		if stmt == nil {
			stmt = s.tx.StmtContext(ctx, s.statements[c.statement])
			s.bound[c.statement] = stmt
		}
		var err error
		if c.row == nil {
			_, err = stmt.ExecContext(ctx, c.args...)
		} else if err = c.row(stmt.QueryRowContext(ctx, c.args...)); errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
