package signing

import (
	"context"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
)

// sign makes sure that ref carries a valid signature and has seen it in the registry when it returns nil. A signature of
// any accepted key is enough.
func (s *Service) sign(ctx context.Context, j *job, out outcome) (outcome, error) {
	ref := j.request.Ref
	verdict, err := s.cfg.Verifier.Verify(ctx, ref)
	if err != nil {
		return outcome{}, fmt.Errorf("looking for a signature: %w", err)
	}
	failpoint.Hit(failpoint.SigningAfterLookup)
	out.kind, out.how = artifact.Signed, artifact.Found
	if j.unsigned = !verdict.Signed(); j.unsigned {
		out.how = artifact.Made
		if verdict, err = s.attach(ctx, j, verdict.Carrier); err != nil {
			return outcome{}, err
		}
		j.unsigned = false // what fails from here on does not undo it
	}
	out.carrier = verdict.Carrier.Digest
	var ours bool
	if out.signature, ours = verdict.By(s.cfg.Format.KeyID()); !ours {
		out.signature = verdict.Signatures[0]
	}
	return out, nil
}

// attach signs ref, puts the signature beside those in existing, and reads it back.
//
// A crash before the manifest is put leaves at most a blob that nothing refers to, which Harbor's garbage collection
// takes. A crash after it leaves a signature that the next attempt finds. Two attempts at once make the same bytes from
// the same input: the second one has nothing left to put. A registry knows no compare-and-swap: a signature that somebody
// else writes between the last look at the tag and the put, one round trip, is overwritten; one that overwrites ours is
// told by the read-back.
func (s *Service) attach(ctx context.Context, j *job, existing *artifact.Manifest) (Verdict, error) {
	ref := j.request.Ref
	signature, err := s.cfg.Format.Sign(ctx, s.cfg.Verifier.Identity(ref), ref.Digest())
	if err != nil {
		return Verdict{}, fmt.Errorf("signing: %w", err)
	}
	m, blobs, err := s.cfg.Format.Append(existing, signature)
	if err != nil {
		return Verdict{}, fmt.Errorf("adding the signature to those that are there: %w", err)
	}
	failpoint.Hit(failpoint.SigningAfterSign)
	if err := s.push(ctx, j, existing, m, blobs); err != nil {
		return Verdict{}, err
	}
	failpoint.Hit(failpoint.SigningAfterAttach)

	verdict, err := s.cfg.Verifier.Verify(ctx, ref)
	if err != nil {
		return Verdict{}, fmt.Errorf("reading the signature back: %w", err)
	}
	if _, ok := verdict.By(signature.KeyID); !ok {
		if verdict.Carrier != nil && verdict.Carrier.Digest != m.Digest {
			return Verdict{}, fault.Newf(fault.Transient, fault.ConcurrentWriter, "the signature was overwritten by another writer of %s", s.cfg.Format.Reference(ref.Digest()))
		}
		return Verdict{}, fault.Newf(fault.Transient, fault.VerificationFailed, "the signature that was just attached does not verify")
	}
	failpoint.Hit(failpoint.SigningAfterVerify)
	return verdict, nil
}

// push uploads the blobs and puts the manifest. A blob that this process put into the repository before, such as the
// constant configuration, is left out at first: that saves two requests. It is a guess and never believed: if the registry
// misses a blob, all are uploaded and the manifest is put again.
//
// Uploads take time: before each put the tag is looked at once more, so that what somebody put there meanwhile is kept by
// the next attempt.
func (s *Service) push(ctx context.Context, j *job, existing *artifact.Manifest, m artifact.Manifest, blobs []artifact.Blob) error {
	if err := s.pushBlobs(ctx, j.request.Ref, blobs, s.pushed.has); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SigningAfterPayload)
	err := s.put(ctx, j, existing, m)
	if err != nil && fault.Of(err).Reason == fault.BlobUnknown {
		if err := s.pushBlobs(ctx, j.request.Ref, blobs, func(string, string) bool { return false }); err != nil {
			return err
		}
		err = s.put(ctx, j, existing, m)
	}
	return err
}

// put moves the tag from existing to m, unless it is there already or has moved elsewhere.
func (s *Service) put(ctx context.Context, j *job, existing *artifact.Manifest, m artifact.Manifest) error {
	repository, tag := j.request.Ref.Repository(), s.cfg.Format.Reference(j.request.Ref.Digest())
	current, err := s.cfg.Registry.Manifest(ctx, repository, tag)
	switch {
	case err != nil && !fault.Is(err, fault.Gone):
		return fmt.Errorf("looking at the signatures again: %w", err)
	case err == nil && current.Digest == m.Digest:
		return nil // another attempt of ours was faster
	case (err == nil) != (existing != nil), existing != nil && current.Digest != existing.Digest:
		j.unsigned = false // what was found is out of date: it may be a signature now
		return fault.Newf(fault.Transient, fault.ConcurrentWriter, "another writer has changed %s meanwhile", tag)
	}
	if err := s.cfg.Registry.PutManifest(ctx, repository, tag, m); err != nil {
		return fmt.Errorf("pushing the signature manifest: %w", err)
	}
	return nil
}

func (s *Service) pushBlobs(ctx context.Context, ref artifact.Ref, blobs []artifact.Blob, skip func(repository, digest string) bool) error {
	for _, blob := range blobs {
		if skip(ref.Repository(), blob.Digest) {
			continue
		}
		if err := s.cfg.Registry.PushBlob(ctx, ref.Repository(), blob); err != nil {
			return fmt.Errorf("pushing a signature blob: %w", err)
		}
		s.pushed.add(ref.Repository(), blob.Digest)
	}
	return nil
}
