package signer

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/canary"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/signing"
)

const (
	// testRepository is where the doctor pushes, below the project.
	testRepository = "harborseal-doctor"
	// pushTestTime bounds the push, its signature and its removal.
	pushTestTime = time.Minute
)

// pushTest pushes a tiny image of its own, by digest and without a tag, has it signed by what signs every request, verifies
// the signature from the registry, and removes both. It signs where the policy signs, and not while signing is paused. The
// ledger gets no record of it from here; if Harbor tells a receiver of the push, a signer finds it signed, or gone.
func (d *doctor) pushTest(ctx context.Context) preflight.Check {
	ctx, cancel := context.WithTimeout(ctx, pushTestTime)
	defer cancel()
	repository := d.opts.Project + "/" + testRepository
	c := preflight.Check{Name: preflight.TestSignature, Subject: repository, Status: preflight.Skipped}
	switch {
	case d.book == nil:
		c.Status, c.Unknown, c.Detail = preflight.Failed, true, "without the policies it is not known whether the project may be signed"
		c.Fix = "see the checks of the queue and the policies"
		return c
	case d.app.engine.review == nil:
		c.Status, c.Unknown, c.Detail = preflight.Failed, true, "the signer would not start as it is configured"
		c.Fix = "see the checks of the configuration and the keys"
		return c
	}
	p, err := d.book.Policy(ctx, d.opts.Project)
	switch {
	case err != nil:
		c.Status, c.Detail, c.Fix = preflight.Failed, err.Error(), "see the checks of the policies"
		return c
	case p.Mode != policy.ModeSign || p.SuspendedFor != 0:
		c.Detail = "the policy of the project does not sign: nothing was pushed"
		return c
	case p.Pause != nil:
		c.Detail = "signing is paused: nothing was pushed"
		return c
	}
	ref, err := d.pushImage(ctx, repository)
	if err != nil {
		c.Status, c.Detail = preflight.Failed, "pushing a test image: "+err.Error()
		c.Fix = "see the checks of the project's rights and its quota"
		return c
	}
	c = d.signImage(ctx, c, ref)
	// The image is there whatever has happened to the time.
	cleaning, cancelCleaning := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Harbor.Timeout)
	defer cancelCleaning()
	if err := d.removeImage(cleaning, ref); err != nil {
		c.Detail += "; the image stays in Harbor: " + err.Error()
		if c.Status == preflight.OK {
			c.Status = preflight.Warning
			c.Fix = "delete the repository " + repository + " in Harbor, or give the account artifact:delete and repository:delete, which it needs for nothing else"
		}
		return c
	}
	c.Detail += "; removed again"
	return c
}

// removeImage removes the image and the repository, which was made for it.
func (d *doctor) removeImage(ctx context.Context, ref artifact.Ref) error {
	if err := d.app.harbor.RemoveArtifact(ctx, ref); err != nil {
		return err
	}
	return d.app.harbor.RemoveEmptyRepository(ctx, ref)
}

// signImage signs a manifest as a signer would that got a request for it, and looks at what stands in the registry then.
func (d *doctor) signImage(ctx context.Context, c preflight.Check, ref artifact.Ref) preflight.Check {
	fail := func(detail string) preflight.Check {
		c.Status, c.Detail, c.Fix = preflight.Failed, detail, "docs/operations.md says what to do about each reason, under \"When something fails\""
		return c
	}
	e := &d.app.engine
	journal := &testQueue{}
	policies := testPolicies{d.book}
	cfg := d.app.signingConfig()
	cfg.Queue, cfg.Policies, cfg.Logger = journal, policies, zerolog.Nop()
	service, err := signing.New(cfg)
	if err != nil {
		return fail(err.Error())
	}
	started := time.Now()
	service.Handle(ctx, &testDelivery{journal: journal, request: artifact.Request{
		Version: artifact.Version, Ref: ref, Lane: artifact.Live, Origin: artifact.OriginSigner, Actor: "signer doctor",
		CorrelationID: rand.Text(), RequestedAt: started.UTC(),
	}})
	took := time.Since(started)
	last := journal.newest()
	switch last.Kind {
	case artifact.Signed:
	case "":
		return fail("not signed within the time for it")
	default:
		return fail(fmt.Sprintf("not signed: %s %s: %s", last.Kind, last.Reason, last.Detail))
	}
	p, err := policies.Policy(ctx, ref.Project())
	if err != nil {
		return fail(err.Error())
	}
	need, err := e.verifier.Require(ctx, p)
	if err != nil {
		return fail(err.Error())
	}
	verdict, err := e.verifier.Verify(ctx, ref, need)
	switch {
	case err != nil:
		return fail("reading the signature back: " + err.Error())
	case !verdict.Signed():
		return fail("the signature that was attached does not verify")
	}
	c.Status = preflight.OK
	c.Detail = fmt.Sprintf("%s pushed, signed and verified in Harbor in %s", ref.Digest(), took.Round(time.Millisecond))
	return c
}

// testPolicies are the policies as they are, but for what keeps a test image out of their scope.
type testPolicies struct{ *book.Book }

// Policy implements signing.Policies.
func (t testPolicies) Policy(ctx context.Context, project string) (policy.Policy, error) {
	p, err := t.Book.Policy(ctx, project)
	p.Repositories, p.Tags, p.Untagged, p.Exemptions, p.From = policy.Globs{}, policy.Globs{}, "", nil, time.Time{}
	return p, err
}

// Fresh implements signing.Policies: they were read just now.
func (t testPolicies) Fresh(ctx context.Context, project string) (policy.Policy, error) {
	return t.Policy(ctx, project)
}

// testQueue implements signing.Queue for one attempt that nobody shall hear of.
type testQueue struct {
	mu   sync.Mutex
	last artifact.Event // guarded by mu
}

func (q *testQueue) newest() artifact.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

// Record implements signing.Queue.
func (q *testQueue) Record(_ context.Context, e artifact.Event) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = e
	return 1, nil
}

// Enqueue implements signing.Queue: a test image has no children.
func (*testQueue) Enqueue(context.Context, artifact.Request) (bool, error) { return true, nil }

// LastReceived implements signing.Queue.
func (*testQueue) LastReceived(context.Context, artifact.Ref) (uint64, artifact.Event, error) {
	return 0, artifact.Event{}, nil
}

// LastQueued implements signing.Queue.
func (*testQueue) LastQueued(context.Context, artifact.Ref) (uint64, error) { return 0, nil }

// EnqueueDebt implements signing.Queue: nobody pays for a test image.
func (*testQueue) EnqueueDebt(context.Context, artifact.Request) (bool, error) { return true, nil }

// LedgerSeq implements signing.Queue.
func (*testQueue) LedgerSeq(context.Context) (uint64, error) { return 1, nil }

// Keep implements signing.Queue.
func (*testQueue) Keep(_ context.Context, _ artifact.Ref, s artifact.Signature) (artifact.Signature, error) {
	return s, nil
}

// ClearDead implements signing.Queue.
func (*testQueue) ClearDead(context.Context, artifact.Ref) error { return nil }

// testDelivery implements signing.Delivery: there is one attempt, and how it ends stands in the testQueue.
type testDelivery struct {
	request artifact.Request
	journal *testQueue
}

// Request implements signing.Delivery.
func (t *testDelivery) Request() artifact.Request { return t.request }

// Attempts implements signing.Delivery.
func (*testDelivery) Attempts() uint64 { return 1 }

// Tries implements signing.Delivery.
func (*testDelivery) Tries() uint64 { return 1 }

// FirstSeen implements signing.Delivery.
func (t *testDelivery) FirstSeen() time.Time { return t.request.RequestedAt }

// Done implements signing.Delivery.
func (*testDelivery) Done(context.Context) error { return nil }

// Aside implements signing.Delivery: there is no slot.
func (*testDelivery) Aside(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }

// Retry implements signing.Delivery.
func (*testDelivery) Retry(context.Context, time.Duration) error { return nil }

// Bury implements signing.Delivery.
func (t *testDelivery) Bury(ctx context.Context, e artifact.Event) error {
	_, err := t.journal.Record(ctx, e)
	return err
}

// pushImage pushes an image of one empty layer, which nobody has pushed before.
func (d *doctor) pushImage(ctx context.Context, repository string) (artifact.Ref, error) {
	image, err := canary.NewImage("signer doctor", time.Now())
	if err != nil {
		return artifact.Ref{}, err
	}
	ref, err := artifact.NewRef(repository, image.Manifest.Digest)
	if err != nil {
		return artifact.Ref{}, fault.New(fault.Permanent, fault.Malformed, err)
	}
	for _, blob := range image.Blobs {
		if err := d.app.images.PushBlob(ctx, repository, blob); err != nil {
			return artifact.Ref{}, err
		}
	}
	return ref, d.app.images.PutManifest(ctx, repository, ref.Digest(), image.Manifest)
}
