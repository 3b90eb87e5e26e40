package sqldb_test

import (
	"os"
	command "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/postgrestest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

func projector(t *testing.T, stream *ledgertest.Stream, store *sqldb.Store) *ledger.Projector {
	t.Helper()
	p, err := ledger.NewProjector(ledger.ProjectorConfig{Source: stream, View: store, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatalf("NewProjector: %v", err)
	}
	background(t, p.Run)
	return p
}

// TestFileIsDeletedWhileItRuns fills another one.
func TestFileIsDeletedWhileItRuns(t *testing.T) {
	stream, last := filled(t, 20)
	d := sqliteDatabase(t)
	store := d.open(t)
	projecting(t, stream, store)
	reached(t, store, last)
	want := dump(t, d.served(t))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(d.cfg.Path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "filled again", func() bool {
		position, err := store.Position(t.Context())
		return err == nil && position.Seq == last
	})
	if got := dump(t, d.served(t)); len(got["units"]) == 0 {
		t.Error("the new file is empty")
	} else {
		sameTables(t, "filled again", got, want)
	}
}

// TestFullDisk has the projection stop and go on, on a file system of its own. Reading works all along.
func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	//nolint:gosec // the folder is the test's
	if out, err := command.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "harborseal-test", folder).CombinedOutput(); err != nil {
		t.Skipf("a file system cannot be mounted: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := command.Command("umount", "-l", folder).CombinedOutput(); err != nil { //nolint:gosec,noctx // the context is done by then
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	d := database{name: "sqlite", cfg: sqldb.Config{Path: filepath.Join(folder, "ledger.db")}}
	stream := ledgertest.NewStream(ledgertest.Epoch())
	store := d.open(t)
	p := projector(t, stream, store)
	first := stream.Append(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1)))
	reached(t, store, first)
	ballast := filepath.Join(folder, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); err == nil {
		t.Fatal("64 MiB fit into 32")
	}
	last := first
	for n := range 3000 {
		last = stream.Append(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 2+n%300)))
	}
	until(t, "the projection has stopped", func() bool { return p.Status().State == ledger.ProjectionStopped })
	if got := p.Status(); !strings.Contains(got.Error, "full") || got.Since == nil || got.Position >= last {
		t.Errorf("Status() = %+v, want that the disk is full", got)
	}
	if rows := ledgertest.All(t, store, ledger.Query{}); len(rows) == 0 {
		t.Error("no rows while the disk is full")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	reached(t, store, last)
	until(t, "the projection goes on", func() bool { return p.Status().State == ledger.ProjectionFollowing })
}

// TestServerGoesAway starts without a server, fills a view when it comes, and goes on after it was away; and after somebody has dropped
// everything.
func TestServerGoesAway(t *testing.T) {
	server, err := postgrestest.Start(t.Context(), nil)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	name, err := server.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	stream, last := filled(t, 5)
	d := database{name: "postgres", cfg: sqldb.Config{Postgres: &sqldb.Postgres{Address: server.Address, Name: name, Username: postgrestest.User}}}
	store := d.open(t)
	p := projector(t, stream, store)
	_, err = store.Signatures(t.Context(), ledger.Query{})
	if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.StorageUnavailable {
		t.Errorf("Signatures() = %v (%+v), want a transient fault of the storage", err, got)
	}
	until(t, "the projection has stopped", func() bool { return p.Status().State == ledger.ProjectionStopped })
	for range 2 {
		if err := server.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		reached(t, store, last)
		if err := server.Down(); err != nil {
			t.Fatal(err)
		}
		last = stream.Append(ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", 1)))
		until(t, "the projection has stopped", func() bool { return p.Status().State == ledger.ProjectionStopped })
	}
	if err := server.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	reached(t, store, last)
	if err := server.Exec(t.Context(), name, "DROP SCHEMA harborseal CASCADE; DROP SCHEMA harborseal_v1 CASCADE"); err != nil {
		t.Fatal(err)
	}
	reached(t, store, last)
	if rows := ledgertest.All(t, store, ledger.Query{}); len(rows) == 0 {
		t.Error("no rows in what was filled again")
	}
}

// TestPasswordIsNowhere looks for it in errors, and changes it between connections.
func TestPasswordIsNowhere(t *testing.T) {
	d := postgresDatabase(t)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(cfg *sqldb.Postgres){
		func(cfg *sqldb.Postgres) { cfg.Username = "nobody-here" },
		func(cfg *sqldb.Postgres) { cfg.Name = "nowhere" },
		func(cfg *sqldb.Postgres) { cfg.Schema = "No" },
		func(cfg *sqldb.Postgres) { cfg.Address = "127.0.0.1:x" },
		func(cfg *sqldb.Postgres) { cfg.PasswordFile = file + "-missing" },
	} {
		cfg := *d.cfg.Postgres
		cfg.PasswordFile = file
		change(&cfg)
		var log strings.Builder
		store, err := sqldb.Open(t.Context(), sqldb.Config{Postgres: &cfg, Logger: zerolog.New(&log)})
		text := log.String()
		switch {
		case err != nil:
			text += err.Error()
		default:
			_, err = store.Position(t.Context())
			if err == nil {
				t.Errorf("%+v: no error", cfg)
			} else {
				text += err.Error()
			}
			if err := store.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if strings.Contains(text, "hunter2") || text == "" {
			t.Errorf("%q, want an error without the password", text)
		}
	}
}

// TestServerRefusesTheUser starts with a user, and with a database, that the server does not know: pushes must not wait for either.
func TestServerRefusesTheUser(t *testing.T) {
	d := postgresDatabase(t)
	for name, change := range map[string]func(p *sqldb.Postgres){
		"user":     func(p *sqldb.Postgres) { p.Username = "nobody_of_this_name" },
		"database": func(p *sqldb.Postgres) { p.Name = "nothing_of_this_name" },
	} {
		t.Run(name, func(t *testing.T) {
			refused := *d.cfg.Postgres
			change(&refused)
			store, err := sqldb.Open(t.Context(), sqldb.Config{Postgres: &refused})
			if err != nil {
				t.Fatalf("Open: %v, want a store that waits", err)
			}
			if _, err := store.Position(t.Context()); err == nil {
				t.Error("Position: no error")
			}
			if err := store.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}
