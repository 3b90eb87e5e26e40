package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// askedWithin is for how long the same account asking for the same manifest is one event: nobody fills the ledger by asking. It is no
// longer than a signature is believed to be there (see package status): what was signed because of one question, and is asked for again
// because the signature has vanished, must be signed because of another, or the ledger takes the second signing for the first.
const askedWithin = 10 * time.Second

// Door is the one way by which receivers ask for a manifest to be signed, whoever wants it: Harbor by a webhook, or somebody
// by the API. It admits by the project's policy, records the received event, meters the project's budget and enqueues. It is safe
// for concurrent use, starts no goroutine and has nothing to close; all who use one share its budgets, and what it knows of a
// queue that does not answer.
type Door struct {
	harborName   string
	ownOperators []string
	policies     Policies
	queue        Queue
	timeout      time.Duration
	now          func() time.Time
	logger       zerolog.Logger
	budgets      *budgets
	gate         *gate
	metrics      *metrics // set by New before anybody enters
}

func newDoor(cfg Config) *Door {
	return &Door{
		harborName: cfg.HarborName, ownOperators: cfg.OwnOperators, policies: cfg.Policies, queue: cfg.Queue,
		timeout: cfg.PublishTimeout, now: cfg.Now, logger: cfg.Logger, budgets: newBudgets(cfg.Rate), gate: &gate{},
	}
}

// Ask is for a manifest that somebody asks for by the API: actor says who, and tag what Harbor said that names it now, empty if it
// was asked for by its digest. The outcome is "queued", "duplicate" (a request for it waits already) or "ignored" with the policy's
// reason, as in the answer to a webhook; correlationID joins all records of this unless it is ignored.
//
// The error is a fault, transient where asking again helps: nothing or a part was published then, and asking again is safe.
func (d *Door) Ask(ctx context.Context, ref artifact.Ref, tag, actor string) (outcome string, reason policy.Reason, correlationID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	p, err := d.policies.Policy(ctx, ref.Project())
	if err != nil {
		return "", "", "", fault.New(fault.Transient, fault.PolicyUnreadable, fmt.Errorf("asking for the policy: %w", err))
	}
	slot := strconv.FormatInt(d.now().Unix()/int64(askedWithin/time.Second), 10)
	answer, err := d.enter(ctx, p, visit{
		ref: ref, tag: tag, actor: actor, origin: artifact.OriginAPI,
		id: artifact.EventID(artifact.Received, ref, d.harborName, string(artifact.OriginAPI), actor, slot),
	})
	if err != nil {
		return "", "", "", err
	}
	d.logger.Info().Str("project", ref.Project()).Str("repository", ref.Repository()).Str("digest", ref.Digest()).Str("tag", tag).
		Str("actor", bounded(actor, maxPusher)).Str("correlation_id", answer.CorrelationID).Str("outcome", answer.Status).
		Str("reason", answer.Reason).Msg("signing was asked for")
	return answer.Status, policy.Reason(answer.Reason), answer.CorrelationID, nil
}

// visit is one manifest that somebody wants signed. pusher and pushedAt are set where a push is the reason.
type visit struct {
	id       string
	ref      artifact.Ref
	tag      string
	actor    string
	origin   artifact.Origin
	pusher   string
	pushedAt *time.Time
}

// visitOf is that of a push.
//
// The id is the same for every repetition of a delivery and in both formats: Harbor's own id (CloudEvents) is missing in the
// Default format, but the time of the push in seconds is in both.
func (d *Door) visitOf(push Push) visit {
	return visit{
		id:  artifact.EventID(artifact.Received, push.Ref, d.harborName, push.Tag, push.Pusher, strconv.FormatInt(push.PushedAt.Unix(), 10)),
		ref: push.Ref, tag: push.Tag, actor: push.Pusher, origin: artifact.OriginWebhook, pusher: push.Pusher, pushedAt: &push.PushedAt,
	}
}

// enter decides, and publishes what follows. The error wraps errNotTried if the queue was not asked, and is a fault.
func (d *Door) enter(ctx context.Context, p policy.Policy, v visit) (ArtifactAnswer, error) {
	answer := ArtifactAnswer{Digest: v.ref.Digest()}
	if reason := d.classify(p, v); reason != "" {
		answer.Status, answer.Reason = string(ignored), string(reason)
		return answer, nil
	}
	isDuplicate, err := d.ask(ctx, p, v)
	if err != nil {
		return ArtifactAnswer{}, err
	}
	answer.Status, answer.CorrelationID = string(queued), v.id
	if isDuplicate {
		answer.Status = string(duplicate)
	}
	return answer, nil
}

// classify gives the reason for which nothing follows from a visit, or nothing. It only saves work: the signer decides again
// with the manifest before it, and in the mode observe says what it would do. What is ignored comes into no ledger, so that a
// guess about tags and accounts hides nothing: sweeps ask for all that Harbor lists as an artifact.
func (d *Door) classify(p policy.Policy, v visit) policy.Reason {
	if admitted := policy.Admit(p); !admitted.Sign {
		return admitted.Reason
	}
	switch {
	case artifact.IsAccessoryTag(v.tag):
		return policy.IsAccessory
	case v.tag == "" && v.pusher != "" && slices.Contains(d.ownOperators, v.pusher):
		// A signature as a referrer comes as a push by digest, which nothing but its operator tells from an image.
		return policy.OwnPush
	case !p.Repositories.Matches(v.ref.Name()):
		// Certain without the manifest: neither its tags nor an index that names it can bring it into scope.
		return policy.OutOfScope
	default:
		return ""
	}
}

// errNotTried says that the queue failed before, and was not asked.
var errNotTried = errors.New("was not asked")

// ask publishes if the queue is worth asking.
func (d *Door) ask(ctx context.Context, p policy.Policy, v visit) (isDuplicate bool, err error) {
	t, why := d.gate.enter()
	if t == nil {
		return false, fault.Newf(fault.Transient, why, "the queue failed before (%s), and %w", why, errNotTried)
	}
	done := false // a panic tells nothing about the queue
	defer func() { t.end(done, err) }()
	isDuplicate, err = d.publish(ctx, p, v)
	done = true
	return isDuplicate, err
}

// publish appends the received event to the ledger, then the request to the queue. In this order, because the request
// carries the event's sequence, and a signer that finishes looks for later events to see whether it swallowed a push.
//
// A crash before Record leaves nothing: nobody was answered, and Harbor repeats the delivery. A crash between the two leaves an
// event without a request: the repetition has the same id, so the ledger holds one event, and enqueues it. A crash after
// Enqueue, before the answer, repeats both: a duplicate, or a request for a manifest that is signed already. Where Harbor
// does not repeat, because this was its third attempt, the sweep finds the manifest.
func (d *Door) publish(ctx context.Context, p policy.Policy, v visit) (isDuplicate bool, err error) {
	now := d.now().UTC()
	seq, err := d.queue.Record(ctx, artifact.Event{
		Version:       artifact.Version,
		ID:            v.id,
		Kind:          artifact.Received,
		Ref:           v.ref,
		Time:          now,
		Actor:         v.actor,
		Origin:        v.origin,
		CorrelationID: v.id,
		Tag:           v.tag,
		Pusher:        v.pusher,
		PushedAt:      v.pushedAt,
		Canary:        p.Canary,
	})
	if err != nil {
		return false, fmt.Errorf("recording the received event: %w", err)
	}
	failpoint.Hit(failpoint.ReceiverAfterRecord)
	lane := d.budgets.lane(v.ref.Project(), p.Rate, now)
	d.metrics.pushes.WithLabelValues(string(lane)).Inc()
	isDuplicate, err = d.queue.Enqueue(ctx, artifact.Request{
		Version:       artifact.Version,
		Ref:           v.ref,
		Lane:          lane,
		Origin:        v.origin,
		Actor:         v.actor,
		CorrelationID: v.id,
		RequestedAt:   now,
		ReceivedSeq:   seq,
	})
	if err != nil {
		return false, fmt.Errorf("enqueueing the request: %w", err)
	}
	failpoint.Hit(failpoint.ReceiverAfterEnqueue)
	return isDuplicate, nil
}
