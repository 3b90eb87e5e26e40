//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// A ledger that somebody has replaced with an older copy of itself, with its signatures and all, is missed by whoever knows a later
// checkpoint: the second place, and the service when it starts. The checkpoints of an epoch of its own go on above it.
func TestLedgerThatWentBack(t *testing.T) {
	t.Parallel()
	names := someProjects(1)
	m := newManaged(t, env.harbor, names)
	m.enable(t, names[0], settings{"backfill": "none"})
	pushed := []harness.Pushed{m.pushInto(t, names[0]+"/app", "v1")}
	m.awaitSigned(t, pushed...)
	m.awaitReceiver(t, 1, "harborseal_ledger_checkpoint_events")
	restart := func(between func()) {
		t.Helper()
		if err := m.Receiver.Process.Stop(); err != nil {
			t.Fatal(err)
		}
		between()
		if err := m.StartProgram(t.Context(), m.Receiver); err != nil {
			t.Fatal(err)
		}
	}
	older := m.StoreDir() + "-older"
	restart(func() {
		if err := os.CopyFS(older, os.DirFS(m.StoreDir())); err != nil {
			t.Fatal(err)
		}
	})
	covered := func() float64 {
		t.Helper()
		metrics, err := m.Metrics(t.Context(), m.Receiver)
		if err != nil {
			t.Fatal(err)
		}
		return metrics.Sum("harborseal_ledger_checkpoint_events")
	}
	m.awaitReceiver(t, 1, "harborseal_ledger_checkpoint_events")
	before := covered()
	pushed = append(pushed, m.pushInto(t, names[0]+"/app", "v2"))
	m.awaitSigned(t, pushed...)
	m.awaitReceiver(t, before+2, "harborseal_ledger_checkpoint_events")
	for _, words := range [][]string{{"ledger", "verify"}, {"ledger", "verify", "--checkpoints", m.Checkpoints()}} {
		m.receiverDoes(t, words...)
	}

	restart(func() {
		if err := os.RemoveAll(m.StoreDir()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(older, m.StoreDir()); err != nil {
			t.Fatal(err)
		}
	})
	m.awaitReceiver(t, 1, "harborseal_ledger_tampered")
	out, err := m.command(t, env.programs.Receiver, m.Receiver, "ledger", "verify", "--checkpoints", m.Checkpoints())
	if err == nil || !strings.Contains(out, "rolled_back") {
		t.Errorf("receiver ledger verify: %v, %s; want a failure that says that the ledger went back", err, out)
	}
	// A signer that knows newer policies does not go on with older ones; started again, it finds what was lost: the registry is the truth.
	if err := m.Signers[0].Process.Await(); err == nil {
		t.Error("the signer ended without an error")
	}
	if err := m.StartProgram(t.Context(), m.Signers[0]); err != nil {
		t.Fatal(err)
	}
	m.sweep(t, names[0])
	m.awaitSigned(t, pushed...)
}

// awaitReceiver waits until a metric of the receiver has reached a value.
func (m *managed) awaitReceiver(t *testing.T, want float64, name string) {
	t.Helper()
	m.until(t, func(ctx context.Context) error {
		metrics, err := m.Metrics(ctx, m.Receiver)
		if err != nil {
			return err
		}
		if got := metrics.Sum(name); got < want {
			return fmt.Errorf("%s is %v, want at least %v", name, got, want)
		}
		return nil
	})
}
