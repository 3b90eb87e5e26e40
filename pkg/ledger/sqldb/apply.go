package sqldb

import (
	"context"
	"database/sql"
	"errors"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// statements are those of the writer, prepared once.
type statements struct {
	lockPosition, updatePosition       *sql.Stmt
	selectUnit, insertUnit, updateUnit *sql.Stmt
	upsertTag, upsertParent            *sql.Stmt
	insertEvent                        *sql.Stmt
	selectOutage, upsertOutage         *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB, d dialect) (statements, error) {
	var s statements
	for _, p := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&s.lockPosition, selectPosition + d.lock},
		{&s.updatePosition, updatePosition},
		{&s.selectUnit, selectUnit},
		{&s.insertUnit, insertUnit()},
		{&s.updateUnit, updateUnit()},
		{&s.upsertTag, upsertName("tags")},
		{&s.upsertParent, upsertName("parents")},
		{&s.insertEvent, insertEvent},
		{&s.selectOutage, selectOutage},
		{&s.upsertOutage, upsertOutage},
	} {
		stmt, err := db.PrepareContext(ctx, d.rebind(p.query))
		if err != nil {
			return statements{}, errors.Join(err, s.close())
		}
		*p.stmt = stmt
	}
	return s, nil
}

// within gives the statements bound to a transaction. They end with it.
func (s statements) within(ctx context.Context, tx *sql.Tx) statements {
	return statements{
		lockPosition: tx.StmtContext(ctx, s.lockPosition), updatePosition: tx.StmtContext(ctx, s.updatePosition),
		selectUnit: tx.StmtContext(ctx, s.selectUnit), insertUnit: tx.StmtContext(ctx, s.insertUnit), updateUnit: tx.StmtContext(ctx, s.updateUnit),
		upsertTag: tx.StmtContext(ctx, s.upsertTag), upsertParent: tx.StmtContext(ctx, s.upsertParent),
		insertEvent: tx.StmtContext(ctx, s.insertEvent), selectOutage: tx.StmtContext(ctx, s.selectOutage), upsertOutage: tx.StmtContext(ctx, s.upsertOutage),
	}
}

func (s statements) close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{
		s.lockPosition, s.updatePosition, s.selectUnit, s.insertUnit, s.updateUnit, s.upsertTag, s.upsertParent, s.insertEvent,
		s.selectOutage, s.upsertOutage,
	} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// Apply brings rows and position forward in one transaction. Rows are read, changed by the ledger's rules and written
// back; that this is safe beside other writers is because the position is locked first.
func (s *Store) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		stmts := s.stmts.within(ctx, tx)
		position, err := scanPosition(stmts.lockPosition.QueryRowContext(ctx))
		if err != nil {
			return err
		}
		if !position.Basis.Equal(basis) {
			return ledger.ErrOtherBasis
		}
		last := uint64(0)
		b := batch{stmts: stmts, units: make(map[artifact.Ref]*unit)}
		for _, entry := range entries {
			last = max(last, entry.Seq)
			if err := b.apply(ctx, entry); err != nil {
				return err
			}
		}
		for _, u := range b.order {
			if err := b.save(ctx, u); err != nil {
				return err
			}
		}
		_, err = stmts.updatePosition.ExecContext(ctx, last, last)
		return err
	})
	if err != nil {
		return s.fail(ctx, "applying events", err)
	}
	return nil
}

// batch collects what the entries of one transaction change, so that a digest is read and written once.
type batch struct {
	stmts statements
	units map[artifact.Ref]*unit
	order []*unit
}

func (b *batch) apply(ctx context.Context, entry artifact.Entry) error {
	if event, ok := ledger.ProjectEventOf(entry); ok {
		_, err := b.stmts.insertEvent.ExecContext(ctx, event.Seq, event.Project, event.Kind, micros(event.At), event.Actor, event.Origin,
			event.Reason, event.Detail, data{
				Repository: event.Repository, Digest: event.Digest, Change: event.Change, Sweep: event.Sweep, Outage: event.Outage,
			})
		if outage, tells := ledger.OutageOf(entry); err == nil && tells {
			err = b.outage(ctx, outage)
		}
		if err != nil {
			return err
		}
	}
	if !ledger.Projects(entry) {
		return nil
	}
	u := b.units[entry.Event.Ref]
	if u == nil {
		u = newUnit(entry.Event.Ref)
		err := u.scan(b.stmts.selectUnit.QueryRowContext(ctx, u.repository, u.digest))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		b.units[entry.Event.Ref] = u
		b.order = append(b.order, u)
	}
	u.record.Apply(entry)
	return nil
}

func (b *batch) save(ctx context.Context, u *unit) error {
	var err error
	if u.id == 0 {
		err = b.stmts.insertUnit.QueryRowContext(ctx, u.values()...).Scan(&u.id)
	} else {
		_, err = b.stmts.updateUnit.ExecContext(ctx, append(u.values(), u.id)...)
	}
	if err != nil {
		return err
	}
	if err := saveNames(ctx, b.stmts.upsertTag, u.id, u.record.Tags); err != nil {
		return err
	}
	return saveNames(ctx, b.stmts.upsertParent, u.id, u.record.Parents)
}

func saveNames(ctx context.Context, upsert *sql.Stmt, id int64, names map[string]ledger.Seen) error {
	for name, seen := range names {
		_, err := upsert.ExecContext(ctx, id, name, seen.FirstSeq, micros(seen.FirstAt), seen.LastSeq, micros(seen.LastAt))
		if err != nil {
			return err
		}
	}
	return nil
}
