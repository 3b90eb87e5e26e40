//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// onPostgres has the receiver keep its report in a database of a server that ends with the test.
func onPostgres(t *testing.T) option {
	t.Helper()
	server, err := harness.StartPostgres(t.Context(), filepath.Join(t.TempDir(), "postgres.log"))
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
	if err := server.Create(t.Context(), "report", "SELECT 1;"); err != nil {
		t.Fatal(err)
	}
	return func(o *harness.Options) {
		edit := o.EditReceiver
		o.Also = append(o.Also, server.Address)
		o.EditReceiver = func(c harness.Config) {
			harness.Set(c, "postgres", "ledger", "database")
			harness.Set(c, harness.Config{"address": server.Address, "name": "report", "username": "harborseal", "allow_plaintext": true}, "ledger", "postgres")
			if edit != nil {
				edit(c)
			}
		}
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
			if tt.postgres {
				options = append(options, onPostgres(t))
			}
			names := someProjects(1)
			m := newManaged(t, env.harbor, names, options...)
			project := names[0]
			m.enable(t, project, settings{"backfill": "all"})
			before := m.pushInto(t, project+"/app", "before")
			m.awaitSigned(t, before)
			backup := filepath.Join(m.dir, "backup")
			m.receiverDoes(t, "backup", backup)
			m.receiverDoes(t, "restore", backup, "--check")
			if out, err := m.command(t, env.programs.Receiver, m.Receiver, "backup", backup); err == nil {
				t.Errorf("a backup over another one: %s", out)
			}
			after := m.pushInto(t, project+"/app", "after")
			m.awaitSigned(t, after)

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
			m.awaitSigned(t, before, after, late)

			// The record goes on in an epoch of its own, and fits.
			out := m.receiverDoes(t, "ledger", "verify", "-o", "json")
			var verified struct {
				OK     bool `json:"ok"`
				Epochs []any
			}
			if err := json.Unmarshal([]byte(out), &verified); err != nil || !verified.OK {
				t.Fatalf("ledger verify: %v, %s", err, out)
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
