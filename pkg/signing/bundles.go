package signing

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// bundleOf is a bundle, by the digest of its manifest, as a signature of a subject.
type bundleOf struct{ bundle, subject string }

// judgement is what a bundle was found to be: evidence without a key id if it holds no signature that verifies.
type judgement = artifact.Evidence

// bundles costs one request, and two for each bundle that was not seen before, up to the first by the active key that lacks
// nothing. Where one by another key is enough, it is evidence if the active key's is not among the next few; where only the
// active key's are, the others are evidence as well, and all are read.
func (v *Verifier) bundles(ctx context.Context, ref artifact.Ref, r Requirement) (evidence, error) {
	listed, err := listReferrers(ctx, v.cfg.Registry, ref)
	if err != nil {
		return evidence{}, err
	}
	var found evidence
	var candidates []string
	for _, d := range listed {
		if v.cfg.Bundles.Candidate(d) {
			candidates = append(candidates, d.Digest)
		} else if v.cfg.Legacy.Candidate(d) {
			found.beside = true
		}
	}
	var unread []string
	for _, digest := range candidates {
		e, known := v.judged.get(bundleOf{digest, ref.Digest()})
		if !known {
			unread = append(unread, digest)
		} else if v.sort(&found, r, e) {
			return found, nil
		}
	}
	beside := 0
	for n, digest := range unread {
		if len(found.enough) > 0 && !r.ActiveOnly {
			beside++
		}
		if beside > maxBeside || n == maxUnread && len(found.enough) > 0 {
			break
		}
		if n == maxUnread {
			return evidence{}, fault.Newf(fault.Permanent, fault.TooLarge, "%d bundles by others refer to the manifest, and %d are read at once: delete some", len(unread), maxUnread)
		}
		e, err := v.judge(ctx, ref, r, digest)
		if err != nil {
			return evidence{}, err
		}
		if v.sort(&found, r, e) {
			return found, nil
		}
	}
	return found, nil
}

// sort adds a bundle to what was found, and says whether no other one needs to be looked at.
func (v *Verifier) sort(found *evidence, r Requirement, e judgement) (done bool) {
	if !v.satisfies(r, e.KeyID) {
		if v.counts(r, e.KeyID) {
			found.others = append(found.others, e)
		}
		return false
	}
	if !r.perfect(e) {
		found.imperfect = append(found.imperfect, e)
	}
	switch {
	case !r.complete(e):
		return false
	case len(found.enough) == 0:
		found.enough = []artifact.Evidence{e}
	case v.rank(r, e) > v.rank(r, found.enough[0]):
		found.enough[0] = e
	}
	return !r.ActiveOnly && r.perfect(e) && v.isActive(r, e.KeyID)
}

// judge reads a bundle. Only what was read is remembered: a bundle that is gone now may come back.
func (v *Verifier) judge(ctx context.Context, ref artifact.Ref, r Requirement, digest string) (judgement, error) {
	m, err := v.cfg.Registry.Manifest(ctx, ref.Repository(), digest)
	if err != nil {
		if f := fault.Of(err); f.Kind == fault.Gone || f.Reason == fault.TooLarge {
			return judgement{}, nil
		}
		return judgement{}, fmt.Errorf("reading a bundle's manifest: %w", err)
	}
	e, _, err := v.learn(ctx, m, v.Claim(ref, r), v.fetch(ref))
	return e, err
}

// learn verifies a bundle and remembers the result, unless part of it could not be read.
func (v *Verifier) learn(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) (judgement, []artifact.Signature, error) {
	complete := true
	signatures, err := v.cfg.Bundles.Verify(ctx, m, claim, func(ctx context.Context, digest string) ([]byte, error) {
		content, err := fetch(ctx, digest)
		complete = complete && err == nil
		return content, err
	})
	if err != nil {
		return judgement{}, nil, fmt.Errorf("verifying a bundle: %w", err)
	}
	var e judgement
	if len(signatures) > 0 {
		e = signatures[0].Evidence(m.Digest)
	}
	if complete {
		v.judged.put(bundleOf{m.Digest, claim.Digest}, e)
	}
	return e, signatures, nil
}
