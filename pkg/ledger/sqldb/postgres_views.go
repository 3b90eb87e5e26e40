package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/harborseal/harborseal/pkg/fault"
)

// The schema of the configuration holds one table, with one row: which view is served, and the number of the newest one.
const (
	createServed = "CREATE TABLE %s.served_view (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, newest BIGINT NOT NULL)"
	selectServed = "SELECT name FROM %s.served_view WHERE id = 1"
)

// in puts the schema of the configuration, whose name is harmless, into a statement.
func (p *postgresServer) in(statement string) string { return fmt.Sprintf(statement, p.cfg.Schema) }

// viewName is the schema of a view.
func (p *postgresServer) viewName(number int64) string {
	return p.cfg.Schema + "_v" + strconv.FormatInt(number, 10)
}

// locked runs f on a connection that holds a lock which all receivers on the schema take for the same.
func (p *postgresServer) locked(ctx context.Context, f func(conn *sql.Conn) error) error {
	conn, err := p.admin.Conn(ctx)
	if err != nil {
		return err
	}
	err = p.underLock(ctx, conn, "views", f)
	return errors.Join(err, conn.Close())
}

// underLock waits for a lock. Others wait as long as the database lets them; it ends with the connection at the latest.
func (p *postgresServer) underLock(ctx context.Context, conn *sql.Conn, name string, f func(conn *sql.Conn) error) error {
	key := "harborseal " + p.cfg.Schema + " " + name
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", key); err != nil {
		return fmt.Errorf("waiting for other receivers: %w", err)
	}
	err := f(conn)
	_, unlocked := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)
	return errors.Join(err, unlocked)
}

// open makes the first view if there is none. Several receivers may start at once: one makes it, and brings the schema up to date.
func (p *postgresServer) open(ctx context.Context) (v *view, err error) {
	err = p.locked(ctx, func(conn *sql.Conn) error {
		if err := p.prepareSchema(ctx, conn); err != nil {
			return err
		}
		var name string
		if err := conn.QueryRowContext(ctx, p.in(selectServed)).Scan(&name); err != nil {
			return fmt.Errorf("asking which view is served: %w", err)
		}
		v, err = p.openSchema(ctx, name)
		return err
	})
	return v, err
}

// prepareSchema makes the schema of the configuration and the first view, or refuses a schema of somebody else.
func (p *postgresServer) prepareSchema(ctx context.Context, conn *sql.Conn) error {
	var tables, own int
	err := conn.QueryRowContext(ctx, "SELECT COUNT(*), COUNT(*) FILTER (WHERE tablename = 'served_view') FROM pg_catalog.pg_tables WHERE schemaname = $1", p.cfg.Schema).
		Scan(&tables, &own)
	switch {
	case err != nil:
		return fmt.Errorf("looking at the schema: %w", err)
	case own == 1:
		return nil
	case tables > 0:
		return fault.Newf(fault.Permanent, fault.StorageUnavailable,
			"the schema %s holds tables of another program: name one of its own for the ledger's view", p.cfg.Schema)
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE SCHEMA IF NOT EXISTS " + p.cfg.Schema,
		"CREATE SCHEMA " + p.viewName(1),
		p.in(createServed),
		p.in("INSERT INTO %s.served_view (id, name, newest) VALUES (1, '") + p.viewName(1) + "', 1)",
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return errors.Join(fmt.Errorf("making the schema: %w", err), tx.Rollback())
		}
	}
	return tx.Commit()
}

// moved asks for the name. A schema that somebody has dropped is lost as well.
func (p *postgresServer) moved(ctx context.Context, v *view) (moved, lost bool, err error) {
	var own, there int
	err = p.admin.QueryRowContext(ctx, "SELECT COUNT(*) FILTER (WHERE schemaname = $1 AND tablename = 'served_view'), "+
		"COUNT(*) FILTER (WHERE schemaname = $2 AND tablename = 'view_position') FROM pg_catalog.pg_tables", p.cfg.Schema, v.name).Scan(&own, &there)
	switch {
	case err != nil:
		return false, false, err
	case own == 0 && there == 0:
		return true, true, nil
	case own == 0:
		return false, false, fault.Newf(fault.Permanent, fault.StorageUnavailable,
			"the schema %[1]s has lost its table served_view: drop the schemas %[1]s_v*, and all is filled again", p.cfg.Schema)
	}
	var name string
	if err := p.admin.QueryRowContext(ctx, p.in(selectServed)).Scan(&name); err != nil {
		return false, false, err
	}
	if name == v.name && there == 0 {
		return true, true, p.forget(ctx, name)
	}
	return name != v.name, false, nil
}

// forget makes a new view in the place of one whose tables are gone, unless somebody has done so already.
func (p *postgresServer) forget(ctx context.Context, name string) error {
	return p.locked(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+name)
		return err
	})
}

// beside numbers views, so that no name comes twice.
func (p *postgresServer) beside(ctx context.Context) (_ *view, unlock func(), err error) {
	conn, err := p.admin.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	key := "harborseal " + p.cfg.Schema + " rebuild"
	unlock = func() {
		// The lock ends with the connection, if not by this.
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)
		_ = conn.Close()
	}
	var mine bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key).Scan(&mine); err != nil || !mine {
		if err == nil {
			err = fault.Newf(fault.Transient, fault.StorageUnavailable, "another receiver is building a view: wait until it is done")
		}
		return nil, nil, errors.Join(err, conn.Close())
	}
	v, err := p.besideLocked(ctx)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return v, unlock, nil
}

// besideLocked removes what earlier rebuilds have left, and makes another view.
func (p *postgresServer) besideLocked(ctx context.Context) (*view, error) {
	if err := p.sweep(ctx); err != nil {
		return nil, err
	}
	var number int64
	if err := p.admin.QueryRowContext(ctx, p.in("UPDATE %s.served_view SET newest = newest + 1 WHERE id = 1 RETURNING newest")).Scan(&number); err != nil {
		return nil, fmt.Errorf("numbering a view: %w", err)
	}
	name := p.viewName(number)
	if _, err := p.admin.ExecContext(ctx, "CREATE SCHEMA "+name); err != nil {
		return nil, fmt.Errorf("making a view: %w", err)
	}
	v, err := p.openSchema(ctx, name)
	if err != nil {
		return nil, errors.Join(err, p.drop(context.WithoutCancel(ctx), name))
	}
	return v, nil
}

// sweep drops the views that are not served. Nobody builds one meanwhile.
func (p *postgresServer) sweep(ctx context.Context) error {
	rows, err := p.admin.QueryContext(ctx, p.in("SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname ~ ('^' || $1 || '_v[1-9][0-9]*$') "+
		"AND nspname <> ("+selectServed+")"), p.cfg.Schema)
	if err != nil {
		return fmt.Errorf("looking for views: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("looking for views: %w", err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("looking for views: %w", err)
	}
	for _, name := range names {
		if err := p.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// promote is one transaction: a crash leaves the old view or the new one, and writers of the old one find another generation.
func (p *postgresServer) promote(ctx context.Context, old, next *view) (done bool, err error) {
	tx, err := p.admin.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() {
		if !done {
			_ = tx.Rollback() // err says more
		}
	}()
	of := func(v *view) string {
		return strings.Replace(selectPosition, "view_position", v.name+".view_position", 1)
	}
	setOf := func(v *view) string {
		return numbered(strings.Replace(setGeneration, "view_position", v.name+".view_position", 1))
	}
	was, err := scanPosition(tx.QueryRowContext(ctx, of(old)+p.dialect.lock))
	if err != nil {
		return false, err
	}
	now, err := scanPosition(tx.QueryRowContext(ctx, of(next)+p.dialect.lock))
	if err != nil || was.Seq > now.Seq && was.Stream.Equal(now.Stream) {
		return false, err
	}
	for _, v := range []*view{old, next} {
		if _, err := tx.ExecContext(ctx, setOf(v), int64(was.Generation)+1); err != nil { //nolint:gosec // it counts from 0
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, p.in("UPDATE %s.served_view SET name = $1 WHERE id = 1"), next.name); err != nil {
		return false, err
	}
	if err := tx.Commit(); err != nil {
		return false, err
	}
	done = true
	return true, nil
}

// drop waits for readers of other receivers, which let go of the view when they ask where it stands.
func (p *postgresServer) drop(ctx context.Context, name string) error {
	if _, err := p.admin.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+name+" CASCADE"); err != nil {
		return fmt.Errorf("dropping the view %s: %w", name, err)
	}
	return nil
}
