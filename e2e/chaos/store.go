package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite" // the driver that the receiver has

	"github.com/harborseal/harborseal/e2e/harness"
)

// filling makes the ledger's stream full: its limit becomes what it holds, so that it refuses every further event, and with it
// receivers refuse webhooks and signers record nothing.
func (w *world) filling() injection {
	return injection{
		func(ctx context.Context) error {
			return w.limitLedger(ctx, func(state jetstream.StreamState) int64 {
				return int64(max(1, state.Bytes)) //nolint:gosec // no store is that large
			})
		}, w.empty, "the ledger",
	}
}

// empty gives the room back.
func (w *world) empty(ctx context.Context) error {
	return w.limitLedger(ctx, func(jetstream.StreamState) int64 { return -1 })
}

func (w *world) limitLedger(ctx context.Context, limit func(jetstream.StreamState) int64) error {
	js, done, err := w.queue()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "LEDGER")
	if err != nil {
		return fmt.Errorf("limiting the ledger: %w", err)
	}
	info := stream.CachedInfo()
	cfg := info.Config
	cfg.MaxBytes = limit(info.State)
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("limiting the ledger: %w", err)
	}
	return nil
}

// queue connects to the servers, as the account that owns the streams.
func (w *world) queue() (js jetstream.JetStream, done func(), err error) {
	conn, err := w.nats.Connect()
	if err != nil {
		return nil, nil, err
	}
	if js, err = jetstream.New(conn); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("asking the queue: %w", err)
	}
	return js, conn.Close, nil
}

// locking holds the database of a receiver's report, so that nothing can be written into it.
func (w *world) locking(receiver *harness.Program) injection {
	var db *sql.DB
	return injection{
		begin: func(ctx context.Context) error {
			var err error
			if db, err = sql.Open("sqlite", "file:"+w.system.LedgerOf(receiver)+"?_pragma=busy_timeout(10000)"); err != nil {
				return fmt.Errorf("locking the database: %w", err)
			}
			db.SetMaxOpenConns(1)
			// The lock lasts as long as its only connection.
			if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
				return errors.Join(fmt.Errorf("locking the database: %w", err), db.Close())
			}
			return nil
		},
		end: func(context.Context) error {
			if db == nil {
				return nil
			}
			return db.Close()
		},
		detail: receiver.Name,
	}
}
