package signing

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// optionalTimestamp bounds what a timestamp that is not needed may cost a signature.
const optionalTimestamp = 500 * time.Millisecond

// finished gives a signature with what the requirement asks for beside it, and keeps it so before it is attached. found says
// that the signature is in the registry already.
//
// A crash before the log answers costs a timestamp. One behind it leaves an entry, which the log gives the next attempt for
// the same signature; only a keyless one, which nobody can make again, has another entry then, and this one counts for
// nothing. From the moment in which the signature is kept, all attempts attach the same manifest.
func (s *Service) finished(ctx context.Context, j *job, a attachment, signature artifact.Signature, found bool) (artifact.Signature, error) {
	made, err := s.withMaterial(ctx, j, a.need, signature)
	if err != nil {
		return artifact.Signature{}, err
	}
	claim := s.cfg.Verifier.Claim(j.request.Ref, a.need)
	if len(made.Certificates) > 0 && !s.cfg.Keys.Valid(made, claim) {
		// It would be worth nothing, and one that is there would be worth nothing any more.
		return artifact.Signature{}, fault.Newf(fault.Transient, fault.ProofInvalid,
			"the log entry or the timestamp is not of the certificate's lifetime: look at the clocks of all that take part")
	}
	if made.Logged() == signature.Logged() && (made.Timestamp == nil) == (signature.Timestamp == nil) {
		return made, nil // nothing was added
	}
	kept, err := s.cfg.Queue.Keep(ctx, j.request.Ref, made)
	if err != nil {
		return artifact.Signature{}, fmt.Errorf("keeping the signature with what was added: %w", err)
	}
	j.hit(failpoint.SigningAfterFinishKeep)
	if kept.Format != made.Format || kept.KeyID != made.KeyID || kept.Entry == made.Entry && bytes.Equal(kept.Timestamp, made.Timestamp) {
		return made, nil // ours was the first, and its proofs were checked when they were made
	}
	// What is kept may have been made for another policy, and nobody vouches for it.
	kept = s.cfg.Keys.Proven(kept)
	same := bytes.Equal(kept.Bytes, made.Bytes) && bytes.Equal(kept.Payload, made.Payload)
	another := !found && len(made.Certificates) > 0 && s.cfg.Keys.Valid(kept, claim)
	if (same || another) && a.need.complete(kept.Evidence("")) && (kept.Logged() || !made.Logged()) {
		return kept, nil
	}
	return made, nil
}

// withMaterial adds a timestamp and a log entry, as far as the requirement asks for them now. What has to be waited for is
// waited for without a worker's slot.
func (s *Service) withMaterial(ctx context.Context, j *job, need Requirement, signature artifact.Signature) (artifact.Signature, error) {
	stamps := signature.Timestamp == nil && s.cfg.Timestamps != nil
	if stamps && need.Timestamp == policy.TimestampOptional {
		signature = s.stampIfAtOnce(ctx, j, signature)
	}
	stamps = stamps && need.Timestamp == policy.TimestampRequired
	logs := need.needsEntry(signature.Format) && !signature.Logged()
	if !stamps && !logs {
		return signature, nil
	}
	j.waited = true
	err := j.delivery.Aside(ctx, func(ctx context.Context) error {
		if stamps {
			var err error
			if signature.Timestamp, signature.TimestampedAt, err = s.cfg.Timestamps.Stamp(ctx, signature); err != nil {
				s.metrics.timestamps.WithLabelValues(stampMissed).Inc()
				return fmt.Errorf("asking for a timestamp: %w", err)
			}
			s.metrics.timestamps.WithLabelValues(stampMade).Inc()
			j.hit(failpoint.SigningAfterTimestamp)
		}
		if !logs {
			return nil
		}
		entry, err := s.cfg.Logs.Submit(ctx, need.Log, signature)
		if err != nil {
			return fmt.Errorf("asking the transparency log %.64q for an entry: %w", need.Log, err)
		}
		signature.Entry = &entry
		j.hit(failpoint.SigningAfterLog)
		return nil
	})
	if err != nil {
		j.unproven = true
		return signature, err
	}
	if logs && !s.cfg.Keys.Proven(signature).Logged() {
		return signature, fault.Newf(fault.Transient, fault.ProofInvalid, "the entry of the transparency log %.64q does not verify", need.Log)
	}
	return signature, nil
}

// stampIfAtOnce never fails a signature.
func (s *Service) stampIfAtOnce(ctx context.Context, j *job, signature artifact.Signature) artifact.Signature {
	if j.unstamped {
		return signature // it was asked in vain for the other format: once is what a signature may cost
	}
	bounded, cancel := context.WithTimeout(ctx, optionalTimestamp)
	defer cancel()
	response, at, err := s.cfg.Timestamps.Stamp(bounded, signature)
	if err == nil && !isAlive(signature, at) {
		err = errors.New("the timestamp is not of the certificate's lifetime")
	}
	if err != nil {
		s.metrics.timestamps.WithLabelValues(stampMissed).Inc()
		j.unstamped = true
		s.cfg.Logger.Debug().Err(err).Str("reason", string(fault.Of(err).Reason)).Str("digest", j.request.Ref.Digest()).
			Msg("the timestamp authority did not answer at once: the signature has no timestamp")
		return signature
	}
	signature.Timestamp, signature.TimestampedAt = response, at
	s.metrics.timestamps.WithLabelValues(stampMade).Inc()
	j.hit(failpoint.SigningAfterTimestamp)
	return signature
}

// held gives the signature that is there already, and lacks something: its bytes are used again. That of the active key comes
// first, then that which lacks least.
func (s *Service) held(ctx context.Context, j *job, a attachment) (artifact.Signature, bool, error) {
	v := s.cfg.Verifier
	worth := func(e artifact.Evidence) int {
		n := 0
		for i, good := range []bool{!e.TimestampedAt.IsZero(), e.Log != "", v.isActive(a.need, e.KeyID)} {
			if good {
				n += 1 << i
			}
		}
		return n
	}
	imperfect := slices.DeleteFunc(slices.Clone(a.imperfect), func(e artifact.Evidence) bool { return e.Format != a.format })
	slices.SortStableFunc(imperfect, func(x, y artifact.Evidence) int { return worth(y) - worth(x) })
	for _, e := range imperfect {
		signatures, err := v.carriedBy(ctx, j.request.Ref, a, e)
		if err != nil {
			return artifact.Signature{}, false, err
		}
		for _, signature := range signatures {
			if signature.Evidence(e.Digest) == e && s.completable(a.need, signature) {
				return signature, true, nil
			}
		}
	}
	return artifact.Signature{}, false, nil
}

// carriedBy gives the signatures by a key that a manifest holds.
func (v *Verifier) carriedBy(ctx context.Context, ref artifact.Ref, a attachment, e artifact.Evidence) ([]artifact.Signature, error) {
	if a.format == artifact.Legacy {
		if a.tag == nil {
			return nil, nil
		}
		return v.inTag(ctx, ref, a.need, *a.tag, func(keyID string) bool { return keyID == e.KeyID })
	}
	m, err := v.cfg.Registry.Manifest(ctx, ref.Repository(), e.Digest)
	if fault.Is(err, fault.Gone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a bundle's manifest: %w", err)
	}
	_, signatures, err := v.learn(ctx, m, v.Claim(ref, a.need), v.fetch(ref))
	return signatures, err
}

// completable says whether a signature is worth what would be added. What proves when a keyless one was made must do so within
// the life of its certificate: a time behind it would make a signature that verifies into one that does not.
func (s *Service) completable(need Requirement, signature artifact.Signature) bool {
	timeless := need.LogType == policy.RekorV2 && signature.Timestamp != nil // its entries name no time
	return timeless || isAlive(signature, s.cfg.Now().Add(certificateMargin))
}

// isAlive says whether a time is within the life of the signature's certificate, as each is where a key signed.
func isAlive(signature artifact.Signature, at time.Time) bool {
	if len(signature.Certificates) == 0 {
		return true
	}
	certificate, err := x509.ParseCertificate(signature.Certificates[0])
	return err == nil && !at.Before(certificate.NotBefore) && !at.After(certificate.NotAfter)
}

// certificateMargin is how much of its life a certificate must have left for what is added to prove it.
const certificateMargin = time.Minute
