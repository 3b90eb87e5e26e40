package signing

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// requeueTimeout bounds the look for a push that came in during the work.
const requeueTimeout = 5 * time.Second

// finish records the outcome, puts the debt into the queue if there is one, and removes the request from the queue.
//
// A crash before the record: the next attempt finds the same outcome and records it. Between record and acknowledgement:
// the next attempt records an event with the same id, of which the ledger keeps the first, and the debt once more, which is a
// duplicate if it is there. After it: all is done, but that a push which came in meanwhile is looked for; a sweep finds what is
// missed by that.
func (s *Service) finish(ctx context.Context, j *job, out outcome) error {
	if err := s.record(ctx, s.event(j, out)); err != nil {
		return fmt.Errorf("recording the outcome: %w", err)
	}
	j.recorded = true
	failpoint.Hit(failpoint.SigningAfterEvent)
	if out.kind == artifact.Signed {
		if err := s.cfg.Queue.ClearDead(ctx, j.request.Ref); err != nil {
			return fmt.Errorf("removing the dead letter: %w", err)
		}
	}
	if len(out.owed) > 0 {
		if err := s.enqueueDebt(ctx, j); err != nil {
			return err
		}
		failpoint.Hit(failpoint.SigningAfterDebt)
	}
	err := j.delivery.Done(ctx)
	failpoint.Hit(failpoint.SigningAfterAck)
	if out.kind != artifact.Signed {
		// After an error too: the acknowledgement may have arrived. If it has not, this is refused as a duplicate, or, in the
		// other lane, is one more attempt that changes nothing.
		s.requeue(ctx, j)
	}
	if err != nil {
		// If it did not arrive, the request comes again and finds everything done.
		return fmt.Errorf("acknowledging: %w", err)
	}
	return nil
}

// event is the record of an outcome. Its id holds the cause, so that a repetition of this request is one fact and a
// later push of the same digest another.
func (s *Service) event(j *job, out outcome) artifact.Event {
	e := s.newEvent(j, out.kind, string(out.reason))
	e.MediaType, e.Detail = out.mediaType, out.note
	if out.kind == artifact.Signed {
		e.How = out.how
		parts := append([]string{e.CorrelationID}, name(&e, out.signatures)...)
		e.ID = artifact.EventID(e.Kind, e.Ref, parts...)
		if len(out.owed) > 0 {
			e.LogOwed, e.AsOf = out.owed, max(j.asOf, 1) // 0 would stand for the moment of the record
		}
	}
	return e
}

// name puts the signatures into an event, and gives what makes them a fact.
func name(e *artifact.Event, signatures []artifact.Evidence) (parts []string) {
	e.Signatures = signatures
	for i, s := range signatures {
		if i == 0 {
			e.Format, e.KeyID, e.SignatureDigest = s.Format, s.KeyID, s.Digest
		}
		parts = append(parts, s.KeyID, s.Digest)
	}
	return parts
}

func (s *Service) newEvent(j *job, kind artifact.Kind, reason string) artifact.Event {
	r := j.request
	unsigned := j.unsigned && (kind == artifact.Failed || kind == artifact.Dead)
	asOf := uint64(0)
	if unsigned || reason == string(policy.Observed) {
		asOf = max(j.asOf, 1) // 0 would stand for the moment of the record
	}
	return artifact.Event{
		ID:   artifact.EventID(kind, r.Ref, r.CorrelationID, reason, strconv.FormatUint(j.seen, 10)),
		Kind: kind, Ref: r.Ref, Time: s.cfg.Now().UTC(), Actor: r.Actor, Origin: r.Origin, CorrelationID: r.CorrelationID,
		Lane: r.Lane, Parent: r.Parent, Attempts: j.delivery.Attempts(), PolicyRevision: j.policy.Revision, Reason: reason,
		Unsigned: unsigned, AsOf: asOf, Canary: j.policy.Canary,
	}
}

// requeue asks again for a digest that was pushed, or that an index asked for, while its request was in work: that was
// refused as a duplicate of a request that then ended without a signature. It comes after the acknowledgement, because
// before it the queue would refuse this request as well.
func (s *Service) requeue(ctx context.Context, j *job) {
	ref := j.request.Ref
	if j.seen == 0 && !j.looked {
		return // it never came to the question; whatever was pushed meanwhile is as old as this request for all it knows
	}
	// The request is gone: nobody else will look, also if this program is stopping.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requeueTimeout)
	defer cancel()
	again, missed, err := s.missed(ctx, j)
	if missed {
		_, err = s.cfg.Queue.Enqueue(ctx, again)
	}
	if err != nil {
		s.cfg.Logger.Warn().Err(err).Str("project", ref.Project()).Str("repository", ref.Repository()).Str("digest", ref.Digest()).
			Msg("looking for a push during the work failed: the next sweep will find it")
	}
}

// missed gives the request for what came in behind the look of this attempt. That for an index names no event, so that the
// attempt at it looks for the newest one first: nothing is asked for twice because of one event, whichever signer works on it.
func (s *Service) missed(ctx context.Context, j *job) (again artifact.Request, missed bool, err error) {
	again = artifact.Request{
		Ref: j.request.Ref, Lane: artifact.Live, Origin: artifact.OriginRequeue, RequestedAt: s.cfg.Now().UTC(),
	}
	seq, event, err := s.cfg.Queue.LastReceived(ctx, again.Ref)
	if err != nil {
		return again, false, err
	}
	if seq > j.seen {
		again.Actor, again.CorrelationID, again.ReceivedSeq = event.Actor, event.CorrelationID, seq
		return again, true, nil
	}
	// The attempt that follows finds the event of the index too: it needs not be told which one it was.
	if seq, err = s.cfg.Queue.LastQueued(ctx, again.Ref); err != nil {
		return again, false, err
	}
	again.Lane, again.Actor, again.CorrelationID = j.request.Lane, j.request.Actor, j.request.CorrelationID
	return again, seq > j.queued, nil
}

// projectIsGone tells a deleted project from a missing right. Who cannot tell says no.
func (s *Service) projectIsGone(ctx context.Context, j *job, err error) bool {
	if fault.Of(err).Reason != fault.Denied {
		return false
	}
	exists, err := s.cfg.Harbor.ProjectExists(ctx, j.request.Ref.Project())
	return err == nil && !exists
}

// fail turns a fault into what happens to the request.
func (s *Service) fail(ctx context.Context, j *job, err error) {
	age := s.age(j)
	does, f := s.judge(failure{fault: fault.Of(err), recorded: j.recorded, unproven: j.unproven, age: age, tries: j.delivery.Tries()})
	log := s.cfg.Logger.With().
		Str("project", j.request.Ref.Project()).Str("repository", j.request.Ref.Repository()).Str("digest", j.request.Ref.Digest()).
		Str("correlation_id", j.request.CorrelationID).Uint64("attempts", j.delivery.Attempts()).
		Str("kind", string(f.Kind)).Str("reason", string(f.Reason)).Logger()
	if ctx.Err() != nil {
		log.Info().Err(err).Msg("attempt interrupted: the request goes back to the queue")
		return
	}
	if does == wait {
		s.postpone(ctx, j, f, pauseDelay(f), log)
		return
	}
	if does == dead {
		detail := err.Error()
		if f.Reason == fault.TooOld {
			detail = fmt.Sprintf("given up after %s and %d attempts; the last error: %s", age.Round(time.Second), j.delivery.Attempts(), detail)
		}
		if buryErr := s.bury(ctx, j, f, detail); buryErr == nil {
			s.metrics.failed(artifact.Dead, f)
			log.Error().Err(err).Msg("request given up: it waits in the dead letters")
			return
		} else {
			err = errors.Join(err, buryErr)
		}
	}
	delay := retryDelay(s.failures(j), f)
	s.metrics.failed(artifact.Failed, f)
	log.Warn().Err(err).Dur("delay_ms", delay).Msg("attempt failed: it will be repeated")
	s.recordFailure(ctx, j, f, err)
	if err := j.delivery.Retry(ctx, delay); err != nil {
		log.Warn().Err(err).Msg("giving the request back failed: the queue will deliver it when its deadline has passed")
	}
}

// postpone lets a request wait until signing is resumed, however long that takes: it is no failure of the digest.
func (s *Service) postpone(ctx context.Context, j *job, f fault.Error, delay time.Duration, log zerolog.Logger) {
	s.metrics.failed(artifact.Failed, f)
	s.postponed.put(j.request.Ref, j.delivery.Attempts())
	log.Debug().Err(f.Err).Dur("delay_ms", delay).Msg("signing is paused: the request waits")
	if err := j.delivery.Retry(ctx, delay); err != nil {
		log.Warn().Err(err).Msg("giving the request back failed: the queue will deliver it when its deadline has passed")
	}
}

// age is how long a request could have been worked on: not while signing was paused.
func (s *Service) age(j *job) time.Duration {
	since := j.delivery.FirstSeen()
	if j.policy.ResumedAt.After(since) {
		since = j.policy.ResumedAt
	}
	return s.cfg.Now().Sub(since)
}

// bury records the end in the ledger and hands the request to the dead letters. A crash between the two repeats both:
// the event has the same id, the dead letter is the newest of its digest.
func (s *Service) bury(ctx context.Context, j *job, f fault.Error, detail string) error {
	e := s.newEvent(j, artifact.Dead, string(f.Reason))
	e.Detail = detail
	if err := s.record(ctx, e); err != nil {
		return fmt.Errorf("recording the dead letter: %w", err)
	}
	err := j.delivery.Bury(ctx, e)
	s.requeue(ctx, j) // after an error too, as in finish
	if err != nil {
		return fmt.Errorf("burying: %w", err)
	}
	return nil
}

// recordFailure writes the first, second, fourth, eighth … failure into the ledger: a long outage leaves a short trace
// for each digest. A record that fails is no reason to fail again.
func (s *Service) recordFailure(ctx context.Context, j *job, f fault.Error, cause error) {
	if bits.OnesCount64(s.failures(j)) != 1 {
		return
	}
	e := s.newEvent(j, artifact.Failed, string(f.Reason))
	e.ID = artifact.EventID(e.Kind, e.Ref, e.CorrelationID, e.Reason, strconv.FormatUint(e.Attempts, 10))
	e.Detail = cause.Error()
	if err := s.record(ctx, e); err != nil {
		s.cfg.Logger.Warn().Err(err).Str("digest", e.Ref.Digest()).Msg("recording a failed attempt failed")
	}
}

// failures is how many attempts have failed, with this one. Those that met a pause are no failures, as far as this process has
// seen them, and neither are those that the queue gave back because something that they need was down.
func (s *Service) failures(j *job) uint64 {
	attempts := j.delivery.Attempts()
	if met, found := s.postponed.get(j.request.Ref); found && met < attempts {
		attempts -= met
	}
	return min(attempts, j.delivery.Tries())
}
