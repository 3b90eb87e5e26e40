package status

import (
	"context"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxBelow bounds how many manifests there may be below an index, and maxDepth how deep: more than signers work on.
	maxBelow = 2000
	maxDepth = 8
	// shownChildren is how many unsigned ones an answer names.
	shownChildren = 20
)

// judge says how the image stands, by what is known now.
func (i *inquiry) judge(ctx context.Context) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, i.s.cfg.Timeout)
	defer cancel()
	known := i.known[i.ref]
	switch ledger.State(known.State) {
	case ledger.Signed:
		return i.signed(ctx, known)
	case "", ledger.Gone:
		return i.unknown(ctx, known.State == "")
	case ledger.Pending, ledger.Failed:
		if answer, barred, err := i.barred(ctx); err != nil || barred {
			return answer, err
		}
		return i.waiting(ctx)
	default:
		return i.settled(ctx)
	}
}

// unknown is for what the ledger never heard of, or what was gone: if Harbor has it, it is asked for.
func (i *inquiry) unknown(ctx context.Context, never bool) (Answer, error) {
	const detail = "nobody had asked for it yet: that was done"
	if i.asked && never {
		return i.pending(Asked, detail), nil
	}
	there, err := i.there(ctx)
	switch {
	case err != nil:
		return Answer{}, err
	case !there:
		return i.missing(), nil
	case i.asked:
		return i.pending(Asked, detail), nil
	default:
		return i.requested(ctx, Asked, detail)
	}
}

// requested asks for the image, and answers that it is pending for a reason.
func (i *inquiry) requested(ctx context.Context, reason, detail string) (Answer, error) {
	if answer, barred, err := i.barred(ctx); err != nil || barred {
		return answer, err
	}
	why, err := i.request(ctx)
	switch {
	case err != nil:
		return Answer{}, err
	case why != "":
		return i.refused(string(why), "the project's policy does not have it signed"), nil
	default:
		return i.pending(reason, detail), nil
	}
}

// barred looks at what the policy says now of a manifest of which nothing but its name is known.
func (i *inquiry) barred(ctx context.Context) (Answer, bool, error) {
	p, err := i.policy(ctx)
	if err != nil {
		return Answer{}, false, err
	}
	// As a child its tags do not matter: they are the signer's to read.
	d := policy.Decide(p, policy.Subject{Ref: i.ref, Child: true, Now: i.s.cfg.Now()})
	if d.Sign {
		return Answer{}, false, nil
	}
	return i.refused(string(d.Reason), d.Detail), true, nil
}

func (i *inquiry) policy(ctx context.Context) (policy.Policy, error) {
	p, err := i.s.cfg.Policies.Policy(ctx, i.ref.Project())
	if err != nil {
		return policy.Policy{}, fault.New(fault.Transient, fault.PolicyUnreadable, fmt.Errorf("asking for the policy: %w", err))
	}
	return p, nil
}

// waiting is for what a request is waiting for, or is to be tried again.
func (i *inquiry) waiting(ctx context.Context) (Answer, error) {
	p, err := i.policy(ctx)
	if err != nil {
		return Answer{}, err
	}
	if p.Pause != nil {
		answer := i.pending(SigningPaused, "signing is paused by "+p.Pause.By+" since "+p.Pause.At.UTC().Format(time.RFC3339)+": "+p.Pause.Reason)
		answer.WhatToDo = "wait, or ask an operator: requests are kept and go on when signing is resumed"
		return answer, nil
	}
	if ledger.State(i.known[i.ref].State) == ledger.Failed {
		row, _, err := i.s.cfg.View.One(ctx, i.ref)
		if err != nil {
			return Answer{}, err
		}
		answer := i.pending(Retrying, row.Reason+": "+row.Detail)
		answer.WhatToDo = "wait: it is tried again by itself"
		return answer, nil
	}
	return i.pending(Queued, ""), nil
}

// settled is for what a signer has decided about, or has given up. What was decided by another policy is asked for again.
func (i *inquiry) settled(ctx context.Context) (Answer, error) {
	if answer, barred, err := i.barred(ctx); err != nil || barred {
		return answer, err
	}
	row, found, err := i.s.cfg.View.One(ctx, i.ref)
	if err != nil {
		return Answer{}, err
	}
	p, err := i.policy(ctx)
	switch {
	case err != nil:
		return Answer{}, err
	case found && (row.State == ledger.Dead || row.State == ledger.Skipped && row.PolicyRevision == p.Revision && !passes(row)):
		return i.refused(row.Reason, row.Detail), nil
	case i.asked, !found, row.State == ledger.Pending, row.State == ledger.Signed:
		// The row is newer than what was known a moment ago, or older than the request: news is on its way.
		return i.pending(Asked, "it was asked for"), nil
	default:
		return i.requested(ctx, Asked, "what kept it from being signed has changed: it was asked for again")
	}
}

// passes says whether what kept a manifest from being signed ends without a change of the policy: an exemption expires, and only what
// the policy says now, which barred has looked at, counts.
func passes(row ledger.Row) bool { return row.Reason == string(policy.Exempt) }

func (i *inquiry) pending(reason, detail string) Answer {
	answer := Answer{Outcome: Pending, State: i.known[i.ref].State, Reason: reason, Detail: detail}
	if answer.State == "" || ledger.State(answer.State) == ledger.Gone {
		answer.State = string(ledger.Pending)
	}
	return answer
}

func (i *inquiry) refused(reason, detail string) Answer {
	return Answer{Outcome: Refused, State: i.known[i.ref].State, Reason: reason, Detail: detail, WhatToDo: whatToDo(reason)}
}

// signed is for what the ledger calls signed.
func (i *inquiry) signed(ctx context.Context, known artifact.Known) (Answer, error) {
	carriers, ok := carriersOf(known)
	var oldest time.Time
	if ok {
		missing, at, err := i.s.checks.look(ctx, carriers)
		if err != nil {
			return Answer{}, err
		}
		ok, oldest = len(missing) == 0, at
	}
	if !ok {
		return i.vanished(ctx)
	}
	answer := Answer{Outcome: Signed, State: string(ledger.Signed), Signatures: known.Signatures, CheckedAt: utc(oldest)}
	return i.withChildren(ctx, answer, oldest)
}

// vanished is for what is called signed and has no signature any more: the image went with it, or it is asked for again.
func (i *inquiry) vanished(ctx context.Context) (Answer, error) {
	const detail = "the ledger calls it signed, and a recorded signature is not in the registry: it was asked for again"
	if i.asked {
		return i.pending(SignatureMissing, detail), nil
	}
	there, err := i.there(ctx)
	if err != nil {
		return Answer{}, err
	}
	if !there {
		return i.missing(), nil
	}
	return i.requested(ctx, SignatureMissing, detail)
}

// carriersOf are the manifests that carry the recorded signatures; ok is false if none is known.
func carriersOf(known artifact.Known) (carriers []artifact.Ref, ok bool) {
	for _, s := range known.Signatures {
		ref, err := known.Ref.Sibling(s.Digest)
		if err != nil {
			return nil, false
		}
		carriers = append(carriers, ref)
	}
	return carriers, len(carriers) > 0
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
