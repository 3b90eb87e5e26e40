package signing

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
)

// sign makes sure that ref carries what its policy asks for and has seen it in the registry when it returns nil. A
// signature of any accepted key is enough unless the policy asks for the active one's, and a second one that would satisfy
// the policy no better is never added.
func (s *Service) sign(ctx context.Context, j *job, subject artifact.Manifest, out outcome) (outcome, error) {
	need, err := s.cfg.Verifier.Require(ctx, j.policy)
	if err != nil {
		return outcome{}, err
	}
	j.asOf = s.reached(ctx)
	if out, err = s.fulfil(ctx, j, subject, need, out); err != nil {
		return outcome{}, err
	}
	if out.standsIn {
		need = need.Only(artifact.Bundle)
	}
	out.owed = need.owed(out.signatures)
	return out, nil
}

// fulfil makes what is missing.
func (s *Service) fulfil(ctx context.Context, j *job, subject artifact.Manifest, need Requirement, out outcome) (outcome, error) {
	verdict, err := s.look(ctx, j, need)
	if err != nil {
		return outcome{}, fmt.Errorf("looking for signatures: %w", err)
	}
	j.hit(failpoint.SigningAfterLookup)
	out.kind, out.how, out.signatures = artifact.Signed, artifact.Found, verdict.Signatures
	if verdict.LockedBy != "" {
		out.standsIn, out.note = true, standIn(s.cfg.Legacy, j.request.Ref, verdict.LockedBy)
	}
	out.lost = slices.ContainsFunc(verdict.Missing, func(format artifact.Format) bool {
		waits := format == artifact.Bundle && len(need.Formats) > 1 // until it is logged, where that may come later
		return !waits && !holds(verdict.imperfect, format)
	})
	missing, err := s.missing(ctx, j, subject, need, verdict)
	if err != nil {
		return outcome{}, err
	}
	var failed error
	for _, a := range missing {
		made, err := s.attach(ctx, j, a)
		if err != nil && fault.Of(err).Reason == fault.Immutable {
			if out, err = s.locked(ctx, j, subject, need, out, err); err == nil && out.standsIn {
				failed = nil
				break // a bundle stands in for all that is missing
			}
		} else if err == nil && !a.extra {
			out.how, out.signatures = artifact.Made, replace(out.signatures, a.format, made)
		}
		if err != nil && !fault.Is(err, fault.Permanent) {
			return outcome{}, err
		}
		if failed == nil {
			failed = err // for good, such as garbage under the tag: no reason to do without the other format
		}
		if err != nil && a.first {
			break // but where it comes first for the other's sake
		}
	}
	if failed != nil {
		return outcome{}, failed
	}
	slices.SortStableFunc(out.signatures, func(a, b artifact.Evidence) int { return -strings.Compare(string(a.Format), string(b.Format)) })
	j.unsigned = false // what fails from here on does not undo it
	return out, nil
}

// replace gives the evidence with that of one format, whose manifest may be another one now, taken from what was read back.
func replace(all []artifact.Evidence, format artifact.Format, found []artifact.Evidence) []artifact.Evidence {
	return append(slices.DeleteFunc(all, func(e artifact.Evidence) bool { return e.Format == format }), found...)
}

// look verifies what is there. Where the key signs differently each time, and something stands under the tag that is not
// ours, a signature of ours may have been overwritten: it is merged back, so that no second one is made.
func (s *Service) look(ctx context.Context, j *job, need Requirement) (Verdict, error) {
	verdict, err := s.cfg.Verifier.Verify(ctx, j.request.Ref, need)
	if err != nil {
		return Verdict{}, err
	}
	j.unsigned = !verdict.Signed()
	if verdict.Tag == nil || s.cfg.Keys.Deterministic(need.Key) || !slices.Contains(verdict.Missing, artifact.Legacy) || holds(verdict.imperfect, artifact.Legacy) {
		return verdict, nil
	}
	// What keeps the tag as it is will be said when a signature is put there.
	return restore(ctx, s.cfg.Verifier, s.cfg.Merger, j.request.Ref, need, verdict)
}

// holds says whether there is evidence in a format.
func holds(all []artifact.Evidence, format artifact.Format) bool {
	return slices.ContainsFunc(all, func(e artifact.Evidence) bool { return e.Format == format })
}

// locked is for a subject whose legacy tag an immutability rule locks, as a refused put has told. Harbor refuses to put even
// what is there already, so that another attempt may just have been faster. Otherwise a bundle, which needs no tag, stands in.
func (s *Service) locked(ctx context.Context, j *job, subject artifact.Manifest, need Requirement, out outcome, cause error) (outcome, error) {
	ref := j.request.Ref
	verdict, err := s.cfg.Verifier.Verify(ctx, ref, need.Only(artifact.Legacy))
	if err != nil {
		return out, fmt.Errorf("looking at the locked tag: %w", err)
	}
	if verdict.Signed() && verdict.LockedBy == "" {
		out.signatures = replace(out.signatures, artifact.Legacy, verdict.Signatures)
		return out, nil
	}
	rule, err := s.cfg.Harbor.LockedBy(ctx, ref.Repository(), s.cfg.Legacy.Tag(ref.Digest()))
	if err != nil || rule == "" {
		rule = "an immutability rule of the project"
	}
	can, version, err := s.cfg.Harbor.Bundles(ctx)
	if err != nil {
		return out, fmt.Errorf("asking Harbor for its version: %w", err)
	}
	if !can {
		return out, fault.Newf(fault.Permanent, fault.Immutable,
			"%w (%s); exclude sha256-*.sig from the rule, or upgrade Harbor %.32q to 2.15 or later, where a bundle needs no tag", cause, rule, version)
	}
	out.standsIn, out.note = true, standIn(s.cfg.Legacy, ref, rule)
	need = need.Only(artifact.Bundle)
	if verdict, err = s.cfg.Verifier.Verify(ctx, ref, need); err != nil {
		return out, fmt.Errorf("looking for a bundle: %w", err)
	}
	out.signatures = verdict.Signatures
	missing, err := s.missing(ctx, j, subject, need, verdict)
	for _, a := range missing {
		out.how = artifact.Made
		out.signatures, err = s.attach(ctx, j, a)
	}
	return out, err
}

// attachment is a signature to be made or completed, and attached.
type attachment struct {
	subject artifact.Manifest
	need    Requirement
	format  artifact.Format
	tag     *artifact.Manifest // what stands under the legacy tag; nil if nothing
	// imperfect are the signatures, of all formats, that are to be completed before another one is made.
	imperfect []artifact.Evidence
	// first says that nothing else may be attached unless this one was, extra that the policy does not ask for it.
	first, extra bool
}

// attach signs ref in one format, puts the signature beside those that are there, and reads it back. The error is a
// [changedError] if the policy does not say sign any more.
//
// A crash before the signature is kept costs one signature of the key that nobody saw. From then on every attempt, of
// this program and of others, attaches the same bytes. A crash before the manifest is put leaves at most a blob that
// nothing refers to, which Harbor's garbage collection takes. A crash after it leaves a signature that the next attempt
// finds.
func (s *Service) attach(ctx context.Context, j *job, a attachment) ([]artifact.Evidence, error) {
	ref := j.request.Ref
	signature, found, err := s.signature(ctx, j, a)
	if err != nil {
		return nil, err
	}
	if signature, err = s.finished(ctx, j, a, signature, found); err != nil {
		return nil, err
	}
	if j.waited && a.format == artifact.Legacy {
		// Others had seconds to write.
		if a.tag, err = readTag(ctx, s.cfg.Registry, s.cfg.Legacy, ref); err != nil {
			return nil, err
		}
	}
	m, err := s.put(ctx, j, a, signature)
	if err != nil {
		return nil, err
	}
	j.hit(failpoint.SigningAfterAttach)

	verdict, err := s.cfg.Verifier.Verify(ctx, ref, a.need)
	if err != nil {
		return nil, fmt.Errorf("reading the signature back: %w", err)
	}
	if !verdict.Signed() {
		if a.format == artifact.Legacy && verdict.Tag != nil && verdict.Tag.Digest != m.Digest {
			return nil, fault.Newf(fault.Transient, fault.ConcurrentWriter, "the signature was overwritten by another writer of %s", s.cfg.Legacy.Tag(ref.Digest()))
		}
		return nil, fault.Newf(fault.Transient, fault.VerificationFailed, "the signature that was just attached (%s) does not verify", a.format)
	}
	j.hit(failpoint.SigningAfterVerify)
	s.metrics.signatures.WithLabelValues(string(a.format)).Inc()
	return verdict.Signatures, nil
}

// signature gives the signature that is there and lacks something. If there is none it makes one and keeps it, or gives the
// one that another attempt has kept. What a policy that changed stops is the key: what is signed already is attached.
func (s *Service) signature(ctx context.Context, j *job, a attachment) (signature artifact.Signature, found bool, err error) {
	ref := j.request.Ref
	claim := s.cfg.Verifier.Claim(ref, a.need)
	if err := s.decideAgain(ctx, j); err != nil {
		return artifact.Signature{}, false, err
	}
	if signature, found, err = s.held(ctx, j, a); err != nil || found {
		return signature, found, err
	}
	made, err := s.cfg.Keys.Sign(ctx, a.need.Key, a.format, claim)
	if err != nil {
		j.unproven = s.cfg.Keys.Keyless(a.need.Key) // a certificate is asked for, as an entry is
		return artifact.Signature{}, false, fmt.Errorf("signing: %w", err)
	}
	j.hit(failpoint.SigningAfterSign)
	if s.cfg.Keys.Keyless(a.need.Key) {
		return made, false, nil // it is worth nothing later without what proves its time, and is kept with that
	}
	kept, err := s.cfg.Queue.Keep(ctx, ref, made)
	if err != nil {
		return artifact.Signature{}, false, fmt.Errorf("keeping the signature: %w", err)
	}
	j.hit(failpoint.SigningAfterKeep)
	if bytes.Equal(kept.Bytes, made.Bytes) && bytes.Equal(kept.Payload, made.Payload) {
		return made, false, nil // the common case: the read-back will verify it
	}
	if kept.PublicKey == nil {
		kept.PublicKey = made.PublicKey // an older program kept none; Valid says whether it is this one
	}
	if kept.Format != made.Format || kept.KeyID != made.KeyID || !s.cfg.Keys.Valid(kept, claim) {
		// Whoever wrote that is no signer. It is not believed, and holds nobody up.
		s.cfg.Logger.Error().Str("project", ref.Project()).Str("repository", ref.Repository()).Str("digest", ref.Digest()).
			Str("format", string(made.Format)).Msg("the kept signature does not verify: it is not used")
		return made, false, nil
	}
	return s.cfg.Keys.Proven(kept), false, nil
}

// put writes the manifest that carries the signature.
func (s *Service) put(ctx context.Context, j *job, a attachment, signature artifact.Signature) (artifact.Manifest, error) {
	ref := j.request.Ref
	if a.format == artifact.Legacy {
		m, blobs, err := s.cfg.Legacy.Append(a.tag, signature)
		if err != nil {
			return m, fmt.Errorf("adding the signature to those that are there: %w", err)
		}
		// A registry knows no compare-and-swap: what somebody else puts under the tag between the look at it and this put is
		// overwritten. The watch brings it back.
		if err := s.push(ctx, j, s.cfg.Legacy.Tag(ref.Digest()), m, blobs); err != nil {
			return m, err
		}
		if s.cfg.Watch != nil {
			s.cfg.Watch.Add(ref, m.Digest)
		}
		return m, nil
	}
	m, blobs, err := s.cfg.Bundles.Compose(signature, artifact.Descriptor{
		MediaType: a.subject.MediaType, Digest: a.subject.Digest, Size: int64(len(a.subject.Raw)),
	})
	if err != nil {
		return m, fmt.Errorf("writing the bundle: %w", err)
	}
	if err := s.push(ctx, j, m.Digest, m, blobs); err != nil {
		return m, err
	}
	return m, s.recognise(ctx, j, a, m, blobs)
}

// recognise verifies a bundle from the bytes that the registry has just taken under their digest, so that the read-back
// needs nothing but to find that digest listed.
func (s *Service) recognise(ctx context.Context, j *job, a attachment, m artifact.Manifest, blobs []artifact.Blob) error {
	_, _, err := s.cfg.Verifier.learn(ctx, m, s.cfg.Verifier.Claim(j.request.Ref, a.need), func(_ context.Context, digest string) ([]byte, error) {
		for _, b := range blobs {
			if b.Digest == digest {
				return b.Raw, nil
			}
		}
		return nil, fault.Newf(fault.Permanent, fault.Malformed, "the bundle names a blob that it does not have")
	})
	return err
}

// push uploads the blobs and puts the manifest. The constant configuration, if this process put it into the repository
// before, is left out at first: that saves two requests. It is a guess and never believed: if the registry misses a blob,
// all are uploaded and the manifest is put again.
func (s *Service) push(ctx context.Context, j *job, reference string, m artifact.Manifest, blobs []artifact.Blob) error {
	ref := j.request.Ref
	if err := s.pushBlobs(ctx, ref, blobs, s.isThere); err != nil {
		return err
	}
	j.hit(failpoint.SigningAfterPayload)
	err := s.cfg.Registry.PutManifest(ctx, ref.Repository(), reference, m)
	if err != nil && fault.Of(err).Reason == fault.BlobUnknown {
		if err := s.pushBlobs(ctx, ref, blobs, func(string, artifact.Blob) bool { return false }); err != nil {
			return err
		}
		err = s.cfg.Registry.PutManifest(ctx, ref.Repository(), reference, m)
	}
	if err != nil {
		return fmt.Errorf("pushing the signature manifest: %w", err)
	}
	return nil
}

func (s *Service) pushBlobs(ctx context.Context, ref artifact.Ref, blobs []artifact.Blob, skip func(repository string, b artifact.Blob) bool) error {
	for _, blob := range blobs {
		if skip(ref.Repository(), blob) {
			continue
		}
		if err := s.cfg.Registry.PushBlob(ctx, ref.Repository(), blob); err != nil {
			return fmt.Errorf("pushing a signature blob: %w", err)
		}
		if isConstant(blob) {
			s.pushed.put(ref.Repository(), struct{}{})
		}
	}
	return nil
}

func (s *Service) isThere(repository string, b artifact.Blob) bool {
	_, there := s.pushed.get(repository)
	return there && isConstant(b)
}

// isConstant recognises the configuration that all signature manifests of this program have, "{}": no other blob comes
// twice.
func isConstant(b artifact.Blob) bool { return string(b.Raw) == "{}" }
