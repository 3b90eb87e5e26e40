//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// olderCommit is the state of this repository whose programs installations are upgraded from: the last one before receivers and
// signers in any number.
const olderCommit = "883fc7c"

// errNoOlder says that there is nothing to build older programs from.
var errNoOlder = errors.New("the older commit is not there")

// buildOlder builds the programs of an earlier commit, in a folder of their own.
func buildOlder(ctx context.Context, dir string) (harness.Programs, error) {
	source, bin := filepath.Join(dir, "source"), filepath.Join(dir, "bin")
	for _, folder := range []string{source, bin} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return harness.Programs{}, err
		}
	}
	archive := filepath.Join(dir, "source.tar")
	// From its top folder: elsewhere an archive has only what is below.
	root, err := say(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return harness.Programs{}, fmt.Errorf("%w: %w", errNoOlder, err)
	}
	if _, err := say(ctx, strings.TrimSpace(root), "git", "archive", "-o", archive, olderCommit); err != nil {
		return harness.Programs{}, fmt.Errorf("%w: %w", errNoOlder, err)
	}
	if _, err := say(ctx, source, "tar", "-xf", archive); err != nil {
		return harness.Programs{}, err
	}
	if _, err := say(ctx, source, "go", "build", "-o", bin+string(filepath.Separator), "./cmd/receiver", "./cmd/signer"); err != nil {
		return harness.Programs{}, fmt.Errorf("building the older programs: %w", err)
	}
	return harness.Programs{
		Receiver: filepath.Join(bin, "receiver"), Signer: filepath.Join(bin, "signer"), Emulator: env.programs.Emulator,
	}, nil
}

// say runs a command in a folder and gives what it prints.
func say(ctx context.Context, dir, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...) //nolint:gosec // commands of this test
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running %s %s: %w: %s", command, args[0], err, out)
	}
	return string(out), nil
}

// upgrade is a system whose programs are replaced one by one while developers push.
type upgrade struct {
	*fleet
	older, newer harness.Programs
	load         *crowd
}

// replace stops a program as an operator does, starts it in the other version, and waits until the system has signed what is pushed
// from then on.
func (u *upgrade) replace(t *testing.T, p *harness.Program, with harness.Programs) {
	t.Helper()
	if err := p.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	path := with.Signer
	if strings.HasPrefix(p.Name, "receiver") {
		path = with.Receiver
		if with == u.older {
			// An older program may refuse the database of a newer one, and is told to make its own: it is a view of the ledger.
			u.removeView(t, p)
		}
	}
	p.Use(path)
	if err := u.StartProgram(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	from := u.load.count()
	u.load.further(t, 6)
	u.awaitSigned(t, u.load.since(from), time.Minute)
}

func (u *upgrade) removeView(t *testing.T, p *harness.Program) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(u.LedgerOf(p) + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// since gives what was pushed after the first n.
func (c *crowd) since(n int) []harness.Pushed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]harness.Pushed(nil), c.pushed[n:]...)
}

// Programs of an older release are replaced one by one while images are pushed, receivers first or signers first, and then put back
// in the same order: at each step old and new work together, nothing is lost, and everything is signed because of its webhook, once.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	older, err := env.older()
	if errors.Is(err, errNoOlder) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		// nodes are servers elsewhere; 0 for the embedded one.
		nodes, receivers int
		signersFirst     bool
	}{
		{"embedded, receiver first", 0, 1, false},
		{"embedded, signers first", 0, 1, true},
		{"cluster, signers first", 3, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.nodes > 0 {
				full(t)
			}
			f := newFleet(t, 2, 0.1, harness.NATSOptions{Nodes: tt.nodes, OneAccount: true}, func(o *harness.Options) {
				o.Programs.Receiver, o.Programs.Signer = older.Receiver, older.Signer
				o.Receivers, o.Older = tt.receivers, true
			})
			f.start(t)
			u := &upgrade{fleet: f, older: older, newer: env.programs, load: f.pushing(t, "app", 200*time.Millisecond)}
			u.load.further(t, 6)
			order := append(append([]*harness.Program(nil), f.Receivers...), f.Signers...)
			if tt.signersFirst {
				order = append(append([]*harness.Program(nil), f.Signers...), f.Receivers...)
			}
			for _, with := range []harness.Programs{u.newer, u.older} {
				for _, p := range order {
					u.replace(t, p, with)
				}
			}
			all := u.load.end()
			f.awaitSigned(t, all, 2*time.Minute)
			f.judgeFleet(t)
			t.Logf("of %d pushes, %s", len(all), f.tidings(t, all))
		})
	}
}
