package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// defaultReaders is enough to keep the disk busy.
const defaultReaders = 4

// Config says which database to use: Path or Postgres is required, and not both.
type Config struct {
	// Path is the SQLite file. It is made if it is missing; its folder must exist.
	Path string
	// Postgres names a PostgreSQL database.
	Postgres *Postgres
	// Readers is how many queries run at the same time; 0 means 4.
	Readers int
	// Logger is told when a database is set aside, does not answer, or is replaced. The zero value is silent.
	Logger zerolog.Logger

	checkAtOnce int64 // of tests; 0 means checkAtOnce
}

// Store is a view in a database. It is safe for concurrent use. Its errors are faults, transient unless a person has to
// do something, except [ledger.ErrOtherBasis], [ledger.InvalidQueryError] and those of a context that is done.
//
// The tables that it serves can change beneath it: another receiver has put a new view in the place of the old one, or the file
// was deleted. [Store.Position] notices, so whoever follows the stream must ask for it now and then.
type Store struct {
	dialect dialect
	backend backend
	logger  zerolog.Logger

	ending  chan struct{} // closed by Close
	opening sync.Mutex    // held while a view is opened or put in the place of another

	mu      sync.Mutex
	current *view // guarded by mu: nil while there is none that can be used
	missing error // guarded by mu: why there is none
	closed  bool  // guarded by mu
}

// backend is where views are kept. Its methods are called by one goroutine at a time.
type backend interface {
	// open opens the view that is served, and makes it if there is none. It brings its schema up to date.
	open(ctx context.Context) (*view, error)
	// moved says whether what is served is another view than this one by now, or whether this one has lost its place: then
	// lost is true, and nobody may use it any more when the next one is opened.
	moved(ctx context.Context, v *view) (moved, lost bool, err error)
	// beside makes an empty view beside the one that is served, and keeps others from doing so until the function that it gives is called.
	beside(ctx context.Context) (v *view, unlock func(), err error)
	// promote makes next the view that is served, in the place of old, if the position of old is not beyond that of next: false if it
	// is. From then on nobody can write to old: its generation is another.
	promote(ctx context.Context, old, next *view) (bool, error)
	// keepReplaced is for how long other programs need a view that was replaced.
	keepReplaced() time.Duration
	// drop deletes a view that is closed and not served.
	drop(ctx context.Context, name string) error
	close() error
}

// Open opens the database, checks that it is whole (in the background, if it is large), and brings its schema up to date. It refuses a schema that is newer
// than this program, and a database that holds other tables. The caller must Close the store.
//
// A damaged SQLite database is set aside: its files are renamed to *.damaged-<unix time>, for people to look at, and a new one
// is made. Nothing is lost by that, because the view is filled again from the stream. A PostgreSQL server that does not answer, or
// refuses the user or the database, is no error: pushes do not depend on it. The store says so until [Store.Position] finds it there.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if (cfg.Path == "") == (cfg.Postgres == nil) {
		return nil, errors.New("opening the ledger's view: a path is required, or else a PostgreSQL database")
	}
	if cfg.Readers == 0 {
		cfg.Readers = defaultReaders
	}
	s := &Store{logger: cfg.Logger, ending: make(chan struct{})}
	if cfg.Postgres == nil {
		s.dialect = sqliteDialect()
		s.backend = &sqliteFiles{path: cfg.Path, readers: cfg.Readers, dialect: s.dialect, logger: cfg.Logger, checkAtOnce: cmp.Or(cfg.checkAtOnce, checkAtOnce)}
	} else {
		s.dialect = postgresDialect()
		server, err := newPostgresServer(*cfg.Postgres, s.dialect, cfg.Logger)
		if err != nil {
			return nil, fmt.Errorf("opening the ledger's view: %w", err)
		}
		s.backend = server
	}
	err := s.reopen(ctx)
	if err == nil {
		return s, nil
	}
	err = s.fail(ctx, "opening the ledger's view", err)
	var refused *pgconn.PgError // the server's own word: nothing that its tables say
	if cfg.Postgres == nil || ctx.Err() != nil || !fault.Is(err, fault.Transient) && !errors.As(err, &refused) {
		return nil, errors.Join(err, s.backend.close())
	}
	s.logger.Error().Err(err).Msg("database of the ledger's view cannot be used: it is filled once it can")
	return s, nil
}

// Close ends all connections. It waits for queries in progress. It must be called once.
func (s *Store) Close() error {
	close(s.ending)
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	v := s.current
	s.current, s.missing, s.closed = nil, errClosed, true
	s.mu.Unlock()
	if v == nil {
		return s.backend.close()
	}
	s.retire(v)
	<-v.ended
	return errors.Join(v.closing, s.backend.close())
}

// Position gives how far the view has come. It is the one that opens a view again which was lost.
func (s *Store) Position(ctx context.Context) (ledger.Position, error) {
	if err := s.settle(ctx); err != nil {
		return ledger.Position{}, s.fail(ctx, "opening the ledger's view again", err)
	}
	var position ledger.Position
	err := s.reading(ctx, "reading the position", func(tx *sql.Tx) (err error) {
		position, err = scanPosition(tx.QueryRowContext(ctx, selectPosition))
		return err
	})
	if err != nil {
		return ledger.Position{}, err
	}
	return position, nil
}

// Reset deletes all rows and begins anew, provided that the view still stands where the caller saw it.
func (s *Store) Reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error) {
	v, err := s.acquire()
	if err != nil {
		return ledger.Position{}, s.fail(ctx, "resetting the view", err)
	}
	defer s.release(v)
	next, err := v.reset(ctx, seen, stream, rules)
	if err != nil {
		return ledger.Position{}, s.fail(ctx, "resetting the view", err)
	}
	return next, nil
}

// transaction runs f in a transaction of the writer. A crash before the commit undoes everything, one after it nothing.
func (s *Store) transaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	v, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release(v)
	return v.transaction(ctx, f)
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
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Newf(fault.Transient, fault.Timeout, "%s: the database took too long: ask for less: %w", doing, context.DeadlineExceeded)
	default:
		kind, reason, what := s.dialect.kind(err)
		return fault.Newf(kind, reason, "%s: %s%w", doing, what, err)
	}
}
