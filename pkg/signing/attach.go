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
func (s *Service) sign(ctx context.Context, ref artifact.Ref, out outcome) (outcome, error) {
	verdict, err := s.cfg.Verifier.Verify(ctx, ref)
	if err != nil {
		return outcome{}, fmt.Errorf("looking for a signature: %w", err)
	}
	failpoint.Hit(failpoint.SigningAfterLookup)
	out.kind, out.how = artifact.Signed, artifact.Found
	if !verdict.Signed() {
		out.how = artifact.Made
		if verdict, err = s.attach(ctx, ref, verdict.Carrier); err != nil {
			return outcome{}, err
		}
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
// the same input, so that the second put changes nothing; if another writer came between reading and writing, the
// read-back tells and the next attempt starts from what is there then.
func (s *Service) attach(ctx context.Context, ref artifact.Ref, existing *artifact.Manifest) (Verdict, error) {
	signature, err := s.cfg.Format.Sign(ctx, s.cfg.Verifier.Identity(ref), ref.Digest())
	if err != nil {
		return Verdict{}, fmt.Errorf("signing: %w", err)
	}
	m, blobs, err := s.cfg.Format.Append(existing, signature)
	if err != nil {
		return Verdict{}, fmt.Errorf("adding the signature to those that are there: %w", err)
	}
	failpoint.Hit(failpoint.SigningAfterSign)
	for _, blob := range blobs {
		if err := s.cfg.Registry.PushBlob(ctx, ref.Repository(), blob); err != nil {
			return Verdict{}, fmt.Errorf("pushing a signature blob: %w", err)
		}
	}
	failpoint.Hit(failpoint.SigningAfterPayload)
	if err := s.cfg.Registry.PutManifest(ctx, ref.Repository(), s.cfg.Format.Reference(ref.Digest()), m); err != nil {
		return Verdict{}, fmt.Errorf("pushing the signature manifest: %w", err)
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
