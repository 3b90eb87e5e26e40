package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/queue"
)

// Watch knows when digests of some projects were signed, as the signers' events say: right after the signature was read back and
// verified. It is safe for concurrent use.
type Watch struct {
	conn *nats.Conn

	mu       sync.Mutex
	pushed   map[string]time.Time // guarded by mu; by repository@digest, as the others
	received map[string]time.Time // guarded by mu
	signed   map[string]time.Time // guarded by mu
}

// Times are how long it took until digests were signed: from their pushes, and from the receipt of their webhooks.
type Times struct {
	FromPush    quantile.Spread `json:"from_push"`
	FromWebhook quantile.Spread `json:"from_webhook"`
}

// Watch begins to watch. The receiver, whose queue it listens to, must run.
func (s *Stage) Watch(projects ...string) (*Watch, error) {
	const user = "signer"
	password, err := os.ReadFile(s.System.QueuePassword())
	if err != nil {
		return nil, fmt.Errorf("watching signatures: %w", err)
	}
	w := newWatch()
	if w.conn, err = nats.Connect(s.System.QueueURL(), nats.UserInfo(user, strings.TrimSpace(string(password)))); err != nil {
		return nil, fmt.Errorf("watching signatures: %w", err)
	}
	for _, project := range projects {
		for _, kind := range []artifact.Kind{artifact.Received, artifact.Signed} {
			subject := fmt.Sprintf("ledger.v1.*.%s.%s.>", kind, queue.EncodeToken(project))
			if _, err := w.conn.Subscribe(subject, func(msg *nats.Msg) { w.see(msg.Data) }); err != nil {
				w.Close()
				return nil, fmt.Errorf("watching signatures: %w", err)
			}
		}
	}
	if err := w.conn.Flush(); err != nil {
		w.Close()
		return nil, fmt.Errorf("watching signatures: %w", err)
	}
	return w, nil
}

func newWatch() *Watch {
	return &Watch{pushed: map[string]time.Time{}, received: map[string]time.Time{}, signed: map[string]time.Time{}}
}

// Close ends it.
func (w *Watch) Close() { w.conn.Close() }

// see takes an event.
func (w *Watch) see(data []byte) {
	var e harness.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return // it will be missed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	times := w.signed
	if e.Kind == string(artifact.Received) {
		times = w.received
	}
	if _, seen := times[e.Ref]; !seen {
		times[e.Ref] = e.Time
	}
}

// Pushed says when a digest was pushed, or its webhook was sent.
func (w *Watch) Pushed(repository, digest string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushed[repository+"@"+digest] = at
}

// Signed is how many digests were signed since the last Times, pushed or not.
func (w *Watch) Signed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.signed)
}

// Times waits until all that was pushed is signed, and tells how long that took each. It forgets both.
func (w *Watch) Times(ctx context.Context) (t Times, err error) {
	const limit = 2 * time.Minute
	err = harness.Until(ctx, limit, func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for ref := range w.pushed {
			if _, found := w.signed[ref]; !found {
				return fmt.Errorf("%s is not signed", ref)
			}
		}
		t = w.times()
		return nil
	})
	if err == nil && t.FromPush.Count == 0 {
		err = errors.New("nothing was pushed")
	}
	return t, err
}

// times is called with mu held, when all is signed.
func (w *Watch) times() Times {
	var fromPush, fromWebhook []time.Duration
	for ref, pushed := range w.pushed {
		fromPush = append(fromPush, w.signed[ref].Sub(pushed))
		if received, found := w.received[ref]; found {
			fromWebhook = append(fromWebhook, w.signed[ref].Sub(received))
		}
	}
	w.forget()
	return Times{FromPush: quantile.Of(fromPush), FromWebhook: quantile.Of(fromWebhook)}
}

// Forget begins anew.
func (w *Watch) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
}

// forget is called with mu held.
func (w *Watch) forget() {
	clear(w.pushed)
	clear(w.received)
	clear(w.signed)
}
