//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// An image whose webhook never came is found by a sweep.
func TestLostWebhook(t *testing.T) {
	w := newWorld(t, func(o *harness.Options) { o.Sweep = 2 * time.Second })
	w.lose(t, func() {
		index, err := harness.NewIndex("linux/amd64")
		w.push(t, "app", "v1", index, err)
		w.pushImage(t, "team/app", "")
	})
	w.awaitAll(t)
	for _, p := range w.pushed {
		if row := w.awaitState(t, p, "signed"); row.ReceivedAt != nil {
			t.Errorf("%s has a webhook of %s, want none", p.Digest, row.ReceivedAt)
		}
	}
}

// A push during which the receiver is away is reported again by Harbor.
func TestReceiverAway(t *testing.T) {
	w := newWorld(t)
	if err := w.Receiver.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	w.pushImage(t, "app", "v1")
	if env.harbor.Emulated {
		w.until(t, func(ctx context.Context) error {
			stats, err := env.harbor.Stats(ctx)
			if err == nil && stats.Webhooks.Pending == 0 {
				err = errors.New("no webhook waits for another attempt")
			}
			return err
		})
	}
	if err := w.StartProgram(t.Context(), w.Receiver); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
}

// What the receiver has acknowledged survives its SIGKILL, and the signers find their way back to it.
func TestReceiverKilled(t *testing.T) {
	const pushes = 10
	w := prepareWorld(t)
	ctx := t.Context()
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	for i := range pushes {
		w.pushImage(t, "app", fmt.Sprintf("v%d", i))
	}
	w.awaitQueued(t, pushes)
	if err := w.Receiver.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A signer that starts while the queue is away waits for it.
	if err := w.LaunchProgram(ctx, w.Signers[0]); err != nil {
		t.Fatal(err)
	}
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	if err := w.AwaitReady(ctx, w.Signers[0]); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
	// And once more, under a signer that is connected.
	if err := w.Receiver.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	w.pushImage(t, "app", "later")
	w.awaitAll(t)
}

// A deleted database of the report is made again from the ledger, with the same rows.
func TestLedgerRebuilt(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	index, err := harness.NewIndex("linux/amd64")
	w.push(t, "app", "v1", index, err)
	w.pushImage(t, "team/app", "v1")
	w.awaitAll(t)
	before, err := w.Report().Rows(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != len(w.pushed) {
		t.Fatalf("the report has %d rows, want %d", len(before), len(w.pushed))
	}
	if err := w.Receiver.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(w.LedgerPath() + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(w.LedgerPath()); !os.IsNotExist(err) {
		t.Fatalf("the database is still there: %v", err)
	}
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	w.until(t, func(ctx context.Context) error {
		after, err := w.Report().Rows(ctx, nil)
		if err == nil && !reflect.DeepEqual(after, before) {
			err = fmt.Errorf("the rows are %+v, want %+v", after, before)
		}
		return err
	})
}

// SIGTERM lets requests in hand finish, and gives the others back at once: they do not wait for the queue's deadline.
func TestSignerDrains(t *testing.T) {
	needsFaults(t)
	const inHand, pushes = 2, 6
	w := prepareWorld(t, func(o *harness.Options) {
		o.AckWait = 5 * time.Minute
		o.EditSigner = func(c harness.Config) { harness.Set(c, inHand, "sign", "concurrency") }
	})
	ctx := t.Context()
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	slow := harness.Faults{Method: "PUT", PathPrefix: "/v2/" + w.project + "/app/manifests/sha256-", Latency: "2500ms"}
	if err := env.harbor.SetFaults(ctx, slow); err != nil {
		t.Fatal(err)
	}
	defer heal(t)
	for i := range pushes {
		w.pushImage(t, "app", fmt.Sprintf("v%d", i))
	}
	w.awaitQueued(t, pushes)
	// All requests wait when the signer starts, so that the first ones have just begun when the signal comes.
	signer := w.Signers[0]
	if err := w.StartProgram(ctx, signer); err != nil {
		t.Fatal(err)
	}
	w.inFlight(t, signer, inHand)
	if err := signer.Process.Terminate(); err != nil {
		t.Fatal(err)
	}
	w.until(t, func(ctx context.Context) error {
		ready, err := w.Ready(ctx, signer)
		if err == nil && ready {
			err = errors.New("the signer still says that it is ready")
		}
		return err
	})
	if err := signer.Process.Await(); err != nil {
		t.Fatal(err)
	}
	w.until(t, func(ctx context.Context) error {
		rows, err := w.Report().Rows(ctx, url.Values{"state": {"signed"}})
		if err == nil && len(rows) != inHand {
			err = fmt.Errorf("%d images are signed after the drain, want the %d in hand", len(rows), inHand)
		}
		return err
	})
	heal(t)
	if err := w.StartProgram(ctx, signer); err != nil {
		t.Fatal(err)
	}
	w.awaitAll(t)
}

// awaitQueued waits until the receiver has acknowledged so many webhooks.
func (w *world) awaitQueued(t *testing.T, want int) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.Receiver)
		if got := int(m.Sum("harborseal_webhook_requests_total", `outcome="queued"`)); err == nil && got < want {
			err = fmt.Errorf("%d webhooks are acknowledged, want %d", got, want)
		}
		return err
	})
}

// heal ends all faults.
func heal(t *testing.T) {
	t.Helper()
	if err := env.harbor.SetFaults(context.WithoutCancel(t.Context()), harness.Faults{}); err != nil {
		t.Error(err)
	}
}
