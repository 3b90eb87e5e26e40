package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// owes gives the formats in which a log entry is still to be made for signatures.
func (s *pass) owes(ctx context.Context, ref artifact.Ref, evidence []artifact.Evidence) (owed []artifact.Format, err error) {
	err = s.guarded(ref, func() (err error) {
		owed, err = s.r.cfg.Verifier.Owes(ctx, s.policy, evidence)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("judging whether a log entry is owed for %s: %w", ref, err)
	}
	return owed, nil
}

// collect notes the debt of a manifest that is signed, if it has one. Usually it waits already.
func (s *pass) collect(ctx context.Context, l artifact.Listed, evidence []artifact.Evidence, parent string) error {
	owed, err := s.owes(ctx, l.Ref, evidence)
	if err != nil {
		return endless(s.failed(ctx, l, err)) // and the next sweep looks again
	}
	if len(owed) == 0 {
		return nil
	}
	request := artifact.Request{
		Ref: l.Ref, Lane: artifact.Debt, Origin: artifact.OriginSweep, Actor: actor, CorrelationID: s.correlation,
		RequestedAt: time.Now().UTC(), Parent: parent, SignedBefore: true,
	}
	if parent != "" {
		request.Depth = 1
	} else if !l.PushedAt.IsZero() {
		at := l.PushedAt.UTC()
		request.PushedAt = &at
	}
	duplicate, err := s.r.cfg.Queue.EnqueueDebt(ctx, request)
	switch {
	case err != nil:
		return fmt.Errorf("noting the debt of %s: %w", l.Ref, err)
	case duplicate:
		s.r.metrics.debts.WithLabelValues("waiting").Inc()
	default:
		s.r.metrics.debts.WithLabelValues("noted").Inc()
		s.about(l.Ref).Info().Str("outcome", "owed").Msg("signed manifest found whose log entry is still to be made")
	}
	return nil
}
