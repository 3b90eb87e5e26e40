package reconcile

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// The states of the report that matter here.
const (
	isSigned   = "signed"
	isPending  = "pending"
	isFailed   = "failed"
	isDead     = "dead"
	isSkipped  = "skipped"
	isGone     = "gone"
	isUnsigned = "unsigned"
	isBlocked  = "blocked"
)

// maxUnanswered is how many failing checks in a row that may be a sign of an outage one sweep bears.
const maxUnanswered = 10

// errPanicked stands for a check that panicked.
var errPanicked = errors.New("the check panicked")

// subject is what is known of a manifest, by the listing and the ledger.
func subject(l artifact.Listed, k artifact.Known) policy.Subject {
	return policy.Subject{
		Ref: l.Ref, Tags: l.Tags, PushedAt: l.PushedAt, Now: time.Now(),
		Accessory: isAccessory(k), Signed: signedBefore(k),
	}
}

// isAccessory says that a signer has read the manifest and found that it belongs to another one. That stays so: the digest
// names the content. Nothing else is proof of it, such as a tag like those of cosign, or who has pushed it: whatever Harbor
// lists as an artifact, signers are asked for once.
func isAccessory(k artifact.Known) bool {
	return k.State == isSkipped && k.Reason == string(policy.IsAccessory)
}

// signedBefore holds for ever, also where the manifest was gone meanwhile: else a sweep would decide by what another one wrote.
func signedBefore(k artifact.Known) bool { return len(k.Signatures) > 0 }

// isObserved says that the ledger has it that a manifest would be signed if the mode were not observe.
func isObserved(k artifact.Known) bool {
	return (k.State == isUnsigned || k.State == isSkipped) && k.Reason == string(policy.Observed)
}

// examine decides about one manifest.
func (s *pass) examine(ctx context.Context, l artifact.Listed, k artifact.Known) error {
	d := policy.Decide(s.policy, subject(l, k))
	switch {
	case d.Sign, d.Reason == policy.Observed:
		s.held.parent(l)
		return s.inScope(ctx, l, k, d, "")
	case d.Reason == policy.Blocked:
		return s.blocked(ctx, l, k, d)
	case s.held.takes(d):
		return s.held.add(l, k, d)
	default:
		return s.excluded(ctx, l, k, d)
	}
}

func (s *pass) blocked(ctx context.Context, l artifact.Listed, k artifact.Known, d policy.Decision) error {
	s.sum.Blocked++
	if k.State == isBlocked {
		return nil
	}
	return s.record(ctx, artifact.Event{Kind: artifact.Blocked, Ref: l.Ref, Reason: string(d.Reason), Detail: d.Detail})
}

// excluded records why a manifest is not to be signed. One that is signed all the same is called so as long as it is true.
func (s *pass) excluded(ctx context.Context, l artifact.Listed, k artifact.Known, d policy.Decision) error {
	s.sum.Excluded++
	if k.State == isSigned {
		if len(missingFrom(l, k.Signatures)) == 0 {
			return nil
		}
		fresh, asOf, err := s.afresh(ctx, l)
		if err != nil {
			return endless(err)
		}
		signed, _, err := s.check(ctx, fresh, k)
		if err != nil || signed {
			return endless(err)
		}
		if err := s.removed(ctx, fresh, k, asOf); err != nil {
			return err
		}
	} else if k.State == isSkipped && k.Reason == string(d.Reason) {
		return nil
	}
	return s.record(ctx, artifact.Event{Kind: artifact.Skipped, Ref: l.Ref, Reason: string(d.Reason), Detail: d.Detail})
}

// inScope looks at the signatures of a manifest that is to have some. parent is the index for which it is in scope, if that is
// why.
func (s *pass) inScope(ctx context.Context, l artifact.Listed, k artifact.Known, d policy.Decision, parent string) error {
	v, err := s.signed(ctx, l, k)
	asOf := s.reached
	if err == nil && k.State == isSigned && v.lost(l, k) {
		if l, asOf, err = s.afresh(ctx, l); err == nil {
			v, err = s.signed(ctx, l, k)
		}
	}
	if err := endless(err); err != nil {
		return err
	}
	if v.retired {
		s.sum.Retired++
	}
	if v.signed {
		s.sum.Signed++
		if d.Sign {
			if err := s.collect(ctx, l, v.evidence, parent); err != nil {
				return err
			}
		}
		if k.State == isDead {
			return s.r.cfg.Queue.ClearDead(ctx, l.Ref)
		}
		return nil
	}
	vanished := len(missingFrom(l, k.Signatures)) > 0 && (k.State == isSigned || k.State == isUnsigned)
	if err == nil && k.State == isSigned && v.lost(l, k) {
		if err := s.removed(ctx, l, k, asOf); err != nil {
			return err
		}
	}
	switch {
	case d.Reason == policy.Observed:
		s.sum.Unsigned++
		if err == nil && !isObserved(k) {
			return s.record(ctx, artifact.Event{
				Kind: artifact.Skipped, Ref: l.Ref, Reason: string(policy.Observed), Detail: "it would be signed if the mode were sign",
				AsOf: asOf,
			})
		}
		return nil
	case vanished && s.policy.Restore == policy.RestoreAlert:
		s.sum.Unsigned++
		return nil
	default:
		return s.request(ctx, l, k, parent)
	}
}

// removed records that signatures have vanished, or that those that are listed count no more, as of a sequence that the ledger
// had reached before that was seen: what was signed since stays so.
func (s *pass) removed(ctx context.Context, l artifact.Listed, k artifact.Known, asOf uint64) error {
	missing := missingFrom(l, k.Signatures)
	event := artifact.Event{
		Kind: artifact.Removed, Ref: l.Ref, Signatures: missing, Unsigned: true, AsOf: asOf,
		Detail: "a signature that was verified is no longer among those that Harbor lists",
	}
	if len(missing) == 0 {
		event.Signatures = k.Signatures
		event.Detail = "the signatures that were verified are listed and count no more: their key is not accepted any longer, or their tag was moved"
	}
	var parts []string
	for _, e := range event.Signatures {
		parts = append(parts, e.Digest)
	}
	if err := s.record(ctx, event, parts...); err != nil {
		return err
	}
	s.sum.Removed += len(missing)
	s.r.metrics.removed.Add(float64(len(missing)))
	return nil
}

// request asks for a manifest. A dead letter is asked for rarely: what somebody mended meanwhile, such as an expired robot
// account, heals by itself, and what stays broken costs one attempt each time.
func (s *pass) request(ctx context.Context, l artifact.Listed, k artifact.Known, parent string) error {
	since, dead, err := s.r.cfg.Queue.DeadSince(ctx, l.Ref)
	if err != nil {
		return fmt.Errorf("looking for a dead letter of %s: %w", l.Ref, err)
	}
	if dead && !s.at.Retries && time.Since(since) < s.r.cfg.DeadRetry {
		s.sum.Failed++
		return nil
	}
	request := artifact.Request{
		Ref: l.Ref, Lane: artifact.Bulk, Origin: artifact.OriginSweep, Actor: actor, CorrelationID: s.correlation,
		RequestedAt: time.Now().UTC(), Parent: parent, SignedBefore: signedBefore(k),
	}
	if parent != "" {
		request.Depth = 1 // it is signed because its index is, whenever it was pushed
	} else if !l.PushedAt.IsZero() {
		at := l.PushedAt.UTC()
		request.PushedAt = &at
	}
	duplicate, err := s.r.cfg.Queue.Enqueue(ctx, request)
	switch {
	case err != nil:
		return fmt.Errorf("asking for %s: %w", l.Ref, err)
	case duplicate:
		s.sum.Pending++
	default:
		s.sum.Requested++
		s.about(l.Ref).Info().Str("outcome", "requested").Bool("signed_before", request.SignedBefore).Bool("dead", dead).
			Msg("unsigned manifest found")
	}
	return nil
}

// guarded runs a check. One that panics is the failure of its digest alone: the next sweep would come to it again.
func (s *pass) guarded(ref artifact.Ref, check func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.about(ref).Error().Interface("panic", r).Bytes("stack", debug.Stack()).Msg("checking a manifest panicked: this is a bug")
			err = fault.New(fault.Transient, fault.Unknown, errPanicked)
		}
	}()
	return check()
}
