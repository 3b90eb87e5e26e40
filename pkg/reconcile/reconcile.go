// Package reconcile compares what Harbor's projects hold with what is signed, and asks for what is missing.
//
// It is the guarantee where webhooks are only the shortcut: Harbor loses webhooks. Ticks need no leader: every replica
// proposes each one, the queue takes the first proposal and gives it to one worker, and a tick that comes too late is
// skipped if its project was swept meanwhile. A sweep that fails is repeated by the next tick: it changes nothing but by
// requests, which may be repeated.
//
// It does not decide "signed": the verifier that the signers use does. It remembers what it verified for an
// hour, in memory, under the digests of subject and listed signatures: a signature that is removed or added is noticed by the
// next sweep, a tag that is moved back to an older one within the hour.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Harbor lists projects and what they hold. Each method makes one attempt and returns a fault.
type Harbor interface {
	Projects(ctx context.Context) ([]string, error)
	// Population gives every manifest of the project that is no accessory, page by page.
	Population(ctx context.Context, project string, each func(context.Context, []artifact.Listed) error) error
}

// Queue takes requests and ticks. Both may be repeated: a request that waits already is a duplicate, a tick that was
// proposed before is refused, even after its work is done.
type Queue interface {
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// DeadSince says when the dead letter of ref was written; found is false if there is none.
	DeadSince(ctx context.Context, ref artifact.Ref) (since time.Time, found bool, err error)
	Propose(ctx context.Context, kind, key string, slot int64) (accepted bool, err error)
}

// Policies gives the policy of a project as it is now; an error means that it could not be read.
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Kind is the kind of tick that sweeps have in the queue.
const Kind = "sweep"

// maxUnanswered is how many failing checks that may be a sign of an outage one sweep bears.
const maxUnanswered = 10

// deadRetry is after how long a dead letter is asked for again: what somebody mended meanwhile, such as an expired robot
// account, heals by itself, and what stays broken costs one attempt each time.
const deadRetry = time.Hour

// Config is what a Reconciler needs.
type Config struct {
	Harbor   Harbor
	Queue    Queue
	Policies Policies
	// Signed says whether a manifest carries the signatures that its policy asks for.
	Signed func(ctx context.Context, p policy.Policy, l artifact.Listed) (bool, error)
	// Patterns are the names and globs of the projects that are swept, as far as their policies enable them.
	Patterns []string
	// Interval is the time between the sweeps of one project; 0 stands for 5 minutes.
	Interval   time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Reconciler proposes ticks and sweeps projects. It is safe for concurrent use.
type Reconciler struct {
	cfg     Config
	metrics *metrics
	memory  *memory

	mu   sync.Mutex
	last map[string]time.Time // when this replica's last sweep of a project began; guarded by mu
}

// Summary is what one sweep saw, in manifests.
type Summary struct {
	Population, Signed, Requested, Waiting, Dead, Excluded int
	// AskedBefore counts those that a sweep of this replica asked for within the last hour.
	AskedBefore int
	// Unverifiable counts those that could not be verified now; they stand among the requested, waiting or dead as well.
	Unverifiable int
	// unanswered counts those of them whose failure may be everybody's.
	unanswered int
}

// New validates the configuration.
func New(cfg Config) (*Reconciler, error) {
	if cfg.Harbor == nil || cfg.Queue == nil || cfg.Policies == nil || cfg.Signed == nil {
		return nil, errors.New("reconcile: harbor, queue, policies and the verifier are required")
	}
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Minute
	}
	if cfg.Interval < time.Second {
		return nil, fmt.Errorf("reconcile: interval %s: want at least 1s", cfg.Interval)
	}
	return &Reconciler{cfg: cfg, metrics: newMetrics(cfg.Registerer), memory: newMemory(), last: make(map[string]time.Time)}, nil
}

// slot numbers the interval that t falls into: replicas whose clocks agree to less than an interval propose the same.
func (r *Reconciler) slot(t time.Time) int64 { return t.UnixNano() / int64(r.cfg.Interval) }

// Run proposes a tick for each project at once and then at each interval, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	for {
		if err := r.propose(ctx); err != nil && ctx.Err() == nil {
			r.metrics.proposeErrors.Inc()
			r.cfg.Logger.Warn().Err(err).Msg("proposing sweeps failed: another replica or the next interval will do it")
		}
		next := time.Unix(0, (r.slot(time.Now())+1)*int64(r.cfg.Interval))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
	}
}

func (r *Reconciler) propose(ctx context.Context) error {
	projects, err := r.projects(ctx)
	errs := []error{err}
	slot := r.slot(time.Now())
	for _, project := range projects {
		if _, err := r.cfg.Queue.Propose(ctx, Kind, project, slot); err != nil {
			errs = append(errs, fmt.Errorf("project %s: %w", project, err))
		}
	}
	return errors.Join(errs...)
}

// projects gives the projects to sweep, also beside an error: those that are named do not depend on Harbor's list, which is
// asked for only if a pattern is a glob.
func (r *Reconciler) projects(ctx context.Context) ([]string, error) {
	var names []string
	globs := false
	for _, pattern := range r.cfg.Patterns {
		if policy.IsGlob(pattern) {
			globs = true
		} else {
			names = append(names, pattern)
		}
	}
	var errs []error
	if globs {
		listed, err := r.cfg.Harbor.Projects(ctx)
		names, errs = append(names, listed...), append(errs, err)
	}
	slices.Sort(names)
	var enabled []string
	for _, name := range slices.Compact(names) {
		p, err := r.cfg.Policies.Policy(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the policy of %s: %w", name, err))
			continue
		}
		if policy.Admit(p).Sign {
			enabled = append(enabled, name)
		}
	}
	return enabled, errors.Join(errs...)
}

// Tick sweeps the project of a tick, unless its slot has passed. An error means that the sweep was not finished: the
// tick may be repeated.
//
// A crash during a sweep loses nothing: the tick is delivered again, or the next one does the same.
func (r *Reconciler) Tick(ctx context.Context, project string, slot int64) error {
	log := r.cfg.Logger.With().Str("project", project).Int64("slot", slot).Logger()
	// A tick that waited behind others is passed over only if a sweep of its project began after its time: one project that
	// takes long would otherwise keep the others from ever being swept.
	if r.sweptAfter(project, slot) {
		r.metrics.sweeps.WithLabelValues("skipped").Inc()
		log.Info().Msg("sweep skipped: its time has passed")
		return nil
	}
	p, err := r.cfg.Policies.Policy(ctx, project)
	if err != nil {
		return fmt.Errorf("reading the policy: %w", err)
	}
	if !policy.Admit(p).Sign {
		r.metrics.sweeps.WithLabelValues("skipped").Inc()
		return nil
	}
	started := time.Now()
	summary, err := r.Sweep(ctx, project, p, "sweep-"+project+"-"+strconv.FormatInt(slot, 10))
	// Given back only if it was interrupted, or if the queue failed, which is everybody's. One tick is out at a time: a
	// project that cannot be listed would hold up all others.
	if err != nil && (ctx.Err() != nil || ofTheQueue(fault.Of(err).Reason)) {
		r.metrics.sweeps.WithLabelValues("failed").Inc()
		return fmt.Errorf("sweeping %s: %w", project, err)
	}
	r.swept(project, started)
	if err != nil {
		r.metrics.sweeps.WithLabelValues("failed").Inc()
		log.Error().Err(err).Msg("sweep failed: the next one will try again")
		return nil
	}
	r.metrics.swept(started)
	log.Info().Int("population", summary.Population).Int("signed", summary.Signed).Int("requested", summary.Requested).
		Int("waiting", summary.Waiting).Int("dead", summary.Dead).Int("excluded", summary.Excluded).Int("asked_before", summary.AskedBefore).
		Dur("took_ms", time.Since(started)).Msg("sweep finished")
	return nil
}

// ofTheDigest says that a failing check tells nothing about other digests: what stays broken must not keep the rest of its
// project from being swept, however much there is of it.
func ofTheDigest(reason fault.Reason) bool {
	return reason == fault.TooLarge || reason == fault.Malformed
}

func ofTheQueue(reason fault.Reason) bool {
	return reason == fault.QueueFull || reason == fault.QueueUnavailable
}

// sweptAfter says whether this replica began a sweep of the project after the slot's time.
func (r *Reconciler) sweptAfter(project string, slot int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, found := r.last[project]
	return found && r.slot(last) > slot
}

func (r *Reconciler) swept(project string, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[project] = began
}

// Sweep asks for each manifest of a project that lacks what its policy p asks for, into the bulk lane. A dead letter is asked for
// again once an hour. correlation joins the records of one sweep.
func (r *Reconciler) Sweep(ctx context.Context, project string, p policy.Policy, correlation string) (Summary, error) {
	var summary Summary
	err := r.cfg.Harbor.Population(ctx, project, func(ctx context.Context, page []artifact.Listed) error {
		for _, listed := range page {
			if err := r.check(ctx, p, listed, correlation, &summary); err != nil {
				return err
			}
		}
		return nil
	})
	r.metrics.checked(summary)
	return summary, err
}

func (r *Reconciler) check(ctx context.Context, p policy.Policy, l artifact.Listed, correlation string, summary *Summary) error {
	summary.Population++
	if onlyAccessoryTags(l.Tags) {
		summary.Excluded++
		return nil
	}
	// Harbor counts anything as a signature that looks like one, so its word is good only for "there is none".
	if len(l.Signatures) > 0 {
		signed, err := r.signed(ctx, p, l, summary)
		if err != nil {
			return err
		}
		if signed {
			summary.Signed++
			return nil
		}
	}
	since, dead, err := r.cfg.Queue.DeadSince(ctx, l.Ref)
	if err != nil {
		return fmt.Errorf("looking for a dead letter of %s: %w", l.Ref, err)
	}
	if dead && time.Since(since) < deadRetry {
		summary.Dead++
		return nil
	}
	if r.memory.lately(askedKey(l.Ref)) {
		summary.AskedBefore++
		return nil
	}
	duplicate, err := r.cfg.Queue.Enqueue(ctx, artifact.Request{
		Ref: l.Ref, Lane: artifact.Bulk, Origin: artifact.OriginSweep, Actor: "reconciler",
		CorrelationID: correlation, RequestedAt: time.Now().UTC(),
	})
	switch {
	case err != nil:
		return fmt.Errorf("asking for %s: %w", l.Ref, err)
	case duplicate:
		summary.Waiting++
	default:
		summary.Requested++
		r.memory.remember(askedKey(l.Ref))
		r.cfg.Logger.Info().Str("project", l.Ref.Project()).Str("repository", l.Ref.Repository()).Str("digest", l.Ref.Digest()).
			Str("correlation_id", correlation).Msg("unsigned manifest found")
	}
	return nil
}

// signed verifies, unless it did so lately. A manifest that cannot be verified now is asked for, because the signer will
// look for itself; only many of them end the sweep, so that a registry's outage does not fill the queue and one broken
// signature does not hide the rest of its project.
func (r *Reconciler) signed(ctx context.Context, p policy.Policy, l artifact.Listed, summary *Summary) (bool, error) {
	if r.memory.lately(verifiedKey(p.Revision, l)) {
		return true, nil
	}
	signed, err := r.cfg.Signed(ctx, p, l)
	if err != nil {
		summary.Unverifiable++
		if !ofTheDigest(fault.Of(err).Reason) {
			summary.unanswered++
		}
		if ctx.Err() != nil || summary.unanswered > maxUnanswered {
			return false, fmt.Errorf("verifying %s: %w", l.Ref, err)
		}
		r.cfg.Logger.Warn().Err(err).Str("project", l.Ref.Project()).Str("repository", l.Ref.Repository()).Str("digest", l.Ref.Digest()).
			Msg("verifying failed: the signer is asked to look")
		return false, nil
	}
	if signed {
		r.memory.forget(askedKey(l.Ref)) // if the signature goes, it is asked for at once
		r.memory.remember(verifiedKey(p.Revision, l))
	}
	return signed, nil
}

// onlyAccessoryTags recognises what Harbor lists as an artifact though cosign attached it, such as a legacy attestation.
func onlyAccessoryTags(tags []string) bool {
	for _, tag := range tags {
		if !artifact.IsAccessoryTag(tag) {
			return false
		}
	}
	return len(tags) > 0
}
