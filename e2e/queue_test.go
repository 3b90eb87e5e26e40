//go:build e2e

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// A receiver may use a queue elsewhere. While that is away, it answers Harbor 503 in time, so that Harbor tries again; and
// goes on by itself once the queue is back.
func TestQueueElsewhere(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	front := prepareWorld(t, func(o *harness.Options) {
		o.Enabled = []string{w.project}
		o.Queue = w.QueueURL()
		o.EditReceiver = func(c harness.Config) {
			harness.Set(c, map[string]any{
				"urls": []string{w.QueueURL()}, "username": "signer", "password_file": w.QueuePassword(),
			}, "queue")
		}
	})
	if err := front.StartProgram(ctx, front.Receiver); err != nil {
		t.Fatal(err)
	}
	var p harness.Pushed
	w.lose(t, func() { p = w.pushImage(t, "app", "v1") })
	body := delivery(w.project, "app", p.Digest, p.Tag)
	if status, answer := front.post(t, w.project, front.WebhookAuth, jsonType, body); status != http.StatusAccepted {
		t.Fatalf("the answer is %d %v, want 202", status, answer)
	}
	w.awaitAll(t)
	front.awaitState(t, p, "signed")

	if err := w.Receiver.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	status, answer := front.post(t, w.project, front.WebhookAuth, jsonType, body)
	if took := time.Since(began); status != http.StatusServiceUnavailable || took > 3*time.Second {
		t.Errorf("without a queue the answer is %d %v after %s, want 503 within 3s", status, answer, took)
	}
	if ready, err := front.Ready(ctx, front.Receiver); err != nil || ready {
		t.Errorf("without a queue the receiver is ready: %v, %v, want not", ready, err)
	}
	if err := w.StartProgram(ctx, w.Receiver); err != nil {
		t.Fatal(err)
	}
	if err := front.AwaitReady(ctx, front.Receiver); err != nil {
		t.Fatal(err)
	}
	if status, answer := front.post(t, w.project, front.WebhookAuth, jsonType, body); status != http.StatusAccepted {
		t.Errorf("with the queue back the answer is %d %v, want 202", status, answer)
	}
}

// Two receivers must not write to one store: the second one refuses to start, and says why.
func TestSecondReceiverRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	second := prepareWorld(t, func(o *harness.Options) {
		o.EditReceiver = func(c harness.Config) { harness.Set(c, w.StoreDir(), "queue", "embedded", "store_dir") }
	})
	err := second.StartProgram(ctx, second.Receiver)
	if err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("the second receiver on one store: %v, want a refusal that speaks of the lock", err)
	}
	w.pushImage(t, "app", "v1")
	w.awaitAll(t)
}
