package reconcile

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// findGone looks at what the ledger knows of the project and the sweep has not seen. A listing alone proves nothing: Harbor is
// asked for each of them.
func (s *pass) findGone(ctx context.Context) error {
	confirmed := s.seen.count() > 0
	for {
		refs, next, err := s.r.cfg.Memory.Units(ctx, s.project, s.units, MaxBatch)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoMemory, err)
		}
		for _, ref := range refs {
			if ref.Project() != s.project || s.seen.has(ref) {
				continue
			}
			if !confirmed {
				if err := s.confirmEmpty(ctx); err != nil {
					return err
				}
				confirmed = true
			}
			if err := s.missing(ctx, ref); err != nil {
				return err
			}
			if err := s.beat(ctx, saveEach*4); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		s.units = next
		if err := s.beat(ctx, saveEach*4); err != nil {
			return err
		}
	}
}

// confirmEmpty asks whether the project is what it was: a listing that is suddenly empty is more often a lost right, or
// another project, than an empty project.
func (s *pass) confirmEmpty(ctx context.Context) error {
	p, err := s.r.cfg.Harbor.Project(ctx, s.project)
	if err != nil {
		return fmt.Errorf("asking for the project, which lists nothing: %w", err)
	}
	if s.policy.ProjectID != 0 && p.ID != s.policy.ProjectID {
		return fmt.Errorf("%w: %d instead of %d", errReplaced, p.ID, s.policy.ProjectID)
	}
	return nil
}

// missing looks at one manifest that the listing did not show.
func (s *pass) missing(ctx context.Context, ref artifact.Ref) error {
	asOf, err := s.ledgerSeq(ctx)
	if err != nil {
		return err
	}
	l, err := s.r.cfg.Harbor.Artifact(ctx, ref)
	switch {
	case fault.Is(err, fault.Gone):
		return s.gone(ctx, ref, asOf)
	case err != nil:
		s.unanswered++
		if ctx.Err() != nil || s.unanswered > maxUnanswered {
			return fmt.Errorf("asking whether %s is gone: %w", ref, err)
		}
		s.about(ref).Warn().Err(err).Msg("whether a manifest is gone cannot be told: the next sweep will ask again")
		return nil
	}
	s.unanswered = 0
	if !l.PushedAt.Before(s.harborBegan) {
		return nil // pushed since the listing passed by; recent sweeps see it
	}
	s.about(ref).Warn().Time("pushed_at", l.PushedAt).Msg("harbor's listing has left out a manifest that is there")
	return s.batch(ctx, []artifact.Listed{l})
}

// gone records that a manifest is no longer there. Its dead letter, if it has one, asks for what cannot be done.
//
// It may have been pushed again, and signed, since Harbor was asked: what was signed behind asOf stays.
func (s *pass) gone(ctx context.Context, ref artifact.Ref, asOf uint64) error {
	s.unanswered = 0
	if err := s.record(ctx, artifact.Event{
		Kind: artifact.Vanished, Ref: ref, AsOf: asOf, Detail: "no longer in Harbor's listing, and Harbor says that it is not there",
	}); err != nil {
		return err
	}
	if err := s.r.cfg.Queue.ClearDead(ctx, ref); err != nil {
		return fmt.Errorf("removing the dead letter of %s: %w", ref, err)
	}
	s.sum.Gone++
	return nil
}
