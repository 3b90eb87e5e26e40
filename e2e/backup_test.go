//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/ledger/postgrestest"
)

// postgres is a server with the database of a receiver's report, which both end with the test.
type postgres struct {
	*postgrestest.Server

	database string
}

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	server, err := postgrestest.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := env.later(func() { _ = server.Close() })
	t.Cleanup(func() {
		defer closed()
		if err := server.Close(); err != nil {
			t.Errorf("ending PostgreSQL: %v", err)
		}
	})
	p := &postgres{Server: server}
	if p.database, err = server.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// used has receivers keep their report there.
func (p *postgres) used(o *harness.Options) {
	edit := o.EditReceiver
	o.Also = append(o.Also, p.Address)
	o.EditReceiver = func(c harness.Config) {
		harness.Set(c, "postgres", "ledger", "database")
		harness.Set(c, harness.Config{"address": p.Address, "name": p.database, "username": postgrestest.User, "allow_plaintext": true}, "ledger", "postgres")
		if edit != nil {
			edit(c)
		}
	}
}

// wiped has its report forgotten.
func (p *postgres) wiped(t *testing.T) {
	t.Helper()
	if err := p.Exec(t.Context(), "postgres", "DROP DATABASE "+p.database+" WITH (FORCE)"); err != nil {
		t.Fatal(err)
	}
	if err := p.Exec(t.Context(), "postgres", "CREATE DATABASE "+p.database); err != nil {
		t.Fatal(err)
	}
}

// command runs a subcommand of a program with the configuration of the first receiver, or signer, and gives what it printed.
func (w *world) command(t *testing.T, program string, of *harness.Program, words ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(words, "--config", filepath.Join(w.dir, of.Name+".yaml"))...) //nolint:gosec // the program under test
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) receiverDoes(t *testing.T, words ...string) string {
	t.Helper()
	out, err := w.command(t, env.programs.Receiver, w.Receiver, words...)
	if err != nil {
		t.Fatalf("receiver %v: %v\n%s", words, err, out)
	}
	return out
}

// A queue that is lost comes back from its backup: what it held is there, what came later is found, and nothing is signed before
// somebody has looked at the policies.
func TestBackup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		postgres bool
	}{{"sqlite", false}, {"postgres", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var options []option
			var database *postgres
			if tt.postgres {
				database = startPostgres(t)
				options = append(options, database.used)
			}
			names := someProjects(1)
			m := newManaged(t, env.harbor, names, options...)
			project := names[0]
			m.enable(t, project, settings{"backfill": "all"})
			before := m.pushInto(t, project+"/app", "before")
			m.awaitSigned(t, before)
			m.awaitReceiver(t, 1, "harborseal_ledger_checkpoint_epoch")
			backup := filepath.Join(m.dir, "backup")
			m.receiverDoes(t, "backup", backup)
			m.receiverDoes(t, "restore", backup, "--check")
			if out, err := m.command(t, env.programs.Receiver, m.Receiver, "backup", backup); err == nil {
				t.Errorf("a backup over another one: %s", out)
			}
			after := m.pushInto(t, project+"/app", "after")
			m.awaitSigned(t, after)
			// Nobody signs the last one, and nobody will know that it was asked for.
			if err := m.Signers[0].Process.Stop(); err != nil {
				t.Fatal(err)
			}
			unsigned := m.pushInto(t, project+"/app", "unsigned")
			m.awaitState(t, unsigned, "pending")

			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
			if out, err := m.command(t, env.programs.Receiver, m.Receiver, "restore", backup); err == nil {
				t.Errorf("a restore over a queue that is not empty: %s", out)
			}
			for _, path := range []string{m.StoreDir(), m.LedgerPath(), m.LedgerPath() + "-wal", m.LedgerPath() + "-shm"} {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if database != nil {
				database.wiped(t)
			}
			m.damagedIsRefused(t, backup)
			m.receiverDoes(t, "restore", backup)
			if err := m.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The full sweep has found what the backup does not know. Nothing is signed, though: the policies are those of before.
			late := m.pushInto(t, project+"/app", "late")
			m.awaitState(t, before, "signed")
			m.awaitState(t, late, "pending")
			m.mustSigner(t, "", "resume")
			m.awaitSigned(t, before, after, unsigned, late)

			// The record goes on in an epoch of its own, and fits.
			m.awaitReceiver(t, 2, "harborseal_ledger_checkpoint_epoch")
			out := m.receiverDoes(t, "ledger", "verify", "-o", "json")
			var verified struct {
				OK     bool `json:"ok"`
				Epochs []any
			}
			if err := json.Unmarshal([]byte(out), &verified); err != nil || !verified.OK {
				t.Fatalf("ledger verify: %v, %s", err, out)
			}
			if len(verified.Epochs) != 2 {
				t.Errorf("the ledger has %d epochs, want another one since the restore: %s", len(verified.Epochs), out)
			}
			events, err := m.OpenLedger()
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			if restored, err := events.Events(t.Context(), "restored"); err != nil || len(restored) != 1 {
				t.Errorf("events that tell of the restore: %d, %v; want one", len(restored), err)
			}
		})
	}
}

// damagedIsRefused restores from a copy with another byte.
func (m *managed) damagedIsRefused(t *testing.T, backup string) {
	t.Helper()
	copied := backup + "-damaged"
	if err := os.CopyFS(copied, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(copied, "LEDGER*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the backup has no file of the ledger: %v", err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(files[0], content, 0o600); err != nil { //nolint:gosec // a folder of the test
		t.Fatal(err)
	}
	if out, err := m.command(t, env.programs.Receiver, m.Receiver, "restore", copied); err == nil {
		t.Errorf("a damaged backup was restored: %s", out)
	}
}

// A database that is away holds up nobody: pushes are taken and signed, the receiver stays ready and says what is not, and the report
// is complete once the database is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	database := startPostgres(t)
	names := someProjects(1)
	m := newManaged(t, env.harbor, names, database.used)
	m.enable(t, names[0], settings{"backfill": "none"})
	m.awaitSigned(t, m.pushInto(t, names[0]+"/app", "before"))
	if err := database.Down(); err != nil {
		t.Fatal(err)
	}
	pushed := m.pushInto(t, names[0]+"/app", "meanwhile")
	m.untilTrue(t, func() error {
		found, err := m.checker.Look(t.Context(), pushed.Repository, pushed.Digest)
		if err == nil && len(found.Formats()) == 0 {
			err = errors.New("nobody has signed it")
		}
		return err
	})
	status, body, err := m.readiness(t)
	if err != nil || status != http.StatusOK || !strings.Contains(body, `"name":"report","ok":false`) {
		t.Errorf("GET /readyz = %d %s, %v; want 200 that says how the report stands", status, body, err)
	}
	if err := database.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.awaitSigned(t, pushed)
	m.receiverDoes(t, "ledger", "rebuild")
	m.awaitSigned(t, pushed)
}

func (m *managed) readiness(t *testing.T) (status int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.Receiver.Ops+"/readyz", nil)
	if err != nil {
		return 0, "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{}}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}
