package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// queue stands for JetStream: everything is stored at once, and forgotten.
type queue struct{ seq atomic.Uint64 }

func (q *queue) Record(context.Context, artifact.Event) (uint64, error) { return q.seq.Add(1), nil }

func (q *queue) Enqueue(context.Context, artifact.Request) (bool, error) { return false, nil }

// EnqueueDebt is never called: nothing is logged.
func (q *queue) EnqueueDebt(context.Context, artifact.Request) (bool, error) { return false, nil }

func (q *queue) LastReceived(context.Context, artifact.Ref) (uint64, artifact.Event, error) {
	return 0, artifact.Event{}, nil
}

func (q *queue) LastQueued(context.Context, artifact.Ref) (uint64, error) { return 0, nil }

// Keep finds no other signer: there is none.
func (q *queue) Keep(_ context.Context, _ artifact.Ref, s artifact.Signature) (artifact.Signature, error) {
	return s, nil
}

func (q *queue) LedgerSeq(context.Context) (uint64, error) { return q.seq.Load(), nil }

func (q *queue) ClearDead(context.Context, artifact.Ref) error { return nil }

// delivery is one request in hand. Done ends it well; whatever else ends it is an error, and so is no end at all.
type delivery struct {
	request artifact.Request
	ended   bool
	err     error
}

func (d *delivery) Request() artifact.Request { return d.request }

func (d *delivery) Attempts() uint64 { return 1 }

func (d *delivery) Tries() uint64 { return 1 }

// Aside is for waiting, of which there is none: who calls is bounded elsewhere.
func (d *delivery) Aside(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }

func (d *delivery) FirstSeen() time.Time { return d.request.RequestedAt }

func (d *delivery) Done(context.Context) error {
	d.ended = true
	return nil
}

func (d *delivery) Retry(_ context.Context, delay time.Duration) error {
	d.ended, d.err = true, fmt.Errorf("to be repeated in %s", delay)
	return nil
}

func (d *delivery) Bury(_ context.Context, e artifact.Event) error {
	d.ended, d.err = true, fmt.Errorf("given up: %s", e.Detail)
	return nil
}

func (d *delivery) outcome() error {
	if !d.ended {
		return errors.New("the delivery was not ended")
	}
	return d.err
}

// harbor answers what is asked of Harbor beside its registry.
type harbor struct{}

func (harbor) ProjectExists(context.Context, string) (bool, error) { return true, nil }

func (harbor) ProjectID(context.Context, string) (int64, error) { return 1, nil }

func (harbor) Project(_ context.Context, name string) (artifact.Project, error) {
	return artifact.Project{ID: 1, Name: name}, nil
}

func (harbor) Artifact(_ context.Context, ref artifact.Ref) (artifact.Listed, error) {
	return artifact.Listed{Ref: ref}, nil
}

func (harbor) Bundles(context.Context) (bool, string, error) { return true, "v2.15.2", nil }

func (harbor) LockedBy(context.Context, string, string) (string, error) { return "", nil }

// policies has one for all projects.
type policies struct{ terms policy.Terms }

func (p policies) Policy(_ context.Context, project string) (policy.Policy, error) {
	return policy.Policy{Project: project, Mode: policy.ModeSign, Revision: "bench", Terms: p.terms}, nil
}

// Fresh implements signing.Policies: they never change.
func (p policies) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	return p.Policy(ctx, project)
}
