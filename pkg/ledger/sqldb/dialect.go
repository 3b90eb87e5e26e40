package sqldb

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations
var migrations embed.FS

// dialect is all in which databases differ.
type dialect struct {
	name  string
	goose goose.Dialect
	// rebind turns the placeholders ? into those of the database.
	rebind func(query string) string
	// lock is appended to the query that must keep other writers away until the end of the transaction.
	lock string
	// tables counts the tables of the schema that the database's own catalogue lists.
	tables string
	// check looks through the whole database for damage, in the time that it takes to read it.
	check func(ctx context.Context, db *sql.DB) error
	// damaged says whether an error means that the database's content cannot be trusted any more.
	damaged func(error) bool
}

// errDamaged is what check finds.
var errDamaged = errors.New("the database is damaged")

// migrations gives the files of the dialect.
func (d dialect) migrations() (fs.FS, error) { return fs.Sub(migrations, "migrations/"+d.name) }

func sqliteDialect() dialect {
	return dialect{
		name:   "sqlite",
		goose:  goose.DialectSQLite3,
		rebind: func(query string) string { return query },
		lock:   "", // writers begin with "immediate", which keeps all others away
		tables: "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'",
		check:  checkSQLite,
		damaged: func(err error) bool {
			if errors.Is(err, errDamaged) {
				return true
			}
			var e *sqlite.Error
			if !errors.As(err, &e) {
				return false
			}
			code := e.Code() & 0xff
			return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
		},
	}
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
