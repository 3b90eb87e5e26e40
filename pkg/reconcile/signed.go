package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

var (
	// errEnds marks a failure that ends the sweep, or lets it pause. Others are about one digest.
	errEnds = errors.New("the sweep cannot go on")
	// errDeleted says that Harbor has lost a manifest since it listed it.
	errDeleted = errors.New("the manifest is gone")
)

// verdict is what is found of the signatures of a manifest.
type verdict struct {
	// signed says that they are what the policy asks for, retired that only keys made them that sign no more, and none that
	// not one counts.
	signed, retired, none bool
	// evidence is what is known of signatures that suffice.
	evidence []artifact.Evidence
}

// lost says that signatures are missing that the ledger has, or that those that are there count no more.
func (v verdict) lost(l artifact.Listed, k artifact.Known) bool {
	return !v.signed && (v.none || len(missingFrom(l, k.Signatures)) > 0)
}

// endless gives nothing for a failure that leaves open whether a manifest is signed, and is about that alone.
func endless(err error) error {
	if errors.Is(err, errEnds) || errors.Is(err, errDeleted) {
		return err
	}
	return nil
}

// afresh asks Harbor for a manifest once more, and gives a sequence that the ledger had reached before. What was listed is
// older than the ledger's answer: somebody may have signed in between. The error is errDeleted if there is no such manifest.
func (s *pass) afresh(ctx context.Context, l artifact.Listed) (fresh artifact.Listed, asOf uint64, err error) {
	if asOf, err = s.ledgerSeq(ctx); err != nil {
		return l, 0, fmt.Errorf("%w: %w", errEnds, err)
	}
	fresh, err = s.r.cfg.Harbor.Artifact(ctx, l.Ref)
	switch {
	case fault.Is(err, fault.Gone):
		return l, 0, fmt.Errorf("%w: %w", errDeleted, err)
	case err != nil:
		return l, 0, s.failed(ctx, l, err)
	}
	return fresh, asOf, nil
}

// ledgerSeq is a sequence that the ledger has reached: at least 1, because 0 would stand for the moment of the record.
func (s *pass) ledgerSeq(ctx context.Context) (uint64, error) {
	seq, err := s.r.cfg.Queue.LedgerSeq(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking how far the ledger is: %w", err)
	}
	return max(seq, 1), nil
}

// missingFrom gives the signatures that Harbor no longer lists.
func missingFrom(l artifact.Listed, signatures []artifact.Evidence) []artifact.Evidence {
	var missing []artifact.Evidence
	for _, e := range signatures {
		if !slices.Contains(l.Signatures, e.Digest) {
			missing = append(missing, e)
		}
	}
	return missing
}

// signed says whether a manifest has what its policy asks for. An error says that it cannot be told, so that it is to be asked
// for; errEnds stands for those that may be everybody's.
func (s *pass) signed(ctx context.Context, l artifact.Listed, k artifact.Known) (verdict, error) {
	recalled, sufficient, retired, err := s.recall(ctx, l, k)
	switch {
	case err != nil:
		return verdict{}, s.failed(ctx, l, err)
	case recalled && sufficient:
		return verdict{signed: true, retired: retired, evidence: k.Signatures}, nil
	case recalled && retired && len(l.Signatures) == len(distinct(k.Signatures)):
		// A new signature of the active key is all that is missing, and none of those that are there.
		return verdict{retired: true}, nil
	case len(l.Signatures) == 0:
		return verdict{none: true}, nil // Harbor's word is good for "there is none"
	}
	signed, evidence, err := s.check(ctx, l, k)
	if err != nil || !signed {
		// Where the active key alone counts, it may be that retired ones have signed.
		retired = retired && len(missingFrom(l, k.Signatures)) == 0
		return verdict{retired: retired, none: err == nil && !retired && len(evidence) == 0}, err
	}
	_, retired, err = s.r.cfg.Verifier.Sufficient(ctx, s.policy, evidence)
	if err != nil {
		return verdict{signed: true, evidence: evidence}, nil //nolint:nilerr // it was verified just now; only whose key it is stays open
	}
	return verdict{signed: true, retired: retired, evidence: evidence}, nil
}

// recall says whether what the ledger knows of a check holds for what Harbor lists now, and whether it suffices.
func (s *pass) recall(ctx context.Context, l artifact.Listed, k artifact.Known) (recalled, sufficient, retired bool, err error) {
	if k.State != isSigned || len(k.Signatures) == 0 || len(missingFrom(l, k.Signatures)) > 0 {
		return false, false, false, nil
	}
	err = s.guarded(l.Ref, func() (err error) {
		sufficient, retired, err = s.r.cfg.Verifier.Sufficient(ctx, s.policy, k.Signatures)
		return err
	})
	if err != nil {
		return false, false, false, fmt.Errorf("judging the signatures that are known: %w", err)
	}
	same, err := s.unchanged(ctx, l, k)
	return same, sufficient, retired, err
}

// unchanged says whether nothing is listed beside the known signatures that was not looked at under the same keys. Harbor lists
// signature manifests that the tag has left as well: where there are others, the tag must be where it was.
func (s *pass) unchanged(ctx context.Context, l artifact.Listed, k artifact.Known) (bool, error) {
	others := false
	for _, digest := range l.Signatures {
		if slices.ContainsFunc(k.Signatures, func(e artifact.Evidence) bool { return e.Digest == digest }) {
			continue
		}
		others = true
		if k.KeySet != s.r.cfg.Verifier.KeySet() || !slices.Contains(k.Accessories, digest) {
			return false, nil
		}
	}
	at := slices.IndexFunc(k.Signatures, func(e artifact.Evidence) bool { return e.Format == artifact.Legacy })
	if !others || at < 0 {
		return true, nil
	}
	var digest string
	err := s.guarded(l.Ref, func() (err error) {
		if err = s.r.cfg.Budget.Wait(ctx); err != nil {
			return err
		}
		digest, err = s.r.cfg.Verifier.Tag(ctx, l.Ref)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking where the tag of the signatures is: %w", err)
	}
	s.unanswered = 0
	return digest == k.Signatures[at].Digest, nil
}

// check verifies for real and records what it found, unless the ledger says so already.
func (s *pass) check(ctx context.Context, l artifact.Listed, k artifact.Known) (signed bool, evidence []artifact.Evidence, err error) {
	var note string
	err = s.guarded(l.Ref, func() (err error) {
		if err = s.r.cfg.Budget.Wait(ctx); err != nil {
			return err
		}
		evidence, note, signed, err = s.r.cfg.Verifier.Verify(ctx, s.policy, l)
		return err
	})
	if err != nil {
		return false, nil, s.failed(ctx, l, err)
	}
	s.unanswered = 0
	s.sum.Verified++
	if !signed || len(evidence) == 0 {
		return false, evidence, nil
	}
	keySet := s.r.cfg.Verifier.KeySet()
	accessories := slices.Sorted(slices.Values(l.Signatures))
	if k.State == isSigned && k.KeySet == keySet && slices.Equal(slices.Sorted(slices.Values(k.Accessories)), accessories) &&
		sameEvidence(k.Signatures, evidence) {
		return true, evidence, nil
	}
	event := artifact.Event{
		Kind: artifact.Signed, Ref: l.Ref, How: artifact.Found, Signatures: evidence, Accessories: accessories, KeySet: keySet, Detail: note,
		Format: evidence[0].Format, KeyID: evidence[0].KeyID, SignatureDigest: evidence[0].Digest,
	}
	owed, err := s.owes(ctx, l.Ref, evidence)
	if err != nil {
		return false, nil, s.failed(ctx, l, err)
	}
	if len(owed) > 0 {
		event.LogOwed, event.AsOf = owed, s.reached
	}
	parts := []string{keySet}
	for _, e := range evidence {
		parts = append(parts, e.KeyID, e.Digest)
	}
	if err := s.record(ctx, event, parts...); err != nil {
		return true, evidence, fmt.Errorf("%w: %w", errEnds, err)
	}
	return true, evidence, nil
}

// failed says what a failing check means. A manifest that cannot be verified now is asked for, because the signer will look
// for itself; only many of them end the sweep, so that a registry's outage does not fill the queue and one broken signature
// does not hide the rest of its project.
func (s *pass) failed(ctx context.Context, l artifact.Listed, err error) error {
	err = fmt.Errorf("verifying %s: %w", l.Ref, err)
	if !ofTheDigest(err) {
		s.unanswered++
	}
	if ctx.Err() != nil || s.unanswered > maxUnanswered {
		s.unanswered = 0 // who goes on begins to count anew
		return fmt.Errorf("%w: %w", errEnds, err)
	}
	s.about(l.Ref).Warn().Err(err).Msg("checking a manifest failed: the sweep goes on")
	return err
}

func sameEvidence(a, b []artifact.Evidence) bool {
	same := func(e artifact.Evidence) func(artifact.Evidence) bool {
		return func(other artifact.Evidence) bool {
			at := e.TimestampedAt.Equal(other.TimestampedAt)
			other.TimestampedAt = e.TimestampedAt
			return at && e == other
		}
	}
	return len(a) == len(b) && !slices.ContainsFunc(a, func(e artifact.Evidence) bool { return !slices.ContainsFunc(b, same(e)) })
}

// distinct gives the digests of the manifests that carry signatures.
func distinct(signatures []artifact.Evidence) []string {
	digests := make([]string, 0, len(signatures))
	for _, e := range signatures {
		digests = append(digests, e.Digest)
	}
	slices.Sort(digests)
	return slices.Compact(digests)
}
