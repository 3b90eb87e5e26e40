package signing

import (
	"context"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// A verifier that finds a bundle looks at no legacy signature. So an unlogged bundle would hide a logged legacy signature from
// those who ask for a log: at no moment does one stand beside the other, unless a logged bundle does too. For that, bundles
// are logged before legacy signatures, and in two cases more is logged than the policy asks for.

// missing gives what is to be attached, in its order.
func (s *Service) missing(ctx context.Context, j *job, subject artifact.Manifest, need Requirement, verdict Verdict) ([]attachment, error) {
	var all []attachment
	for _, format := range verdict.Missing {
		a := attachment{subject: subject, need: need.Only(format), format: format, tag: verdict.Tag, imperfect: verdict.imperfect}
		if format == artifact.Legacy {
			all = append(all, a)
			continue
		}
		// It comes first where it would hide a logged legacy signature, and where it carries the entry for both.
		a.first = need.needsEntry(format) && (lacks(verdict.Signatures, format) || !need.needsEntry(artifact.Legacy))
		if !need.needsEntry(format) {
			var err error
			if a.need, err = s.besideLegacy(ctx, j.request.Ref, a.need, verdict); err != nil {
				return nil, err
			}
		}
		if a.need.needsEntry(format) {
			all = append([]attachment{a}, all...)
		} else {
			all = append(all, a)
		}
	}
	legacy := slices.ContainsFunc(all, func(a attachment) bool { return a.format == artifact.Legacy && a.need.needsEntry(a.format) })
	if !legacy || slices.Contains(need.Formats, artifact.Bundle) {
		return all, nil
	}
	// Whoever made them: those of any key that counts hide as much.
	need.ActiveOnly = false
	need = need.Only(artifact.Bundle)
	unlogged, err := s.unloggedBundles(ctx, j.request.Ref, need)
	if err != nil || len(unlogged) == 0 {
		return all, err
	}
	return append([]attachment{{subject: subject, need: need, format: artifact.Bundle, imperfect: unlogged, first: true, extra: true}}, all...), nil
}

// lacks says whether one of the signatures of a format has no entry.
func lacks(all []artifact.Evidence, format artifact.Format) bool {
	return slices.ContainsFunc(all, func(e artifact.Evidence) bool { return e.Format == format && e.Log == "" })
}

// unloggedBundles gives the bundles that no logged one is beside.
func (s *Service) unloggedBundles(ctx context.Context, ref artifact.Ref, need Requirement) ([]artifact.Evidence, error) {
	can, _, err := s.cfg.Harbor.Bundles(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking Harbor for its version: %w", err)
	}
	if !can {
		return nil, nil
	}
	found, err := s.cfg.Verifier.bundles(ctx, ref, need)
	if err != nil || len(found.enough) > 0 || !lacks(found.imperfect, artifact.Bundle) {
		return nil, err
	}
	return found.imperfect, nil
}

// besideLegacy gives the requirement for a bundle that needs no entry: it needs one where a logged legacy signature is. The
// registry's listing, which was read already, says whether there can be one.
func (s *Service) besideLegacy(ctx context.Context, ref artifact.Ref, need Requirement, verdict Verdict) (Requirement, error) {
	tag := verdict.Tag
	if tag == nil && !verdict.beside {
		return need, nil
	}
	var err error
	if tag == nil {
		if tag, err = readTag(ctx, s.cfg.Registry, s.cfg.Legacy, ref); err != nil || tag == nil {
			return need, err
		}
	}
	there, err := s.cfg.Verifier.inTag(ctx, ref, need, *tag, func(keyID string) bool { return s.cfg.Verifier.counts(need, keyID) })
	if err != nil {
		return need, err
	}
	at := slices.IndexFunc(there, artifact.Signature.Logged)
	if at < 0 {
		return need, nil
	}
	for _, log := range []string{need.Log, there[at].Entry.Log} {
		if s.cfg.Logs == nil {
			break
		}
		if kind, active := s.cfg.Logs.Type(log); active && kind.Carries(artifact.Bundle) {
			need.Transparency, need.Log, need.LogType = policy.TransparencyRequired, log, kind
			return need, nil
		}
	}
	return need, fault.Newf(fault.Permanent, fault.Unverifiable,
		"a legacy signature is there with an entry of the log %.64q, which a bundle without one would hide: activate a log, or choose the format legacy", there[at].Entry.Log)
}
