package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// schemaTable holds which migrations have been applied.
const schemaTable = "ledger_schema"

// defaultReaders is enough to keep the disk busy.
const defaultReaders = 4

// Config says which database to use.
type Config struct {
	// Path is the SQLite file. It is made if it is missing; its folder must exist.
	Path string
	// Readers is how many queries run at the same time; 0 means 4.
	Readers int
	// Logger gets an error if a damaged database is set aside. The zero value is silent.
	Logger zerolog.Logger
}

// Store is a view in a database. It is safe for concurrent use. Its errors are faults, transient unless a person has to
// do something, except [ledger.ErrOtherBasis], [ledger.InvalidQueryError] and those of a context that is done.
type Store struct {
	dialect dialect
	write   *sql.DB
	read    *sql.DB
	stmts   statements
}

// Open opens the database, checks that it is whole, and brings its schema up to date. It refuses a schema that is newer
// than this program, and a database that holds other tables. The caller must Close the store.
//
// A damaged database is set aside: its files are renamed to *.damaged-<unix time>, for people to look at, and a new one
// is made. Nothing is lost by that, because the view is filled again from the stream.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("opening the ledger's view: no path is given")
	}
	if cfg.Readers == 0 {
		cfg.Readers = defaultReaders
	}
	s := &Store{dialect: sqliteDialect()}
	err := s.open(ctx, cfg)
	if err != nil && ctx.Err() == nil && s.dialect.damaged(err) {
		aside, failed := setAside(cfg.Path, time.Now())
		if failed != nil {
			return nil, s.fail(ctx, "opening the ledger's view", errors.Join(err, failed))
		}
		cfg.Logger.Error().Err(err).Str("file", cfg.Path).Str("set_aside", aside).
			Msg("database of the ledger's view is damaged; it was set aside, and a new one is filled from the stream")
		err = s.open(ctx, cfg)
	}
	if err != nil {
		return nil, s.fail(ctx, "opening the ledger's view", err)
	}
	return s, nil
}

// open leaves no connection open if it fails.
func (s *Store) open(ctx context.Context, cfg Config) (err error) {
	if s.write, s.read, err = openSQLite(ctx, cfg.Path, cfg.Readers); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// What closing says adds nothing: a damaged database says the same once more.
			_ = s.Close()
		}
	}()
	if err := s.dialect.check(ctx, s.write); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	s.stmts, err = prepare(ctx, s.write, s.dialect)
	return err
}

// Close ends all connections. It waits for queries in progress.
func (s *Store) Close() error {
	return errors.Join(s.stmts.close(), s.read.Close(), s.write.Close())
}

// migrate applies what is missing. Each migration is one transaction: a crash leaves it applied or not.
func (s *Store) migrate(ctx context.Context) error {
	files, err := s.dialect.migrations()
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	var tables, own int
	err = s.write.QueryRowContext(ctx, s.dialect.tables).Scan(&tables)
	if err != nil {
		return fmt.Errorf("looking at the schema: %w", err)
	}
	provider, err := goose.NewProvider(s.dialect.goose, s.write, files,
		goose.WithTableName(schemaTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if tables > 0 {
		err = s.write.QueryRowContext(ctx, s.dialect.rebind(s.dialect.tables+" AND name = ?"), schemaTable).Scan(&own)
		if err != nil {
			return fmt.Errorf("looking at the schema: %w", err)
		}
		if own == 0 {
			return fault.Newf(fault.Permanent, fault.StorageUnavailable,
				"the database holds tables of another program: name a file of its own for the ledger's view")
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

// Position gives how far the view has come.
func (s *Store) Position(ctx context.Context) (ledger.Position, error) {
	position, err := scanPosition(s.read.QueryRowContext(ctx, selectPosition))
	if err != nil {
		return ledger.Position{}, s.fail(ctx, "reading the position", err)
	}
	return position, nil
}

// Reset deletes all rows and begins anew, provided that the view still stands where the caller saw it.
func (s *Store) Reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error) {
	next := ledger.Position{Basis: ledger.Basis{Stream: stream, Rules: rules, Generation: seen.Generation + 1}}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		position, err := scanPosition(tx.StmtContext(ctx, s.stmts.lockPosition).QueryRowContext(ctx))
		if err != nil {
			return err
		}
		if !position.Equal(seen) {
			return ledger.ErrOtherBasis
		}
		for _, empty := range []string{"DELETE FROM tags", "DELETE FROM parents", "DELETE FROM units", "DELETE FROM project_events", "DELETE FROM outages"} {
			if _, err := tx.ExecContext(ctx, empty); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, s.dialect.rebind(
			"UPDATE view_position SET stream_created = ?, rules = ?, generation = ?, seq = 0 WHERE id = 1"),
			stream.UTC().Format(time.RFC3339Nano), next.Rules, next.Generation)
		return err
	})
	if err != nil {
		return ledger.Position{}, s.fail(ctx, "resetting the view", err)
	}
	return next, nil
}

// transaction runs f in a transaction of the writer. A crash before the commit undoes everything, one after it nothing.
func (s *Store) transaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// fail gives an error its kind.
func (s *Store) fail(ctx context.Context, doing string, err error) error {
	var known *fault.Error
	switch {
	case ctx.Err() != nil:
		// What the database says when it is interrupted is of no interest.
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case errors.Is(err, ledger.ErrOtherBasis):
		return fmt.Errorf("%s: %w", doing, ledger.ErrOtherBasis)
	case errors.As(err, &known):
		return fmt.Errorf("%s: %w", doing, err)
	case s.dialect.damaged(err):
		return fault.Newf(fault.Permanent, fault.StorageUnavailable,
			"%s: the database is damaged: start this program again, which sets the file aside and fills a new one: %w", doing, err)
	default:
		return fault.Newf(fault.Transient, fault.StorageUnavailable, "%s: %w", doing, err)
	}
}

func scanPosition(row *sql.Row) (ledger.Position, error) {
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
