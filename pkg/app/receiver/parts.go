package receiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/queue"
)

// connectedQueue is the queue for parts that are made before it is connected and started after it.
type connectedQueue struct{ app *App }

func (q connectedQueue) client() (*queue.Client, error) {
	select {
	case <-q.app.connected:
		return q.app.queue, nil
	default:
		return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "the queue is not connected yet")
	}
}

// Record implements the queue of package webhook.
func (q connectedQueue) Record(ctx context.Context, event artifact.Event) (uint64, error) {
	c, err := q.client()
	if err != nil {
		return 0, err
	}
	return c.Record(ctx, event)
}

// Enqueue implements the queue of package webhook.
func (q connectedQueue) Enqueue(ctx context.Context, request artifact.Request) (bool, error) {
	c, err := q.client()
	if err != nil {
		return false, err
	}
	return c.Enqueue(ctx, request)
}

// Events implements the source of package ledger.
func (q connectedQueue) Events(ctx context.Context, after uint64, fn func(context.Context, []artifact.Entry) error) error {
	return q.app.queue.Events(ctx, after, fn)
}

// LedgerState implements the source of package ledger.
func (q connectedQueue) LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error) {
	return q.app.queue.LedgerState(ctx)
}

// Check does all of New that leaves no trace: no listener, no database, no connection.
func Check(cfg *config.Receiver) error {
	_, policyErr := policy.NewSet(cfg.Projects)
	_, keysErr := loadKeys(cfg.Keys)
	return errors.Join(config.CheckFiles(cfg), policyErr, keysErr)
}

func loadKeys(keys []config.PublicKey) ([]api.Key, error) {
	loaded := make([]api.Key, 0, len(keys))
	for _, k := range keys {
		pem, err := os.ReadFile(k.PublicKeyFile)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.Name, err)
		}
		loaded = append(loaded, api.Key{Name: k.Name, State: api.KeyState(k.State), PEM: string(pem)})
	}
	return loaded, nil
}
