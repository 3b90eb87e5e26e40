package receiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/policy/book"
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

// GetPolicy implements the queue of package enroll, as do the methods below.
func (q connectedQueue) GetPolicy(ctx context.Context, kind book.Kind, project string) (book.Entry, error) {
	c, err := q.client()
	if err != nil {
		return book.Entry{}, err
	}
	return c.GetPolicy(ctx, kind, project)
}

// PutPolicy implements the queue of package enroll.
func (q connectedQueue) PutPolicy(ctx context.Context, kind book.Kind, project string, value []byte, expect uint64) (uint64, error) {
	c, err := q.client()
	if err != nil {
		return 0, err
	}
	return c.PutPolicy(ctx, kind, project, value, expect)
}

// PolicyHistory implements the queue of package enroll.
func (q connectedQueue) PolicyHistory(ctx context.Context, project string) ([]book.Entry, error) {
	c, err := q.client()
	if err != nil {
		return nil, err
	}
	return c.PolicyHistory(ctx, project)
}

// Propose implements the queue of package enroll.
func (q connectedQueue) Propose(ctx context.Context, kind, key string, slot int64) (bool, error) {
	c, err := q.client()
	if err != nil {
		return false, err
	}
	return c.Propose(ctx, kind, key, slot)
}

// Ask implements the queue of package enroll.
func (q connectedQueue) Ask(ctx context.Context, topic string, request []byte) ([]byte, error) {
	c, err := q.client()
	if err != nil {
		return nil, err
	}
	return c.Ask(ctx, topic, request)
}

// Events implements the source of package ledger.
func (q connectedQueue) Events(ctx context.Context, after uint64, fn func(context.Context, []artifact.Entry) error) error {
	return q.app.queue.Events(ctx, after, fn)
}

// LedgerState implements the source of package ledger.
func (q connectedQueue) LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error) {
	return q.app.queue.LedgerState(ctx)
}

// accounts is Harbor as package access asks it.
type accounts struct{ *harbor.Client }

// As implements access.Harbor.
func (a accounts) As(authorization string) access.Account { return a.Client.As(authorization) }

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

// checkConnections reads what is read for each connection otherwise.
func checkConnections(cfg *config.Receiver) error {
	errs := []error{shell.CheckPair("http.tls", cfg.HTTP.TLS.CertFile, cfg.HTTP.TLS.KeyFile), shell.CheckQueue(cfg.Queue.Queue)}
	if e := cfg.Queue.Embedded; e.Enabled {
		errs = append(errs, shell.CheckPair("queue.embedded.tls", e.TLS.CertFile, e.TLS.KeyFile))
		for _, u := range e.Users {
			errs = append(errs, shell.CheckSecret(u.PasswordFile))
		}
	}
	return errors.Join(errs...)
}
