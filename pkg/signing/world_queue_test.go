package signing_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/artifact/artifacttest"
	"github.com/harborseal/harborseal/pkg/policy"
)

func (w *world) Keep(ctx context.Context, ref artifact.Ref, s artifact.Signature) (kept artifact.Signature, err error) {
	err = w.do(ctx, "keep", func() error {
		name := keptName(ref, s)
		if _, found := w.kept[name]; !found {
			w.kept[name] = s
		}
		kept = w.kept[name]
		return nil
	})
	return kept, err
}

// keptName is where a signature is kept: each stage for itself.
func keptName(ref artifact.Ref, s artifact.Signature) string {
	return fmt.Sprint(ref, s.Format, s.KeyID, s.Timestamp != nil, s.Entry != nil)
}

func (w *world) Bundles(context.Context) (bool, string, error) { return w.bundles, "v0-test", nil }

func (w *world) LockedBy(_ context.Context, repository, tag string) (string, error) {
	if w.rulesErr != nil || len(w.locked) == 0 {
		return "", w.rulesErr
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, found := w.manifests[repository+" "+tag]; !found {
		return "", errors.New("asked for a tag that is not there")
	}
	return w.locked[0], nil
}

func (w *world) ProjectExists(context.Context, string) (bool, error) { return w.exists, w.existsErr }

func (w *world) ProjectID(ctx context.Context, _ string) (id int64, err error) {
	err = w.do(ctx, "project id", func() error {
		if id = w.projectID; !w.exists {
			return notFound("project")
		}
		return nil
	})
	return id, err
}

func (w *world) Project(ctx context.Context, name string) (p artifact.Project, err error) {
	err = w.do(ctx, "get project", func() error {
		p = artifact.Project{ID: w.projectID, Name: name}
		if w.madeAnew != 0 {
			p.ID = w.madeAnew
		}
		if !w.exists {
			return notFound("project")
		}
		return nil
	})
	return p, err
}

func (w *world) Artifact(ctx context.Context, ref artifact.Ref) (l artifact.Listed, err error) {
	err = w.do(ctx, "get artifact", func() error {
		l = artifact.Listed{Ref: ref, Tags: w.tags[ref]}
		if _, found := w.manifests[ref.Repository()+" "+ref.Digest()]; !found {
			return notFound("artifact")
		}
		return nil
	})
	return l, err
}

func (w *world) Record(ctx context.Context, e artifact.Event) (seq uint64, err error) {
	err = w.do(ctx, "record "+string(e.Kind), func() error {
		if err := artifacttest.CheckEvent(e); err != nil {
			return err
		}
		if i := slices.IndexFunc(w.ledger, func(other artifact.Event) bool { return other.ID == e.ID }); i >= 0 {
			seq = uint64(i) + 1
			return nil
		}
		w.ledger = append(w.ledger, e)
		seq = uint64(len(w.ledger))
		return nil
	})
	return seq, err
}

func (w *world) Enqueue(ctx context.Context, r artifact.Request) (duplicate bool, err error) {
	err = w.do(ctx, "enqueue", func() error {
		if _, err := artifact.EncodeRequest(r); err != nil {
			return err
		}
		if _, duplicate = w.waiting[r.Ref]; !duplicate {
			w.waiting[r.Ref] = r
		}
		return nil
	})
	return duplicate, err
}

func (w *world) EnqueueDebt(ctx context.Context, r artifact.Request) (duplicate bool, err error) {
	err = w.do(ctx, "enqueue debt", func() error {
		if _, err := artifact.EncodeRequest(r); err != nil {
			return err
		}
		if _, duplicate = w.debts[r.Ref]; !duplicate {
			w.debts[r.Ref] = r
		}
		return nil
	})
	return duplicate, err
}

func (w *world) LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, e artifact.Event, err error) {
	err = w.do(ctx, "last received", func() error {
		for i, event := range w.ledger {
			if event.Kind == artifact.Received && event.Ref == ref {
				seq, e = uint64(i)+1, event
			}
		}
		return nil
	})
	return seq, e, err
}

func (w *world) LastQueued(ctx context.Context, ref artifact.Ref) (seq uint64, err error) {
	err = w.do(ctx, "last queued", func() error {
		for i, event := range w.ledger {
			if event.Kind == artifact.Queued && event.Ref == ref {
				seq = uint64(i) + 1
			}
		}
		return nil
	})
	return seq, err
}

func (w *world) LedgerSeq(context.Context) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.ledger)), nil
}

func (w *world) ClearDead(ctx context.Context, ref artifact.Ref) error {
	return w.do(ctx, "clear dead", func() error { delete(w.dead, ref); return nil })
}

func (w *world) Policy(_ context.Context, project string) (policy.Policy, error) {
	if w.policyErr != nil {
		return policy.Policy{}, w.policyErr
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.policies[project], nil
}

// Fresh brings what unseen holds, which Policy does not know before.
func (w *world) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	w.mu.Lock()
	unseen := w.unseen
	w.unseen = nil
	w.mu.Unlock()
	if unseen != nil {
		w.change(unseen)
	}
	return w.Policy(ctx, project)
}

// delivery is one attempt; the request stays in the world until it is ended.
type delivery struct {
	w         *world
	request   artifact.Request
	attempts  uint64
	firstSeen time.Time
	ended     string // how
	delay     time.Duration
	aside     int    // how often it gave its slot up
	held      uint64 // how many attempts were none
}

func (d *delivery) Request() artifact.Request { return d.request }
func (d *delivery) Attempts() uint64          { return d.attempts }
func (d *delivery) Tries() uint64             { return d.attempts - d.held }
func (d *delivery) FirstSeen() time.Time      { return d.firstSeen }

func (d *delivery) Aside(ctx context.Context, fn func(context.Context) error) error {
	d.aside++
	return fn(context.WithValue(ctx, asideKey{}, true))
}

type asideKey struct{}

func (d *delivery) Done(ctx context.Context) error {
	return d.w.do(ctx, "ack", func() error {
		d.ended = "done"
		if d.request.Lane == artifact.Debt {
			delete(d.w.debts, d.request.Ref)
		} else {
			delete(d.w.waiting, d.request.Ref)
		}
		return nil
	})
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.w.do(ctx, "nak", func() error { d.ended, d.delay = "retry", delay; return nil })
}

func (d *delivery) Bury(ctx context.Context, e artifact.Event) error {
	return d.w.do(ctx, "bury", func() error {
		d.ended = "buried"
		d.w.dead[d.request.Ref] = e
		delete(d.w.waiting, d.request.Ref)
		return nil
	})
}
