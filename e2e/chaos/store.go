package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite" // the driver that the receiver has

	"github.com/harborseal/harborseal/e2e/harness"
)

// The limit of a node's streams, and of the volume that they are on, beside what the nodes keep for themselves.
const (
	maxStore     = "48MB"
	volumeBytes  = 160 << 20
	refusedEvery = 250 * time.Millisecond
)

// filling makes the queue's store full, so that it refuses whatever is published, and counts what receivers refused meanwhile.
func (w *world) filling() injection {
	return injection{
		begin:  w.nats.Fill,
		end:    w.nats.Empty,
		during: w.countRefusals,
		detail: "the store of all nodes",
	}
}

// fillingDisks makes the disks of some nodes full. A server that has met a full disk takes nothing until it is started again,
// which whoever runs it does once there is room.
func (w *world) fillingDisks(nodes []*harness.Node) (injection, error) {
	volumes := w.nats.Volumes()
	if len(volumes) == 0 {
		return injection{}, errors.New("nothing can be mounted here")
	}
	each := func(do func(*harness.Volume) error) error {
		var errs []error
		for _, node := range nodes {
			errs = append(errs, do(volumes[slices.Index(w.nats.Nodes, node)]))
		}
		return errors.Join(errs...)
	}
	return injection{
		begin: func(context.Context) error { return each((*harness.Volume).Fill) },
		end: func(ctx context.Context) error {
			if err := each((*harness.Volume).Empty); err != nil {
				return err
			}
			for _, node := range nodes {
				if err := w.nats.Kill(node); err != nil {
					return err
				}
			}
			return w.relaunch(ctx, nodes)
		},
		detail: names(nodes),
	}, nil
}

// countRefusals adds up what receivers refuse until ctx ends, because the queue takes nothing or is not asked any more. A
// receiver that is started again counts anew.
func (w *world) countRefusals(ctx context.Context) {
	last := make(map[*harness.Program]float64)
	w.refusals(ctx, func(p *harness.Program, n float64) { last[p] = n })
	for w.wait(ctx, time.Now().Add(refusedEvery)) {
		w.refusals(ctx, func(p *harness.Program, n float64) {
			if more := n - last[p]; more > 0 {
				w.refused.Add(int64(more))
			}
			last[p] = n
		})
	}
}

func (w *world) refusals(ctx context.Context, each func(*harness.Program, float64)) {
	for _, p := range w.system.Receivers {
		// One that is away at the moment refuses as well, but nobody counts that.
		if m, err := w.system.Metrics(ctx, p); err == nil {
			const name = "harborseal_webhook_requests_total"
			each(p, m.Sum(name, `outcome="unavailable"`)+m.Sum(name, `outcome="not_tried"`))
		}
	}
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
