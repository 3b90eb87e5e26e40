package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/ledger/postgrestest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// envServer hands the address of the server to the tests: no variable of the package does.
const envServer = "HARBORSEAL_SQLDB_TEST_POSTGRES"

// TestMain starts one PostgreSQL for all tests, each of which has a database of its own.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	server, err := postgrestest.Start(context.Background(), nil)
	switch {
	case errors.Is(err, postgrestest.ErrMissing):
		fmt.Fprintln(os.Stderr, "tests on PostgreSQL are left out:", err)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	default:
		if err := os.Setenv(envServer, server.Address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	if server != nil {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// database is a database that a test may open as often as it likes.
type database struct {
	name string
	cfg  sqldb.Config
	// served opens the tables that are served, without the store.
	served func(tb testing.TB) *sql.DB
}

func sqliteDatabase(tb testing.TB) database {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "ledger.db")
	return database{name: "sqlite", cfg: sqldb.Config{Path: path}, served: func(tb testing.TB) *sql.DB {
		tb.Helper()
		if name, err := os.ReadFile(path + ".current"); err == nil { //nolint:gosec // a file of the test
			return raw(tb, filepath.Join(filepath.Dir(path), string(name[:len(name)-1])))
		}
		return raw(tb, path)
	}}
}

// postgresDatabase makes a database, or skips the test where there is no PostgreSQL.
func postgresDatabase(tb testing.TB) database {
	tb.Helper()
	address := os.Getenv(envServer)
	if address == "" {
		tb.Skip("there is no PostgreSQL")
	}
	url := func(name string) string {
		return "postgresql://" + postgrestest.User + "@" + address + "/" + name + "?sslmode=disable"
	}
	admin := rawPostgres(tb, url("postgres"))
	var name string
	if err := admin.QueryRowContext(tb.Context(), "SELECT 'test_' || COUNT(*) || '_' || pg_backend_pid() FROM pg_database").Scan(&name); err != nil {
		tb.Fatal(err)
	}
	exec(tb, admin, "CREATE DATABASE "+name)
	tb.Cleanup(func() {
		if _, err := admin.ExecContext(context.WithoutCancel(tb.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("dropping the database: %v", err)
		}
	})
	return database{
		name: "postgres", cfg: sqldb.Config{Postgres: &sqldb.Postgres{Address: address, Name: name, Username: postgrestest.User, KeepReplaced: time.Millisecond}},
		served: func(tb testing.TB) *sql.DB {
			tb.Helper()
			var schema string
			if err := rawPostgres(tb, url(name)).QueryRowContext(tb.Context(), "SELECT name FROM harborseal.served_view").Scan(&schema); err != nil {
				tb.Fatal(err)
			}
			return rawPostgres(tb, url(name)+"&search_path="+schema)
		},
	}
}

func rawPostgres(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("closing: %v", err)
		}
	})
	return db
}

// onBoth runs a test on both databases.
func onBoth(t *testing.T, test func(t *testing.T, d database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteDatabase(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, postgresDatabase(t)) })
}

// open opens a store on the database, and closes it with the test.
func (d database) open(tb testing.TB) *sqldb.Store {
	tb.Helper()
	store, err := sqldb.Open(tb.Context(), d.cfg)
	if err != nil {
		tb.Fatalf("Open(%s): %v", d.name, err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return store
}
