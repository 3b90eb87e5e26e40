package signing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// Verify reads the signatures of a manifest and says whether nothing is missing. The evidence is all that counts, also where
// something is missing; the note is for people, and says what is unusual about it. A digest whose policy this Harbor cannot
// satisfy is not signed: the signer, which is asked for it then, says why in the ledger. The error means that it cannot be
// told, also because this signer has not the log or timestamp authority that the policy asks for. What only owes a log entry is
// signed: see Owes.
func (r *Review) Verify(ctx context.Context, p policy.Policy, l artifact.Listed) (evidence []artifact.Evidence, note string, signed bool, err error) {
	need, err := r.verifier.Require(ctx, p)
	if isUnsupported(err) {
		return nil, "", false, nil
	}
	if err != nil {
		return nil, "", false, err
	}
	verdict, err := r.verifier.Verify(ctx, l.Ref, need)
	if err != nil {
		return nil, "", false, err
	}
	if slices.Contains(need.Formats, artifact.Legacy) && verdict.LockedBy == "" && hasOthers(verdict, l.Signatures) {
		if verdict, err = restore(ctx, r.verifier, r.merger, l.Ref, need, verdict); err != nil {
			return nil, "", false, err
		}
	}
	if verdict.LockedBy != "" && verdict.Signed() {
		note = standIn(r.verifier.cfg.Legacy, l.Ref, verdict.LockedBy)
	}
	return verdict.Signatures, note, verdict.Signed(), nil
}

// Sufficient says whether signatures that were verified before, and are all still there, are what the policy asks for now:
// one in each format, by a key that counts now, with the log entry and timestamp that may not come later. It reads nothing from the registry. retired says that they would be but for
// the active key, which has not signed in each format; it is no reason against ok unless the policy makes it one.
//
// A bundle that stands in for a locked tag is not sufficient, because the lock may be gone: such a digest is to be verified.
func (r *Review) Sufficient(ctx context.Context, p policy.Policy, evidence []artifact.Evidence) (ok, retired bool, err error) {
	need, err := r.verifier.Require(ctx, p)
	if isUnsupported(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	wide := need
	wide.ActiveOnly = false
	active := need
	active.ActiveOnly = true
	if !r.verifier.coveredBy(wide, evidence) {
		return false, false, nil
	}
	retired = !r.verifier.coveredBy(active, evidence)
	return !retired || !need.ActiveOnly, retired, nil
}

// coveredBy says whether there is evidence that is enough in each format.
func (v *Verifier) coveredBy(r Requirement, all []artifact.Evidence) bool {
	return !slices.ContainsFunc(r.Formats, func(format artifact.Format) bool {
		return (format != artifact.Bundle || !r.defersBundle()) &&
			!slices.ContainsFunc(all, func(e artifact.Evidence) bool {
				return e.Format == format && v.satisfies(r, e.KeyID) && r.complete(e)
			})
	})
}

// Owes gives the formats in which signatures that were verified, and are enough, lack a log entry that the policy lets come
// later. It reads nothing from the registry. A logged bundle beside a legacy signature without an entry is no debt: it stands in for one that a
// locked tag cannot have.
func (r *Review) Owes(ctx context.Context, p policy.Policy, evidence []artifact.Evidence) ([]artifact.Format, error) {
	need, err := r.verifier.Require(ctx, p)
	if isUnsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	counted := slices.DeleteFunc(slices.Clone(evidence), func(e artifact.Evidence) bool { return !r.verifier.satisfies(need, e.KeyID) })
	if isLogged(counted, artifact.Bundle) {
		return nil, nil
	}
	return need.owed(counted), nil
}

// Tag gives the digest of the manifest under the legacy format's tag; empty if there is none. It costs one request.
func (r *Review) Tag(ctx context.Context, ref artifact.Ref) (digest string, err error) {
	tag, err := readTag(ctx, r.verifier.cfg.Registry, r.verifier.cfg.Legacy, ref)
	if err != nil || tag == nil {
		return "", err
	}
	return tag.Digest, nil
}

// KeySet names what decides whether a signature counts, beside the policy: the keys, and the registry's name in claims. What
// was looked at under another one has to be looked at again.
func (r *Review) KeySet() string {
	sum := sha256.Sum256([]byte(r.verifier.cfg.Keys.KeySet() + " " + r.verifier.cfg.PublicHost))
	return hex.EncodeToString(sum[:8])
}

func isUnsupported(err error) bool {
	return err != nil && fault.Of(err).Reason == fault.UnsupportedFormat
}

// hasOthers says whether Harbor lists signatures that are neither the tag's manifest nor a bundle of ours.
func hasOthers(v Verdict, listed []string) bool {
	return slices.ContainsFunc(listed, func(digest string) bool {
		return (v.Tag == nil || v.Tag.Digest != digest) &&
			!slices.ContainsFunc(v.Signatures, func(e artifact.Evidence) bool { return e.Digest == digest })
	})
}
