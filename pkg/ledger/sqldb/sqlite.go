package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/rs/zerolog"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/harborseal/harborseal/pkg/fault"
)

// errDamaged is what checkSQLite finds.
var errDamaged = errors.New("the database is damaged")

func sqliteDialect() dialect {
	return dialect{
		name:     "sqlite",
		goose:    goose.DialectSQLite3,
		rebind:   func(query string) string { return query },
		lock:     "", // writers begin with "immediate", which keeps all others away
		empty:    "DELETE FROM ",
		tables:   "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'",
		snapshot: &sql.TxOptions{ReadOnly: true},
		kind: func(err error) (fault.Kind, fault.Reason, string) {
			if damagedSQLite(err) {
				return fault.Permanent, fault.StorageUnavailable,
					"the database is damaged: start this program again, which sets the file aside and fills a new one: "
			}
			return fault.Transient, fault.StorageUnavailable, ""
		},
	}
}

// damagedSQLite says whether an error means that the database's content cannot be trusted any more.
func damagedSQLite(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// sqliteFiles keeps each view in a file. The first has the path of the configuration; one that was made anew beside another has a
// number at its end, and a file with the ending .current names it. Without that, the first is the one that is served.
type sqliteFiles struct {
	path    string
	readers int
	dialect dialect
	logger  zerolog.Logger
	// checkAtOnce is up to how many bytes a file is checked before it is used.
	checkAtOnce int64
	// damaged is the file in which damage was found while it was in use; empty for none.
	damaged string
}

// checkAtOnce takes half a second. Everything is checked in the background otherwise: that takes minutes for 10,000,000 digests, and
// pushes must not wait for it.
const checkAtOnce = 64 << 20

// pointer is the file that names the one that is served.
func (f *sqliteFiles) pointer() string { return f.path + ".current" }

// served gives the path of the file that is to be served.
func (f *sqliteFiles) served() (string, error) {
	text, err := os.ReadFile(f.pointer())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.path, nil
	case err != nil:
		return "", fmt.Errorf("reading which view is served: %w", err)
	}
	name := strings.TrimSuffix(string(text), "\n")
	if number, ok := strings.CutPrefix(name, filepath.Base(f.path)+"."); name != filepath.Base(f.path) && (!ok || !regexp.MustCompile(`^[1-9][0-9]{0,9}$`).MatchString(number)) {
		return "", fault.Newf(fault.Permanent, fault.StorageUnavailable, "the file %s names no view: delete it", f.pointer())
	}
	return filepath.Join(filepath.Dir(f.path), name), nil
}

func (f *sqliteFiles) open(ctx context.Context) (*view, error) {
	path, err := f.served()
	if err != nil {
		return nil, err
	}
	if f.damaged == path {
		f.damaged = ""
		return f.replace(ctx, path, errDamaged)
	}
	v, err := f.openFile(ctx, path)
	switch {
	case err == nil:
		if v.file.Size() > f.checkAtOnce {
			f.checkLater(v)
		}
		return v, nil
	case ctx.Err() != nil || !damagedSQLite(err):
		return nil, err
	default:
		return f.replace(ctx, path, err)
	}
}

// replace sets a damaged file aside, which nobody may have open, and makes a new one.
func (f *sqliteFiles) replace(ctx context.Context, path string, err error) (*view, error) {
	aside, failed := setAside(path, time.Now())
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	f.logger.Error().Err(err).Str("file", path).Str("set_aside", aside).
		Msg("database of the ledger's view is damaged; it was set aside, and a new one is filled from the stream")
	return f.openFile(ctx, path)
}

// openFile leaves no connection open if it fails.
func (f *sqliteFiles) openFile(ctx context.Context, path string) (_ *view, err error) {
	v := &view{name: path, dialect: f.dialect}
	if v.write, v.read, err = openSQLite(ctx, path, f.readers); err != nil {
		return nil, err
	}
	var statements preparedStatements
	v.shut = func() error { return errors.Join(statements.close(), v.read.Close(), v.write.Close()) }
	defer func() {
		if err != nil {
			// What closing says adds nothing: a damaged database says the same once more.
			_ = v.shut()
		}
	}()
	if v.file, err = os.Stat(path); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if v.file.Size() <= f.checkAtOnce {
		if err := checkSQLite(ctx, v.write); err != nil {
			return nil, err
		}
	}
	if err := v.migrate(ctx); err != nil {
		return nil, err
	}
	if statements, err = prepare(ctx, v.write); err != nil {
		return nil, err
	}
	v.batched = func(ctx context.Context, f func(s session) error) error {
		return v.transaction(ctx, func(tx *sql.Tx) error { return f(&preparedSession{tx: tx, statements: statements}) })
	}
	return v.begun(), nil
}

// checkLater looks for damage while the view is used. What it finds makes the view one that is lost: it is set aside when somebody asks
// for its position.
func (f *sqliteFiles) checkLater(v *view) {
	done, shut := make(chan struct{}), v.shut
	v.shut = func() error {
		<-done // whoever closes the view has ended its life
		return shut()
	}
	go func() {
		defer close(done)
		began := time.Now()
		err := checkFile(v.life, v.name)
		switch {
		case v.life.Err() != nil:
		case err == nil:
			f.logger.Info().Str("file", v.name).Dur("took", time.Since(began)).Msg("database of the ledger's view was checked")
		case damagedSQLite(err):
			v.damaged.Store(true)
		default:
			f.logger.Warn().Err(err).Str("file", v.name).Msg("database of the ledger's view could not be checked")
		}
	}()
}

// checkFile checks with a connection of its own: those of the view are for others.
func checkFile(ctx context.Context, path string) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("checking %s: %w", path, err)
	}
	db, err := open(ctx, absolute, "deferred", 1, []string{"busy_timeout(5000)", "trusted_schema(0)", "query_only(1)"})
	if err != nil {
		return err
	}
	return errors.Join(checkSQLite(ctx, db), db.Close())
}

func (f *sqliteFiles) moved(_ context.Context, v *view) (moved, lost bool, err error) {
	path, err := f.served()
	if err != nil {
		return false, false, err
	}
	if path != v.name {
		return true, false, nil
	}
	if v.damaged.Load() {
		f.damaged = path
		return true, true, nil
	}
	// What was deleted can still be written to, by those who have it open, and is gone with them.
	now, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, false, fmt.Errorf("looking at the database: %w", err)
	}
	lost = err != nil || !os.SameFile(v.file, now)
	return lost, lost, nil //nolint:nilerr // that it is not there is the answer
}

func (f *sqliteFiles) beside(ctx context.Context) (*view, func(), error) {
	served, err := f.served()
	if err != nil {
		return nil, nil, err
	}
	var number int
	if _, err := fmt.Sscanf(strings.TrimPrefix(served, f.path), ".%d", &number); err != nil {
		number = 0 // the first
	}
	path := fmt.Sprintf("%s.%d", f.path, number+1)
	// It may be there from an attempt that a crash has ended.
	if err := f.drop(ctx, path); err != nil {
		return nil, nil, err
	}
	v, err := f.openFile(ctx, path)
	if err != nil {
		return nil, nil, errors.Join(err, f.drop(ctx, path))
	}
	return v, func() {}, nil
}

// promote names the new file first. A crash before that leaves the old view, one after it the new one; a program that still has the
// old one open notices when it asks where the view stands.
func (f *sqliteFiles) promote(ctx context.Context, old, next *view) (done bool, err error) {
	err = old.transaction(ctx, func(tx *sql.Tx) error {
		was, err := scanPosition(tx.QueryRowContext(ctx, selectPosition))
		if err != nil {
			return err
		}
		now, err := scanPosition(next.read.QueryRowContext(ctx, selectPosition))
		if err != nil || was.Seq > now.Seq && was.Stream.Equal(now.Stream) {
			return err
		}
		if _, err := next.write.ExecContext(ctx, setGeneration, int64(was.Generation)+1); err != nil { //nolint:gosec // it counts from 0
			return err
		}
		if err := writeFile(f.pointer(), filepath.Base(next.name)+"\n"); err != nil {
			return err
		}
		done = true
		_, err = tx.ExecContext(ctx, setGeneration, int64(was.Generation)+1) //nolint:gosec // it counts from 0
		return err
	})
	return done, err
}

func (f *sqliteFiles) drop(_ context.Context, path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("deleting a view: %w", err)
		}
	}
	return nil
}

// A file that was deleted stays with those who have it open.
func (f *sqliteFiles) keepReplaced() time.Duration { return 0 }

func (f *sqliteFiles) close() error { return nil }

// writeFile replaces a small file as a whole: a crash leaves the old one or the new one.
func writeFile(path, text string) error {
	next := path + ".new"
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // beside the operator's file
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// checkSQLite finds damage that would otherwise show only when somebody asks for a row that lies there.
func checkSQLite(ctx context.Context, db *sql.DB) error {
	var found string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found); err != nil {
		return fmt.Errorf("checking the database: %w", err)
	}
	if found != "ok" {
		return fmt.Errorf("%w: %.200s", errDamaged, found)
	}
	return nil
}

// setAside renames a database's files, which nobody may have open, and gives the new name of the first. The log goes
// first: a crash in between leaves a damaged database, which the next start sets aside.
func setAside(path string, now time.Time) (string, error) {
	aside := fmt.Sprintf("%s.damaged-%d", path, now.Unix())
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("setting the damaged database aside: %w", err)
		}
	}
	return aside, nil
}

// openSQLite opens a writer with one connection and a pool of readers. The file is made if it is missing, readable by its
// owner alone, because pushers are people.
func openSQLite(ctx context.Context, path string, readers int) (write, read *sql.DB, err error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", path, err)
	}
	file, err := os.OpenFile(absolute, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, nil, fmt.Errorf("opening the database: %w", err)
	}
	common := []string{
		"busy_timeout(5000)",
		"journal_mode(WAL)",
		// With a write-ahead log, a power cut may undo the last transactions, never part of one. The position is undone
		// with them, and the events are read again.
		"synchronous(NORMAL)",
		"trusted_schema(0)",
		// The log of a rebuild is cut to 64 MiB afterwards.
		"journal_size_limit(67108864)",
	}
	write, err = open(ctx, absolute, "immediate", 1, common)
	if err != nil {
		return nil, nil, err
	}
	read, err = open(ctx, absolute, "deferred", readers, append(common, "query_only(1)"))
	if err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	return write, read, nil
}

func open(ctx context.Context, path, lock string, connections int, pragmas []string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas, "_txlock": {lock}}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	// Connections are kept for good, and with them the statements that were prepared on them.
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database: %w", err), db.Close())
	}
	return db, nil
}
