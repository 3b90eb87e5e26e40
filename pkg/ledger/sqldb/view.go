package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// schemaTable holds which migrations have been applied.
const schemaTable = "ledger_schema"

var (
	errClosed = errors.New("the store is closed")
	// errLost says that what was being read is no longer there.
	errLost = fault.New(fault.Transient, fault.StorageUnavailable, errors.New("the database of the ledger's view was replaced meanwhile: ask again"))
)

// view is one set of tables: an SQLite file, or a schema of PostgreSQL.
type view struct {
	// name is the file, or the schema.
	name    string
	dialect dialect
	write   *sql.DB
	read    *sql.DB
	// batched runs f in a transaction of the writer, with its prepared statements.
	batched func(ctx context.Context, f func(s session) error) error
	// shut ends all connections.
	shut func() error
	// file is what SQLite has opened.
	file fs.FileInfo
	// damaged says that a check of what SQLite has opened has found damage.
	damaged atomic.Bool

	// life is done when nobody may use the view any more.
	life context.Context //nolint:containedctx // it is that of the view, not of a call
	kill context.CancelCauseFunc

	users   int           // guarded by Store.mu
	retired bool          // guarded by Store.mu: the last user closes it
	ended   chan struct{} // closed when all connections have ended
	closing error         // what closing them said; to be read after ended
}

// begun fills in what views have in common.
func (v *view) begun() *view {
	v.life, v.kill = context.WithCancelCause(context.Background())
	v.ended = make(chan struct{})
	return v
}

func (v *view) close() {
	v.kill(errLost)
	v.closing = v.shut()
	close(v.ended)
}

// acquire gives the view that is served. Whoever gets it must release it.
func (s *Store) acquire() (*view, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, s.missing
	}
	s.current.users++
	return s.current, nil
}

func (s *Store) release(v *view) {
	s.mu.Lock()
	v.users--
	last := v.users == 0 && v.retired
	s.mu.Unlock()
	if last {
		v.close()
	}
}

// retire closes a view that is no longer the current one when nobody uses it any more.
func (s *Store) retire(v *view) {
	s.mu.Lock()
	idle := v.users == 0 && !v.retired
	v.retired = true
	s.mu.Unlock()
	if idle {
		v.close()
	}
}

// settle makes sure that the current view is the one that is to be served.
func (s *Store) settle(ctx context.Context) error {
	s.opening.Lock()
	defer s.opening.Unlock()
	v, err := s.acquire()
	if errors.Is(err, errClosed) {
		return err
	}
	if err != nil {
		return s.reopen(ctx)
	}
	moved, lost, err := s.backend.moved(ctx, v)
	s.release(v)
	if err != nil || !moved {
		return err
	}
	s.logger.Warn().Str("view", v.name).Bool("lost", lost).Msg("database of the ledger's view was replaced and is opened again")
	if !lost {
		return s.reopen(ctx)
	}
	s.mu.Lock()
	s.current, s.missing = nil, errLost
	s.mu.Unlock()
	v.kill(errLost)
	s.retire(v)
	select {
	case <-v.ended: // what is opened next may have the same name
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.reopen(ctx)
}

// reopen opens the view that is to be served, and lets go of the one before.
func (s *Store) reopen(ctx context.Context) error {
	next, err := s.backend.open(ctx)
	if err != nil {
		s.mu.Lock()
		if s.current == nil {
			s.missing = s.fail(ctx, "opening the ledger's view", err)
		}
		s.mu.Unlock()
		return err
	}
	s.serve(next)
	return nil
}

// serve puts a view in the place of the current one, which it gives.
func (s *Store) serve(next *view) (old *view) {
	s.mu.Lock()
	old, s.current, s.missing = s.current, next, nil
	s.mu.Unlock()
	if old != nil {
		s.retire(old)
	}
	return old
}

// migrate applies what is missing. Each migration is one transaction: a crash leaves it applied or not.
func (v *view) migrate(ctx context.Context) error {
	files, err := v.dialect.migrations()
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	var tables, own int
	err = v.write.QueryRowContext(ctx, v.dialect.tables).Scan(&tables)
	if err != nil {
		return fmt.Errorf("looking at the schema: %w", err)
	}
	provider, err := goose.NewProvider(v.dialect.goose, v.write, files,
		goose.WithTableName(schemaTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if tables > 0 {
		err = v.write.QueryRowContext(ctx, v.dialect.rebind(v.dialect.tables+" AND name = ?"), schemaTable).Scan(&own)
		if err != nil {
			return fmt.Errorf("looking at the schema: %w", err)
		}
		if own == 0 {
			return fault.Newf(fault.Permanent, fault.StorageUnavailable,
				"the database holds tables of another program: name one of its own for the ledger's view")
		}
	}
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if current > known {
		return fault.Newf(fault.Permanent, fault.NewerVersion,
			"the database has schema version %d, this program knows up to %d: use the newer program, or delete the database and let it be rebuilt",
			current, known)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema from version %d to %d: %w", current, known, err)
	}
	return nil
}

// transaction runs f in a transaction of the writer.
func (v *view) transaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := v.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// viewTables are those that a reset empties.
func viewTables() []string {
	return []string{"tags", "parents", "unit_keys", "units", "project_counts", "day_counts", "sign_times", "project_events", "outages"}
}

func (v *view) reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error) {
	next := ledger.Position{Basis: ledger.Basis{Stream: stream, Rules: rules, Generation: seen.Generation + 1}}
	err := v.transaction(ctx, func(tx *sql.Tx) error {
		position, err := scanPosition(tx.QueryRowContext(ctx, selectPosition+v.dialect.lock))
		if err != nil {
			return err
		}
		if !position.Equal(seen) {
			return ledger.ErrOtherBasis
		}
		for _, table := range viewTables() {
			if _, err := tx.ExecContext(ctx, v.dialect.empty+table); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, v.dialect.rebind(
			"UPDATE view_position SET stream_created = ?, rules = ?, generation = ?, seq = 0 WHERE id = 1"),
			stream.UTC().Format(time.RFC3339Nano), next.Rules, int64(next.Generation)) //nolint:gosec // it counts from 0
		return err
	})
	return next, err
}

func scanPosition(row interface{ Scan(dest ...any) error }) (ledger.Position, error) {
	var position ledger.Position
	var created string
	if err := row.Scan(&created, &position.Rules, &position.Generation, &position.Seq); err != nil {
		return ledger.Position{}, err
	}
	if created == "" {
		return position, nil
	}
	stream, err := time.Parse(time.RFC3339Nano, created)
	if err != nil {
		return ledger.Position{}, fmt.Errorf("reading when the stream was created: %w", err)
	}
	position.Stream = stream
	return position, nil
}
