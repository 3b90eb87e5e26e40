package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	answer, err := h.door.enter(ctx, p, h.door.visitOf(push))
	if err != nil {
		return ArtifactAnswer{}, publishRefusal(push, err)
	}
	h.cfg.Logger.Info().Str("project", push.Ref.Project()).Str("repository", push.Ref.Repository()).Str("digest", push.Ref.Digest()).
		Str("tag", push.Tag).Str("correlation_id", answer.CorrelationID).Str("outcome", answer.Status).Str("reason", answer.Reason).
		Msg("webhook handled")
	return answer, nil
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
	refused := unavailableRefusal(push.Ref, detail, err)
	if errors.Is(err, errNotTried) {
		refused.outcome = notTried
	}
	return refused
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
