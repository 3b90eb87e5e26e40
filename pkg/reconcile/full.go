package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// pauseFor is when a sweep that could not go on is tried again, unless who failed named a time.
	pauseFor = 30 * time.Second
	// maxStuck is how often a sweep is tried at one place before the next slot is waited for: one project's broken listing must
	// not stand in the way of the others.
	maxStuck = 5
	// keptFor is how long a sweep that waits is kept in memory.
	keptFor = time.Hour
)

// full sweeps a project.
func (r *Reconciler) full(ctx context.Context, project string, slot int64) error {
	log := r.cfg.Logger.With().Str("project", project).Int64("slot", slot).Logger()
	// Who asked for a sweep may just have changed the policy.
	p, err := r.cfg.Policies.Fresh(ctx, project)
	if errors.Is(err, policy.ErrNotLoaded) || err != nil && fault.Of(err).Reason == fault.QueueUnavailable {
		return fault.After(5*time.Second, fault.PolicyUnreadable, err)
	}
	if err != nil {
		r.metrics.ended(Full, failed)
		log.Error().Err(err).Msg("sweep failed: the policy cannot be read")
		return nil
	}
	if admitted := policy.Admit(p); !admitted.Sign {
		r.metrics.ended(Full, skipped)
		log.Info().Str("reason", string(admitted.Reason)).Msg("sweep skipped: the project's policy admits nothing")
		return nil
	}
	if p.Canary {
		r.metrics.ended(Full, skipped)
		log.Debug().Msg("sweep skipped: the project's images are this service's own")
		return nil
	}
	leave, free := r.enter(Full, project)
	if !free {
		return fault.After(pauseFor, fault.Unavailable, errors.New("this worker is at the project already"))
	}
	defer leave()
	s, err := r.claim(ctx, p, project, slot, log)
	if err != nil || s == nil {
		return err
	}
	return r.finish(ctx, s, s.run(metered(ctx, &s.requests)))
}

// claim decides what a tick means: nil where nothing is to be done. An error gives the tick back.
func (r *Reconciler) claim(ctx context.Context, p policy.Policy, project string, slot int64, log zerolog.Logger) (*pass, error) {
	now := time.Now()
	st, revision, err := r.load(ctx, project)
	if err != nil {
		return nil, err
	}
	skip := func(why string) (*pass, error) {
		r.metrics.ended(Full, skipped)
		log.Debug().Str("reason", why).Msg("sweep skipped")
		return nil, nil //nolint:nilnil // nothing to do is an answer
	}
	asked := r.calendar.fullAt(project, slot)
	inWork := st.inWork(now) && st.Worker != r.worker // this worker is at nothing else
	switch {
	case inWork && st.Slot == slot:
		// Its worker has gone and its tick has come here, or the tick was delivered twice.
		return nil, fault.After(silentFor-now.Sub(st.BeatAt)+time.Second, fault.Unavailable, errors.New("a worker that was at this sweep may still be"))
	case inWork && slot < 0 && !st.coversAdHoc(asked, p.Revision):
		st.Again = true // it began before this one was asked for, perhaps under another policy
		if _, err := r.save(ctx, project, st, revision); err != nil {
			return nil, fault.After(time.Second, fault.Unavailable, err) // most likely a sign of life came in between
		}
		return skip("another sweep of the project is in work, and is to be followed by this one")
	case inWork:
		return skip("another sweep of the project is in work")
	case !st.Unfinished && slot == st.Slot, slot < 0 && !st.Unfinished && st.coversAdHoc(asked, p.Revision):
		return skip("it is done")
	case slot >= 0 && st.Unfinished: // whatever it was that failed, it is made up for
	case slot >= 0 && !st.SucceededAt.Before(asked):
		return skip("the project was swept after its time")
	case slot >= 0 && !r.calendar.own(slot) && !st.Again && now.Sub(st.SucceededAt) < r.cfg.Interval:
		return skip("it is not due")
	}
	s := r.resume(st, revision, p, project, slot, now)
	if s == nil {
		s = newPass(r, p, project)
		s.at = progress{Slot: slot, Worker: r.worker, Policy: p.Revision, Unfinished: true, SucceededAt: st.SucceededAt}
		s.at.Retries = slot < 0 || st.Again
		s.revision = revision
		s.began = now
		s.at.Sweep.StartedAt = now.UTC()
		s.sum = s.at.Sweep
		s.saved = s.at.place
	}
	s.correlation = "sweep-" + project + "-" + strconv.FormatInt(s.at.Slot, 10)
	s.log = log.With().Str("correlation_id", s.correlation).Logger()
	s.at.Worker, s.at.BeatAt, s.at.Again = r.worker, now.UTC(), s.again
	if s.revision, err = r.save(ctx, project, s.small(s.at), s.revision); err != nil {
		if errors.Is(err, policy.ErrConflict) {
			return nil, fault.After(time.Second, fault.Unavailable, err) // another worker was faster: look again
		}
		return nil, err
	}
	s.savedAt = now
	r.mu.Lock()
	r.passes[project] = s
	r.mu.Unlock()
	return s, nil
}

// coversAdHoc says whether a sweep does what somebody asks for at a time: it began later, under the same policy, and asks for
// dead letters as well.
func (p progress) coversAdHoc(asked time.Time, revision string) bool {
	return p.Retries && p.Sweep.StartedAt.After(asked) && p.Policy == revision && (p.Unfinished || p.SucceededAt.After(asked))
}

// resume gives the sweep that is to be gone on with, or nil for a new one.
func (r *Reconciler) resume(st progress, revision uint64, p policy.Policy, project string, slot int64, now time.Time) *pass {
	r.mu.Lock()
	kept := r.passes[project]
	for name, other := range r.passes {
		if name == project || now.Sub(other.savedAt) > keptFor {
			delete(r.passes, name)
		}
	}
	r.mu.Unlock()
	fresh := slot != st.Slot && (slot < 0 || now.Sub(st.Sweep.StartedAt) >= r.cfg.Interval)
	if !st.Unfinished || fresh || st.Policy != p.Revision {
		return nil
	}
	if kept != nil && kept.revision == revision {
		kept.policy = p // the same but for its pause
		return kept     // with all that it has seen
	}
	if st.Holds {
		return nil
	}
	s := newPass(r, p, project)
	s.at, s.sum, s.revision, s.began, s.again = st, st.Sweep, revision, st.Sweep.StartedAt, st.Again
	s.saved = st.place
	s.at.Partial = s.at.Pages > 0
	s.requests.Store(int64(st.Sweep.Requests))
	s.seen.blind = s.at.Partial
	return s
}

// finish says what the end of a pass means for its tick.
func (r *Reconciler) finish(ctx context.Context, s *pass, err error) error {
	if err == nil {
		err = s.conclude(ctx)
	}
	switch {
	case err == nil:
		r.forget(s)
		return nil
	case errors.Is(err, errOvertaken):
		r.forget(s)
		r.metrics.ended(Full, overtaken)
		s.log.Warn().Msg("sweep left to another worker")
		return nil
	case errors.Is(err, errReplaced):
		r.forget(s)
		s.drop(ctx)
		r.metrics.ended(Full, suspended)
		s.log.Error().Err(err).Msg("sweep asks for nothing: another project stands under this name")
		return nil
	}
	s.at.Sweep.Requests = int(s.requests.Load())
	everybodys := ctx.Err() != nil || ofTheQueue(err)
	if !everybodys {
		s.at.Stuck++
	}
	if everybodys || fault.Is(err, fault.Transient) && s.at.Stuck < maxStuck {
		s.rest(ctx)
		r.metrics.ended(Full, paused)
		s.log.Warn().Err(err).Int("pages", s.at.Pages).Int("rows", s.sum.Population).Msg("sweep pauses: it goes on where it is")
		if ctx.Err() != nil {
			return fmt.Errorf("sweeping %s: %w", s.project, err)
		}
		return fault.After(orDefault(fault.Of(err).RetryAfter, pauseFor), fault.Of(err).Reason, fmt.Errorf("sweeping %s: %w", s.project, err))
	}
	r.metrics.ended(Full, failed)
	s.at.Stuck = 0
	s.rest(ctx)
	s.log.Error().Err(err).Int("pages", s.at.Pages).Int("rows", s.sum.Population).Msg("sweep failed: the next slot will try again")
	return nil
}

func (r *Reconciler) forget(s *pass) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passes[s.project] == s {
		delete(r.passes, s.project)
	}
}

// conclude records the summary and frees the project for the next sweep.
//
// A crash before the record repeats the end of the sweep; between the record and the save too, and the summary has the same
// id.
func (s *pass) conclude(ctx context.Context) error {
	s.sum.Requests = int(s.requests.Load())
	s.sum.Digest = s.seen.digest()
	if !s.at.Partial {
		s.sum.Population = s.seen.count()
	}
	sum := s.sum
	event := artifact.Event{
		ID:   artifact.EventID(artifact.Swept, artifact.Ref{}, s.project, s.correlation),
		Kind: artifact.Swept, Project: s.project, Time: time.Now().UTC(), Actor: actor, Origin: artifact.OriginSweep,
		CorrelationID: s.correlation, PolicyRevision: s.policy.Revision, Sweep: &sum,
	}
	if _, err := s.r.cfg.Queue.Record(ctx, event); err != nil {
		return fmt.Errorf("recording the summary: %w", err)
	}
	if s.again {
		if _, err := s.r.cfg.Queue.Propose(ctx, Full, s.project, AdHoc(time.Now())); err != nil {
			return fmt.Errorf("asking for another sweep: %w", err)
		}
	}
	end := s.at
	end.Unfinished, end.BeatAt, end.Cursor, end.Again, end.Stuck = false, time.Time{}, artifact.Cursor{}, false, 0
	end.SucceededAt, end.Sweep = s.at.Sweep.StartedAt, sum
	proposed := s.again
	s.again = false
	if err := s.keep(ctx, end); err != nil {
		s.again = proposed
		return err
	}
	if s.again && !proposed { // asked for between the look and the save
		if _, err := s.r.cfg.Queue.Propose(ctx, Full, s.project, AdHoc(time.Now())); err != nil {
			return fmt.Errorf("asking for another sweep: %w", err)
		}
	}
	s.report(sum)
	return nil
}

func (s *pass) report(sum artifact.Sweep) {
	s.r.metrics.counted(sum)
	s.r.metrics.succeeded(Full, s.began)
	s.r.mu.Lock()
	s.r.retired[s.project] = rotation{retired: sum.Retired, at: time.Now()}
	s.r.mu.Unlock()
	if missing := sum.HarborCount + sum.Pushed - sum.Deleted - sum.Population; missing > 0 && !s.at.Partial {
		s.log.Warn().Int("missing", missing).Int("harbor_count", sum.HarborCount).Int("population", sum.Population).
			Msg("harbor has counted more manifests than it has listed: perhaps they were deleted meanwhile")
	}
	s.log.Info().Int("population", sum.Population).Int("harbor_count", sum.HarborCount).Int("pushed", sum.Pushed).Int("deleted", sum.Deleted).
		Int("signed", sum.Signed).Int("requested", sum.Requested).Int("pending", sum.Pending).Int("dead", sum.Failed).
		Int("excluded", sum.Excluded).Int("blocked", sum.Blocked).Int("unsigned", sum.Unsigned).Int("gone", sum.Gone).
		Int("removed", sum.Removed).Int("verified", sum.Verified).Int("retired", sum.Retired).Int("requests", sum.Requests).
		Bool("partial", s.at.Partial).Dur("took_ms", time.Since(s.began)).Msg("sweep finished")
}

// drop ends a sweep without a result: the next slot begins anew.
func (s *pass) drop(ctx context.Context) {
	end := s.at
	end.Unfinished, end.BeatAt, end.Cursor = false, time.Time{}, artifact.Cursor{}
	if err := s.keep(ctx, end); err != nil {
		s.log.Warn().Err(err).Msg("saving the end of the sweep failed")
	}
}

// ofTheQueue says that everybody's work waits: for the queue, or for who answers over it.
func ofTheQueue(err error) bool {
	reason := fault.Of(err).Reason
	return errors.Is(err, errNoMemory) || reason == fault.QueueFull || reason == fault.QueueUnavailable
}
