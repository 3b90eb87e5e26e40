package signing

import (
	"context"
	"errors"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Review is what a sweep does with a digest that Harbor lists: it brings back signatures that concurrent writers have
// overwritten, and says whether the digest has all that its policy asks for. It is safe for concurrent use.
type Review struct {
	verifier *Verifier
	merger   *Merger
}

// NewReview makes a Review.
func NewReview(verifier *Verifier, merger *Merger) (*Review, error) {
	if verifier == nil || merger == nil {
		return nil, errors.New("review: verifier and merger are required")
	}
	return &Review{verifier: verifier, merger: merger}, nil
}

// Signed says whether nothing is missing. A digest whose policy this Harbor cannot satisfy is not signed: the signer, which
// is asked for it then, says why in the ledger.
func (r *Review) Signed(ctx context.Context, p policy.Policy, l artifact.Listed) (bool, error) {
	need, err := r.verifier.Require(ctx, p)
	if err != nil && fault.Of(err).Reason == fault.UnsupportedFormat {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	verdict, err := r.verifier.Verify(ctx, l.Ref, need)
	if err != nil {
		return false, err
	}
	if !slices.Contains(need.Formats, artifact.Legacy) || verdict.LockedBy != "" || !hasOthers(verdict, l.Signatures) {
		return verdict.Signed(), nil
	}
	verdict, err = restore(ctx, r.verifier, r.merger, l.Ref, need, verdict)
	return verdict.Signed(), err
}

// hasOthers says whether Harbor lists signatures that are neither the tag's manifest nor a bundle of ours.
func hasOthers(v Verdict, listed []string) bool {
	return slices.ContainsFunc(listed, func(digest string) bool {
		return (v.Tag == nil || v.Tag.Digest != digest) &&
			!slices.ContainsFunc(v.Signatures, func(e artifact.Evidence) bool { return e.Digest == digest })
	})
}
