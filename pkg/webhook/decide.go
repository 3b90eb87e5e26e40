package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// handle decides on a valid delivery and publishes what follows from it.
func (h *Handler) handle(ctx context.Context, project string, d Delivery) (Answer, *refusal) {
	if len(d.Pushes) == 0 {
		h.cfg.Logger.Info().Str("project", bounded(project, maxPusher)).Str("type", d.Type).
			Str("outcome", string(ignored)).Str("reason", string(policy.NotAPush)).Msg("webhook handled")
		return Answer{Status: string(ignored), Reason: string(policy.NotAPush)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.PublishTimeout)
	defer cancel()
	p, err := h.cfg.Policies.Policy(ctx, d.Project)
	if err != nil {
		return Answer{}, unavailableRefusal(d.Pushes[0].Ref, "The policies of the projects are not loaded.", fmt.Errorf("asking for the policy: %w", err))
	}
	answers := make([]ArtifactAnswer, 0, len(d.Pushes))
	for _, push := range d.Pushes {
		answer, refused := h.handlePush(ctx, p, push)
		if refused != nil {
			// What was published for the pushes before this one stays; the repetition finds it and publishes it once.
			return Answer{}, refused
		}
		answers = append(answers, answer)
	}
	return summary(answers), nil
}

func (h *Handler) handlePush(ctx context.Context, p policy.Policy, push Push) (ArtifactAnswer, *refusal) {
	answer := ArtifactAnswer{Digest: push.Ref.Digest()}
	if reason := h.classify(p, push); reason != "" {
		answer.Status, answer.Reason = string(ignored), string(reason)
	} else {
		id := h.eventID(push)
		isDuplicate, refused := h.ask(ctx, id, p, push)
		if refused != nil {
			return ArtifactAnswer{}, refused
		}
		answer.Status, answer.CorrelationID = string(queued), id
		if isDuplicate {
			answer.Status = string(duplicate)
		}
	}
	h.cfg.Logger.Info().Str("project", push.Ref.Project()).Str("repository", push.Ref.Repository()).Str("digest", push.Ref.Digest()).
		Str("tag", push.Tag).Str("correlation_id", answer.CorrelationID).Str("outcome", answer.Status).Str("reason", answer.Reason).
		Msg("webhook handled")
	return answer, nil
}

// classify gives the reason for which nothing follows from a push, or nothing. It only saves work: the signer decides again
// with the manifest before it, and in the mode observe says what it would do. What is ignored comes into no ledger, so that a
// guess about tags and accounts hides nothing: sweeps ask for all that Harbor lists as an artifact.
func (h *Handler) classify(p policy.Policy, push Push) policy.Reason {
	if d := policy.Admit(p); !d.Sign {
		return d.Reason
	}
	switch {
	case artifact.IsAccessoryTag(push.Tag):
		return policy.IsAccessory
	case push.Tag == "" && slices.Contains(h.cfg.OwnOperators, push.Pusher):
		// A signature as a referrer comes as a push by digest, which nothing but its operator tells from an image.
		return policy.OwnPush
	case !p.Repositories.Matches(push.Ref.Name()):
		// Certain without the manifest: neither its tags nor an index that names it can bring it into scope.
		return policy.OutOfScope
	default:
		return ""
	}
}

// eventID is the same for every repetition of a delivery and in both formats: Harbor's own id (CloudEvents) is missing in
// the Default format, but the time of the push in seconds is in both.
func (h *Handler) eventID(push Push) string {
	return artifact.EventID(artifact.Received, push.Ref, h.cfg.HarborName, push.Tag, push.Pusher, strconv.FormatInt(push.PushedAt.Unix(), 10))
}

// ask publishes if the queue is worth asking.
func (h *Handler) ask(ctx context.Context, id string, p policy.Policy, push Push) (isDuplicate bool, refused *refusal) {
	t, why := h.gate.enter()
	if t == nil {
		err := fault.Newf(fault.Transient, why, "the queue failed before (%s), and was not asked", why)
		refused := publishRefusal(push, err)
		refused.outcome = notTried
		return false, refused
	}
	var err error
	done := false // a panic tells nothing about the queue
	defer func() { t.end(done, err) }()
	isDuplicate, err = h.publish(ctx, id, p, push)
	done = true
	if err != nil {
		return false, publishRefusal(push, err)
	}
	return isDuplicate, nil
}

// publish appends the received event to the ledger, then the request to the queue. In this order, because the request
// carries the event's sequence, and a signer that finishes looks for later events to see whether it swallowed a push.
//
// A crash before Record leaves nothing: Harbor was not answered and repeats the delivery. A crash between the two leaves an
// event without a request: the repetition has the same id, so the ledger holds one event, and enqueues it. A crash after
// Enqueue, before the answer, repeats both: a duplicate, or a request for a manifest that is signed already. Where Harbor
// does not repeat, because this was its third attempt, the sweep finds the manifest.
func (h *Handler) publish(ctx context.Context, id string, p policy.Policy, push Push) (isDuplicate bool, err error) {
	now := h.cfg.Now().UTC()
	seq, err := h.cfg.Queue.Record(ctx, artifact.Event{
		Version:       artifact.Version,
		ID:            id,
		Kind:          artifact.Received,
		Ref:           push.Ref,
		Time:          now,
		Actor:         push.Pusher,
		Origin:        artifact.OriginWebhook,
		CorrelationID: id,
		Tag:           push.Tag,
		Pusher:        push.Pusher,
		PushedAt:      &push.PushedAt,
		Canary:        p.Canary,
	})
	if err != nil {
		return false, fmt.Errorf("recording the received event: %w", err)
	}
	failpoint.Hit(failpoint.ReceiverAfterRecord)
	lane := h.budgets.lane(push.Ref.Project(), p.Rate, now)
	h.metrics.pushes.WithLabelValues(string(lane)).Inc()
	isDuplicate, err = h.cfg.Queue.Enqueue(ctx, artifact.Request{
		Version:       artifact.Version,
		Ref:           push.Ref,
		Lane:          lane,
		Origin:        artifact.OriginWebhook,
		Actor:         push.Pusher,
		CorrelationID: id,
		RequestedAt:   now,
		ReceivedSeq:   seq,
	})
	if err != nil {
		return false, fmt.Errorf("enqueueing the request: %w", err)
	}
	failpoint.Hit(failpoint.ReceiverAfterEnqueue)
	return isDuplicate, nil
}

// publishRefusal answers every failure of the queue alike, whatever its kind: nothing that Harbor could change would help,
// and a repetition harms nothing. Only the text differs.
func publishRefusal(push Push, err error) *refusal {
	detail := "The queue did not acknowledge the push."
	switch {
	case fault.Of(err).Reason == fault.QueueFull:
		detail = "The queue is full."
	case errors.Is(err, context.DeadlineExceeded):
		detail = "The queue did not acknowledge the push in time."
	}
	return unavailableRefusal(push.Ref, detail, err)
}

// summary makes one answer of all. What was queued says more than what was ignored.
func summary(answers []ArtifactAnswer) Answer {
	best := answers[0]
	for _, a := range answers[1:] {
		if rank(a.Status) > rank(best.Status) {
			best = a
		}
	}
	all := Answer{Status: best.Status, Reason: best.Reason, CorrelationID: best.CorrelationID}
	if len(answers) > 1 {
		all.Artifacts = answers
	}
	return all
}

func rank(status string) int {
	return slices.Index([]string{string(ignored), string(duplicate), string(queued)}, status)
}
