package status

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// withChildren completes the answer for a manifest that is signed itself: all below it have to be as well.
func (i *inquiry) withChildren(ctx context.Context, answer Answer, oldest time.Time) (Answer, error) {
	below, err := i.below(ctx)
	if err != nil {
		return Answer{}, err
	}
	if len(below) == 0 {
		return answer, nil
	}
	missing, at, err := i.s.checks.look(ctx, i.carriersBelow(below))
	if err != nil {
		return Answer{}, err
	}
	if !at.IsZero() && at.Before(oldest) {
		answer.CheckedAt = utc(at)
	}
	sum := &ChildrenSum{Total: len(below), Unsigned: []Child{}}
	hopeless := false
	for _, ref := range below {
		known := i.known[ref]
		child := Child{Digest: ref.Digest(), State: known.State, Reason: known.Reason}
		carriers, recorded := carriersOf(known)
		switch ledger.State(known.State) {
		case ledger.Signed:
			if recorded && !slices.ContainsFunc(carriers, func(c artifact.Ref) bool { return missing[c] }) {
				sum.Signed++
				continue
			}
			child.State, child.Reason = string(ledger.Unsigned), SignatureMissing
		case ledger.Dead, ledger.Skipped, ledger.Blocked, ledger.Gone:
			hopeless = true
		default:
		}
		if len(sum.Unsigned) < shownChildren {
			sum.Unsigned = append(sum.Unsigned, child)
		}
	}
	answer.Children = sum
	left := sum.Total - sum.Signed
	switch {
	case left == 0:
		return answer, nil
	case hopeless:
		answer.Outcome, answer.Reason = Refused, ChildRefused
		answer.Detail = fmt.Sprintf("the index itself is signed, %d of the %d manifests below it are not, and at least one will not be by itself: children names them", left, sum.Total)
		answer.WhatToDo = "ask about those children by their digests: each answer says what to do"
		return answer, nil
	}
	answer.Outcome, answer.Reason = Pending, Children
	answer.Detail = fmt.Sprintf("the index itself is signed, %d of the %d manifests below it are not yet", left, sum.Total)
	return answer, i.seeToChildren(ctx, below, missing)
}

// seeToChildren asks for the index again where nobody is at work on a child: the signer that works on an index asks for all below it.
func (i *inquiry) seeToChildren(ctx context.Context, below []artifact.Ref, missing map[artifact.Ref]bool) error {
	if i.asked {
		return nil
	}
	forgotten := slices.ContainsFunc(below, func(ref artifact.Ref) bool {
		known := i.known[ref]
		return known.State == "" || ledger.State(known.State) == ledger.Unsigned
	})
	if !forgotten && len(missing) == 0 {
		return nil
	}
	_, err := i.request(ctx)
	return err
}

// carriersBelow are the manifests that carry the recorded signatures of those below the index that are signed.
func (i *inquiry) carriersBelow(below []artifact.Ref) []artifact.Ref {
	var all []artifact.Ref
	for _, ref := range below {
		if known := i.known[ref]; ledger.State(known.State) == ledger.Signed {
			carriers, _ := carriersOf(known)
			all = append(all, carriers...)
		}
	}
	return all
}

// below gives all manifests below the index, each once, and follows them; none for an image.
func (i *inquiry) below(ctx context.Context) ([]artifact.Ref, error) {
	level, seen := []artifact.Ref{i.ref}, map[artifact.Ref]bool{i.ref: true}
	var all []artifact.Ref
	for depth := 0; len(level) > 0; depth++ {
		var next []artifact.Ref
		for _, parent := range level {
			children, err := i.childrenOf(ctx, parent)
			if err != nil {
				return nil, err
			}
			for _, digest := range children {
				ref, err := parent.Sibling(digest)
				if err != nil {
					return nil, fault.New(fault.Transient, fault.BadAnswer, err)
				}
				if !seen[ref] {
					seen[ref] = true
					next = append(next, ref)
				}
			}
		}
		all = append(all, next...)
		if len(all) > maxBelow || depth == maxDepth && len(next) > 0 {
			return nil, fault.Newf(fault.Permanent, fault.TooManyChildren, "there are more than %d manifests below the index, or more than %d levels of them", maxBelow, maxDepth)
		}
		if err := i.followNew(ctx, next); err != nil {
			return nil, err
		}
		level = next
	}
	return all, nil
}

// followNew follows those that are not followed yet.
func (i *inquiry) followNew(ctx context.Context, refs []artifact.Ref) error {
	unread := slices.DeleteFunc(slices.Clone(refs), func(ref artifact.Ref) bool {
		_, read := i.known[ref]
		return read
	})
	if len(unread) == 0 {
		return nil
	}
	return i.follow(ctx, unread...)
}

// childrenOf gives what a manifest names. The row of one that a signer has read tells that it is no index, so that Harbor need not be
// asked.
func (i *inquiry) childrenOf(ctx context.Context, ref artifact.Ref) ([]string, error) {
	if children, found := i.s.checks.children.find(ref.Digest()); found {
		return children, nil
	}
	row, found, err := i.s.cfg.View.One(ctx, ref)
	if err != nil {
		return nil, err
	}
	if index, known := isIndex(row.MediaType); found && known && !index {
		i.s.checks.remember(ref, nil)
		return nil, nil
	}
	children, err := i.s.checks.childrenOf(ctx, ref)
	if fault.Is(err, fault.Gone) {
		return nil, nil // its own state says so
	}
	return children, err
}
