package signing

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// changedError says that the policy, which said sign when the attempt began, says something else when the key is about to.
type changedError struct{ decision policy.Decision }

// Error implements error.
func (e *changedError) Error() string {
	return "the policy has changed meanwhile: " + string(e.decision.Reason)
}

func (s *Service) policyOf(ctx context.Context, ref artifact.Ref) (policy.Policy, error) {
	p, err := s.cfg.Policies.Policy(ctx, ref.Project())
	if err != nil {
		return p, fault.Newf(fault.Transient, fault.PolicyUnreadable, "reading the policy: %w", err)
	}
	return p, nil
}

// paused gives the fault of a request that has to wait. One that nothing would be done about does not. The longer a pause has
// lasted, the more seldom a request asks for its end: a hundred thousand of them would keep the queue busy otherwise.
func (s *Service) paused(p policy.Policy) error {
	if p.Pause == nil || !policy.Admit(p).Sign {
		return nil
	}
	wait := min(max(s.cfg.Now().Sub(p.Pause.At)/2, leastPause), lastDelay)
	return fault.After(wait, fault.Paused, fmt.Errorf("signing is paused by %.64q: %.200q", p.Pause.By, p.Pause.Reason))
}

// admit decides for the project. One of another id is another project under the same name, for which nobody has enabled
// signing. Whatever keeps that from being told is transient.
func (s *Service) admit(ctx context.Context, ref artifact.Ref, p policy.Policy) (policy.Decision, error) {
	d := policy.Admit(p)
	if !d.Sign || p.ProjectID == 0 {
		return d, nil
	}
	id, err := s.cfg.Harbor.ProjectID(ctx, ref.Project())
	if err == nil && id != p.ProjectID {
		// It may be the id of before the project was made anew, for which signing was enabled just now.
		var now artifact.Project
		now, err = s.cfg.Harbor.Project(ctx, ref.Project())
		id = now.ID
	}
	if err != nil {
		f := fault.Of(err)
		if f.Kind == fault.Gone {
			f.Reason = fault.Denied // deleted, or not this account's to see: projectIsGone tells
		}
		return policy.Decision{}, fault.After(f.RetryAfter, f.Reason, fmt.Errorf("asking Harbor for the project's id: %w", err))
	}
	if id != p.ProjectID {
		p.SuspendedFor = id
	}
	return policy.Admit(p), nil
}

func subjectOf(r artifact.Request, description artifact.Description) policy.Subject {
	subject := policy.Subject{Ref: r.Ref, Accessory: description.Accessory, Child: r.Parent != "", Signed: r.SignedBefore}
	if r.PushedAt != nil {
		subject.PushedAt = *r.PushedAt
	}
	return subject
}

// decide decides for the manifest of the job. What costs a request is asked where it matters, and once in an attempt. The
// fault is Gone if Harbor does not list the manifest.
func (s *Service) decide(ctx context.Context, j *job, p policy.Policy) (policy.Decision, error) {
	j.subject.Now = s.cfg.Now()
	if !p.NeedsTags() || j.subject.Child || j.subject.Signed {
		return s.backfilled(ctx, j, p, policy.Decide(p, j.subject))
	}
	whatever := j.subject
	whatever.Child = true
	switch d := policy.Decide(p, whatever); d.Reason {
	case policy.IsAccessory, policy.Blocked, policy.Exempt, policy.OutOfScope:
		return d, nil // whatever its tags are
	default:
	}
	if !j.tagged {
		listed, err := s.cfg.Harbor.Artifact(ctx, j.subject.Ref)
		if err != nil {
			return policy.Decision{}, fmt.Errorf("asking Harbor for the tags: %w", err)
		}
		j.subject.Tags, j.tagged = listed.Tags, true
	}
	d := policy.Decide(p, j.subject)
	switch d.Reason {
	case policy.NoTag, policy.TagOutOfScope, policy.TagExcluded:
	default:
		return s.backfilled(ctx, j, p, d)
	}
	// A child of an index is in scope whatever its tags are, whoever asks for it first: its own push or the index.
	queued, err := s.cfg.Queue.LastQueued(ctx, j.subject.Ref)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("looking for an index that names the manifest: %w", err)
	}
	if queued == 0 {
		return d, nil
	}
	j.subject.Child = true
	return s.backfilled(ctx, j, p, policy.Decide(p, j.subject))
}

// backfilled decides again about a manifest that is too old for the policy by the time at which Harbor got it: a push of now,
// or an index that names it, may have been refused because this request waited already.
func (s *Service) backfilled(ctx context.Context, j *job, p policy.Policy, d policy.Decision) (policy.Decision, error) {
	if d.Reason != policy.NotBackfilled {
		return d, nil
	}
	subject := j.subject
	_, event, err := s.cfg.Queue.LastReceived(ctx, subject.Ref)
	if err != nil {
		return d, fmt.Errorf("looking for a push of the manifest: %w", err)
	}
	if event.Time.Before(p.From) { // as that of no push is
		queued, err := s.cfg.Queue.LastQueued(ctx, subject.Ref)
		if err != nil {
			return d, fmt.Errorf("looking for an index that names the manifest: %w", err)
		}
		if queued == 0 {
			return d, nil
		}
		subject.Child = true
	}
	subject.PushedAt = time.Time{}
	return policy.Decide(p, subject), nil
}

// decideAgain decides with the policy as it is now. It comes right before the key signs, so that a pause, a block and a
// project that is disabled stop what is in work too. The error is a [changedError] if the answer is another one now.
func (s *Service) decideAgain(ctx context.Context, j *job) error {
	ref := j.request.Ref
	p, err := s.policyOf(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.paused(p); err != nil {
		return err
	}
	d, err := s.admit(ctx, ref, p)
	if err == nil && d.Sign {
		d, err = s.decide(ctx, j, p)
	}
	if err != nil {
		return fmt.Errorf("deciding again: %w", err)
	}
	if !d.Sign {
		j.policy = p // it is the one that the event names
		return &changedError{d}
	}
	return nil
}

// overtaken says whether an outcome that rests on the policy's word is that of an older policy. Nobody would come back to it.
func (s *Service) overtaken(ctx context.Context, j *job, out outcome) (bool, error) {
	if out.reason == "" || out.reason == policy.IsAccessory {
		return false, nil
	}
	return s.policyChanged(ctx, j)
}

// policyChanged says whether the policy is another one than the attempt's.
func (s *Service) policyChanged(ctx context.Context, j *job) (bool, error) {
	fresh, err := s.cfg.Policies.Fresh(ctx, j.request.Ref.Project())
	if err != nil {
		return false, fault.Newf(fault.Transient, fault.PolicyUnreadable, "reading the policy again: %w", err)
	}
	return !reflect.DeepEqual(fresh, j.policy), nil
}

// notSigned is the outcome of a decision that says no.
func notSigned(d policy.Decision, mediaType string) outcome {
	out := outcome{kind: artifact.Skipped, reason: d.Reason, note: d.Detail, mediaType: mediaType}
	if d.Reason == policy.Blocked {
		out.kind = artifact.Blocked
	}
	return out
}
