package signing

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

// Reasons for which a log entry is owed no more though it was not made, beside those of a policy that says not to sign: why
// stands in the log_debt_paid event.
const (
	// DebtLocked: an immutability rule keeps the tag as it is. If this Harbor takes bundles, a logged one stands in.
	DebtLocked = "locked"
	// DebtOff: the policy asks for no entry any more.
	DebtOff = "transparency_off"
	// DebtGone: the manifest is no longer in Harbor.
	DebtGone = "gone"
)

// enqueueDebt asks for the log entries of a manifest that was signed without.
func (s *Service) enqueueDebt(ctx context.Context, j *job) error {
	r := j.request
	_, err := s.cfg.Queue.EnqueueDebt(ctx, artifact.Request{
		Ref: r.Ref, Lane: artifact.Debt, Origin: r.Origin, Actor: r.Actor, CorrelationID: r.CorrelationID, RequestedAt: s.cfg.Now().UTC(),
		Parent: r.Parent, Depth: r.Depth, PushedAt: r.PushedAt, SignedBefore: true,
	})
	if err != nil {
		return fmt.Errorf("enqueueing the log entries that are owed: %w", err)
	}
	return nil
}

// Pay makes one attempt at the log entries that a manifest's signatures lack, and ends the delivery, unless ctx ends first. It
// may be called for a manifest that owes nothing. A debt is never given up: it ends when the entries are in the registry, or
// when the policy as it is then asks for none.
//
// What is there is completed with the same bytes; a bundle that waited for its entry is signed now; what has been removed since
// is made anew. All of it is as in a request for the same manifest under a policy that requires the entry, and so are the crashes
// up to the point where it is verified. From there on: before the record, the next attempt finds the entries and records them;
// between record and acknowledgement, it records an event with the same id; after it, what somebody may have signed without an
// entry meanwhile, whose debt was refused as a duplicate of this one, is not looked for: a sweep finds it.
func (s *Service) Pay(ctx context.Context, d Delivery) {
	j := &job{delivery: d, request: d.Request(), debt: true}
	failpoint.Hit(failpoint.DebtReceived)
	settled, err := s.tryToPay(ctx, j)
	if err != nil {
		s.failToPay(ctx, j, err)
		return
	}
	s.metrics.debts.WithLabelValues(settled.reason).Inc()
	s.cfg.Logger.Info().
		Str("project", j.request.Ref.Project()).Str("repository", j.request.Ref.Repository()).Str("digest", j.request.Ref.Digest()).
		Str("outcome", string(artifact.LogPaid)).Str("reason", settled.reason).
		Str("correlation_id", j.request.CorrelationID).Uint64("attempts", d.Attempts()).Msg("log entries are owed no more")
}

// settlement is how a debt ended.
type settlement struct {
	reason     string // empty if the entries are there
	signatures []artifact.Evidence
	note       string
	// anew says that a signature had gone, and not its entry alone.
	anew bool
}

func (s *Service) tryToPay(ctx context.Context, j *job) (settled settlement, err error) {
	defer s.recovered(j, &err)
	for range policyTries {
		settled, err = s.settle(ctx, j)
		if err != nil && s.projectIsGone(ctx, j, err) {
			settled, err = settlement{reason: DebtGone}, nil
		}
		if err != nil {
			return settled, err
		}
		if old, err := s.outdated(ctx, j, settled); err != nil {
			return settled, err
		} else if !old {
			return settled, s.clear(ctx, j, settled)
		}
	}
	return settled, fault.Newf(fault.Transient, fault.PolicyUnreadable, "the policy was changed %d times during the attempt", policyTries)
}

// outdated says whether a debt that ends by the policy's word ends by that of an older one.
func (s *Service) outdated(ctx context.Context, j *job, settled settlement) (bool, error) {
	if settled.reason == "" || settled.reason == DebtGone {
		return false, nil
	}
	return s.policyChanged(ctx, j)
}

// settle does what is left to do up to the point where the outcome is certain.
func (s *Service) settle(ctx context.Context, j *job) (settlement, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AttemptTimeout)
	defer cancel()
	ref := j.request.Ref
	var err error
	if j.policy, err = s.policyOf(ctx, ref); err != nil {
		return settlement{}, err
	}
	if err := s.paused(j.policy); err != nil {
		return settlement{}, err
	}
	d, err := s.admit(ctx, ref, j.policy)
	if err != nil {
		return settlement{}, err
	}
	if !d.Sign {
		return waived(d), nil
	}
	need, err := s.cfg.Verifier.Require(ctx, j.policy)
	if err != nil {
		return settlement{}, err
	}
	if !slices.ContainsFunc(need.Formats, func(f artifact.Format) bool { return need.needsEntry(f) || need.defersEntry(f) }) {
		return settlement{reason: DebtOff}, nil
	}
	m, description, err := s.manifest(ctx, j)
	if fault.Is(err, fault.Gone) {
		return settlement{reason: DebtGone}, nil
	}
	if err != nil {
		return settlement{}, err
	}
	j.subject = subjectOf(j.request, description)
	j.subject.Signed = true // or nothing would be owed
	d, err = s.decide(ctx, j, j.policy)
	if fault.Is(err, fault.Gone) {
		return settlement{reason: DebtGone}, nil
	}
	if err != nil {
		return settlement{}, err
	}
	if !d.Sign {
		return waived(d), nil
	}
	return s.pay(ctx, j, m, need)
}

// waived is for a policy that says that the manifest is not to be signed any more.
func waived(d policy.Decision) settlement {
	return settlement{reason: string(d.Reason), note: d.Detail}
}

// pay makes the entries and attaches them.
func (s *Service) pay(ctx context.Context, j *job, subject artifact.Manifest, need Requirement) (settlement, error) {
	out, err := s.fulfil(ctx, j, subject, need.logged(), outcome{})
	if changed := (*changedError)(nil); errors.As(err, &changed) {
		return waived(changed.decision), nil
	}
	locked := out.standsIn
	if err != nil && fault.Of(err).Reason == fault.Immutable {
		// SPEC: Harbor answers 412 to a put that an immutability rule forbids. No attempt would ever end otherwise, and the
		// signature is as good as it was.
		locked, out, err = true, outcome{note: err.Error()}, nil
	}
	if err != nil {
		return settlement{}, err
	}
	settled := settlement{signatures: out.signatures, note: out.note, anew: out.lost && out.how == artifact.Made}
	if !locked {
		return settled, nil
	}
	// The signature under the tag counts as it is, beside what stands in for the entry.
	now, err := s.cfg.Verifier.Verify(ctx, j.request.Ref, need)
	if err != nil {
		return settlement{}, fmt.Errorf("looking at the locked tag: %w", err)
	}
	settled.reason = DebtLocked
	for _, e := range now.Signatures {
		if !slices.Contains(settled.signatures, e) {
			settled.signatures = append(settled.signatures, e)
		}
	}
	return settled, nil
}

// clear records that the debt is settled, and removes it from the queue.
func (s *Service) clear(ctx context.Context, j *job, settled settlement) error {
	if settled.anew {
		out := outcome{kind: artifact.Signed, how: artifact.Made, signatures: settled.signatures, note: settled.note}
		if err := s.record(ctx, s.event(j, out)); err != nil {
			return fmt.Errorf("recording what was signed anew: %w", err)
		}
	}
	e := s.newEvent(j, artifact.LogPaid, settled.reason)
	e.Detail = settled.note
	// The time at which the queue took it tells this debt from a later one of the same cause.
	parts := []string{e.CorrelationID, settled.reason, strconv.FormatInt(j.delivery.FirstSeen().UnixNano(), 10)}
	e.ID = artifact.EventID(e.Kind, e.Ref, append(parts, name(&e, settled.signatures)...)...)
	if err := s.record(ctx, e); err != nil {
		return fmt.Errorf("recording that nothing is owed: %w", err)
	}
	failpoint.Hit(failpoint.DebtAfterEvent)
	err := j.delivery.Done(ctx)
	failpoint.Hit(failpoint.DebtAfterAck)
	if settled.reason == "" {
		s.oweAgain(ctx, j) // after an error too: the acknowledgement may have arrived
	}
	if err != nil {
		return fmt.Errorf("acknowledging: %w", err)
	}
	return nil
}

// oweAgain looks for what somebody has signed without an entry while this debt was paid: the queue has refused its debt as a
// duplicate of this one. It comes after the acknowledgement, because before it the queue would refuse this one as well.
func (s *Service) oweAgain(ctx context.Context, j *job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requeueTimeout)
	defer cancel()
	p, err := s.policyOf(ctx, j.request.Ref)
	if err == nil && p.Terms.Transparency == policy.TransparencyDeferred {
		var need Requirement
		var verdict Verdict
		if need, err = s.cfg.Verifier.Require(ctx, p); err == nil {
			verdict, err = s.cfg.Verifier.Verify(ctx, j.request.Ref, need)
		}
		if err == nil && len(verdict.Owed) > 0 {
			err = s.enqueueDebt(ctx, j)
		}
	}
	if err != nil {
		s.cfg.Logger.Warn().Err(err).Str("project", j.request.Ref.Project()).Str("repository", j.request.Ref.Repository()).
			Str("digest", j.request.Ref.Digest()).Msg("looking for signatures without a log entry failed: the next sweep will find them")
	}
}

// failToPay gives a debt back, whatever failed: nothing is lost by waiting, and the signature without the entry is there.
func (s *Service) failToPay(ctx context.Context, j *job, err error) {
	f := fault.Of(err)
	log := s.cfg.Logger.With().
		Str("project", j.request.Ref.Project()).Str("repository", j.request.Ref.Repository()).Str("digest", j.request.Ref.Digest()).
		Str("correlation_id", j.request.CorrelationID).Uint64("attempts", j.delivery.Attempts()).
		Str("kind", string(f.Kind)).Str("reason", string(f.Reason)).Logger()
	if ctx.Err() != nil {
		log.Info().Err(err).Msg("attempt interrupted: the debt goes back to the queue")
		return
	}
	does, delay := s.judgeDebt(f, s.failures(j))
	if does == wait {
		s.postpone(ctx, j, f, delay, log)
		return
	}
	s.metrics.failed(artifact.Failed, f)
	log.Warn().Err(err).Dur("delay_ms", delay).Msg("the log entries that are owed were not made: they will be tried again")
	if err := j.delivery.Retry(ctx, delay); err != nil {
		log.Warn().Err(err).Msg("giving the debt back failed: the queue will deliver it when its deadline has passed")
	}
}
