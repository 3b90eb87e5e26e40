//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// signer runs a command of the signer beside those that run.
func (m *managed) signer(t *testing.T, command string, args ...string) (string, error) {
	t.Helper()
	args = append([]string{command, "--config", filepath.Join(m.dir, m.Signers[0].Name+".yaml")}, args...)
	cmd := exec.CommandContext(t.Context(), env.programs.Signer, args...) //nolint:gosec // the program under test
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustSigner is signer for a command that has to succeed and to say something.
func (m *managed) mustSigner(t *testing.T, want, command string, args ...string) {
	t.Helper()
	if out, err := m.signer(t, command, args...); err != nil || !strings.Contains(out, want) {
		t.Fatalf("signer %s %q: %v\n%s\nwant success, and %q", command, args, err, out, want)
	}
}

// A pause stops all signers at once, in one project or in all. What is pushed meanwhile waits, and is signed when it ends.
func TestPause(t *testing.T) {
	t.Parallel()
	m := newManaged(t, env.harbor, someProjects(2), func(o *harness.Options) { o.Signers = 2 })
	one, other := m.projects[0], m.projects[1]
	for _, project := range m.projects {
		m.enable(t, project, settings{"backfill": "none"})
		m.awaitSigned(t, m.pushInto(t, project+"/app", "before"))
	}
	if out, err := m.signer(t, "pause", "--project", one); err == nil || !strings.Contains(out, "--reason") {
		t.Errorf("a pause without a reason: %v\n%s", err, out)
	}
	if out, err := m.signer(t, "pause", "--project", "No/Project", "--reason", "x"); err == nil {
		t.Errorf("a pause of what cannot be a project: success\n%s", out)
	}

	m.mustSigner(t, "is paused", "pause", "--project", one, "--reason", "the key may be stolen")
	m.mustSigner(t, "paused already", "pause", "--project", one, "--reason", "the key may be stolen")
	m.awaitPause(t, one, true)
	waiting := []harness.Pushed{m.pushInto(t, one+"/app", "v1"), m.pushInto(t, one+"/app", "v2")}
	m.awaitSigned(t, m.pushInto(t, other+"/app", "v1"))
	m.awaitWaiting(t, 2)
	m.unsigned(t, waiting...)
	m.mustSigner(t, "is paused", "pause", "--reason", "maintenance")
	m.awaitPause(t, other, true)
	waiting = append(waiting, m.pushInto(t, other+"/app", "v2"))
	m.awaitWaiting(t, 3)
	m.mustSigner(t, "goes on", "resume")
	m.awaitPause(t, other, false)
	// A request that waits looks after half a minute whether the pause is over, and a new one at once.
	m.awaitSigned(t, m.pushInto(t, other+"/app", "v3"))
	m.awaitPause(t, one, true)
	m.unsigned(t, waiting[:2]...)

	m.mustSigner(t, "goes on", "resume", "--project", one)
	m.mustSigner(t, "was not paused", "resume", "--project", one)
	m.awaitPause(t, one, false)
	m.awaitSigned(t, m.pushInto(t, one+"/app", "v3"))
	paused := m.awaitEvent(t, one, func(e occurrence) bool { return e.Kind == "paused" })
	resumed := m.awaitEvent(t, one, func(e occurrence) bool { return e.Kind == "resumed" })
	if paused.Actor == "" || paused.Change == nil || !strings.Contains(string(paused.Change.After), "the key may be stolen") ||
		resumed.Actor != paused.Actor || resumed.At.Before(paused.At) {
		t.Errorf("the events are %+v and %+v, want who, when and why", paused, resumed)
	}
	if n := len(slices.DeleteFunc(m.events(t, one), func(e occurrence) bool { return e.Kind != "paused" })); n != 1 {
		t.Errorf("there are %d events of one pause, want one", n)
	}
	for _, p := range waiting {
		m.eventually(t, func(ctx context.Context) error {
			row, err := m.row(ctx, p)
			if err == nil && row.State != "signed" {
				err = fmt.Errorf("%s@%s is %q (%s %s), want it signed", p.Repository, p.Digest, row.State, row.Reason, row.Detail)
			}
			return err
		})
	}
	m.judgeAll(t)
}

// awaitPause waits until the receiver says that a project is paused, or no longer.
func (m *managed) awaitPause(t *testing.T, project string, paused bool) {
	t.Helper()
	m.untilTrue(t, func() error {
		if state, _ := m.get(t, project); (state.Paused != nil) != paused {
			return errors.New("the receiver does not know yet whether " + project + " is paused")
		}
		return nil
	})
}

// awaitWaiting waits until the signers have put off so many attempts because of a pause.
func (m *managed) awaitWaiting(t *testing.T, want int) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		waited := 0.0
		for _, signer := range m.Signers {
			metrics, err := m.Metrics(ctx, signer)
			if err != nil {
				return err
			}
			waited += metrics.Sum("harborseal_signing_failures_total", `reason="paused"`)
		}
		if int(waited) < want {
			return errors.New("no signer has found that signing is paused")
		}
		return nil
	})
}
