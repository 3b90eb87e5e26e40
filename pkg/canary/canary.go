// Package canary tries the whole way of a push, again and again: in each project whose policy says canary, an image of its own
// is pushed, the webhook that Harbor sends for it is awaited, and its signature is verified as the registry shows it. The
// policy of the project names the key and the log, so that there is one such project for each pair that is to be watched.
//
// It guarantees that a trial succeeds only if the webhook came, the signature verifies and no log entry is owed; that its images are removed, those of
// trials that were interrupted included; and that all replicas together make one trial for each project and slot. Nothing else
// is ever removed: only repositories named [Repository], in canary projects. It retries nothing: the next slot is the next trial.
package canary

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// Kind is the kind of its ticks.
	Kind = "canary"
	// Repository is where it pushes, below a project.
	Repository = "harborseal-canary"
	// AtOnce is how many trials run at once, over all signers.
	AtOnce = 4

	// leftAfter is how old an image of a trial is that nobody waits for any more.
	leftAfter = 10 * time.Minute
	// sweepEvery is in how many slots one looks for what others have left behind.
	sweepEvery = 10
	// cleanTime bounds the removal, and lastTime that of a program that stops: requests in hand wait for it.
	cleanTime, lastTime = 30 * time.Second, 3 * time.Second
	// The looks for the webhook and the signature are made at growing intervals.
	firstLook, lastLook = 100 * time.Millisecond, 2 * time.Second
)

// Config is what a Canary needs.
type Config struct {
	Registry Registry
	Harbor   Harbor
	Queue    Queue
	Verifier Verifier
	Policies Policies
	// Interval is how often each project is tried; 0 stands for a minute.
	Interval time.Duration
	// Patience is how long a signature is awaited; 0 stands for the interval, but at least a minute.
	Patience   time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Canary makes trials. It is safe for concurrent use.
type Canary struct {
	cfg     Config
	metrics *metrics
}

// New validates the configuration.
func New(cfg Config) (*Canary, error) {
	if cfg.Registry == nil || cfg.Harbor == nil || cfg.Queue == nil || cfg.Verifier == nil || cfg.Policies == nil {
		return nil, errors.New("canary: registry, harbor, queue, verifier and policies are required")
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Patience == 0 {
		cfg.Patience = max(cfg.Interval, time.Minute)
	}
	return &Canary{cfg: cfg, metrics: newMetrics(cfg.Registerer)}, nil
}

// Run proposes a trial for each canary project in each interval, until ctx ends.
func (c *Canary) Run(ctx context.Context) error {
	for {
		if err := c.propose(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, policy.ErrNotLoaded) {
			c.cfg.Logger.Warn().Err(err).Msg("proposing canaries failed: another replica or the next interval will do it")
		}
		now := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(now.Truncate(c.cfg.Interval).Add(c.cfg.Interval))):
		}
	}
}

func (c *Canary) slot(at time.Time) int64 { return at.UnixNano() / int64(c.cfg.Interval) }

func (c *Canary) propose(ctx context.Context) error {
	projects, err := c.cfg.Policies.Canaries()
	errs := []error{err}
	if err == nil {
		errs = append(errs, c.forget(ctx, projects))
	}
	for _, project := range projects {
		if _, err := c.cfg.Queue.Propose(ctx, Kind, project, c.slot(time.Now())); err != nil {
			errs = append(errs, fmt.Errorf("project %s: %w", project, err))
		}
	}
	return errors.Join(errs...)
}

// forget takes those pairs of key and log out of the metrics that nobody tries any more: an alert would never end.
func (c *Canary) forget(ctx context.Context, projects []string) error {
	tried := map[pair]bool{}
	for _, project := range projects {
		p, err := c.cfg.Policies.Policy(ctx, project)
		if err != nil {
			return fmt.Errorf("reading the policy of project %s: %w", project, err)
		}
		if p.Pause == nil {
			tried[pairOf(p)] = true
		}
	}
	c.metrics.keep(tried)
	return nil
}

// Tick makes the trial of a slot, unless the slot has passed. What a trial finds is in the metrics and the log; the error is
// that of a context that has ended, so that another program makes the trial.
func (c *Canary) Tick(ctx context.Context, project string, slot int64) error {
	if slot < c.slot(time.Now())-1 {
		return nil
	}
	p, err := c.cfg.Policies.Policy(ctx, project)
	if err != nil {
		return fmt.Errorf("reading the policy: %w", err)
	}
	if !p.Canary || p.Mode != policy.ModeSign || p.Pause != nil {
		return nil
	}
	c.try(ctx, p)
	if slot%sweepEvery == 0 && ctx.Err() == nil {
		if err := c.removeLeft(ctx, project); err != nil {
			c.failed(p, stepCleanup, artifact.Ref{}, err)
		}
	}
	return ctx.Err()
}

// try makes one trial. A crash at any point leaves an image behind that a later slot removes.
func (c *Canary) try(ctx context.Context, p policy.Policy) {
	var ref artifact.Ref
	fail := func(s step, err error) {
		if ctx.Err() == nil { // otherwise another program makes the trial
			c.failed(p, s, ref, err)
		}
	}
	image, err := NewImage("harborseal canary", time.Now())
	if err != nil {
		fail(stepPush, err)
		return
	}
	ref, err = artifact.NewRef(p.Project+"/"+Repository, image.Manifest.Digest)
	if err != nil {
		fail(stepPush, err)
		return
	}
	if err := c.push(ctx, ref, image); err != nil {
		fail(stepPush, err)
		return
	}
	pushed := time.Now()
	defer c.clean(ctx, p, ref)
	waiting, cancel := context.WithTimeout(ctx, c.cfg.Patience)
	defer cancel()
	if err := c.await(waiting, "the signature", func(ctx context.Context) (bool, error) {
		_, _, signed, err := c.cfg.Verifier.Verify(ctx, p, artifact.Listed{Ref: ref})
		return signed, err
	}); err != nil {
		fail(stepSignature, err)
		return
	}
	took := time.Since(pushed)
	c.metrics.signed(p, took)
	if err := c.await(waiting, "the webhook", func(ctx context.Context) (bool, error) {
		seq, _, err := c.cfg.Queue.LastReceived(ctx, ref)
		return seq > 0, err
	}); err != nil {
		// A sweep may have found the image: the shortcut is broken all the same.
		fail(stepWebhook, err)
		return
	}
	if err := c.await(waiting, "the entry of the transparency log", func(ctx context.Context) (bool, error) {
		evidence, _, signed, err := c.cfg.Verifier.Verify(ctx, p, artifact.Listed{Ref: ref})
		if err != nil || !signed {
			return false, err
		}
		owed, err := c.cfg.Verifier.Owes(ctx, p, evidence)
		if err != nil || len(owed) > 0 {
			return false, err
		}
		// Whoever pays has the last word: what it writes for an image that is gone would stay behind.
		owing, err := c.cfg.Queue.Owing(ctx, ref)
		return !owing, err
	}); err != nil {
		fail(stepLog, err)
		return
	}
	c.metrics.succeeded(p)
	c.cfg.Logger.Debug().Str("project", p.Project).Str("digest", ref.Digest()).Dur("took_ms", took).Msg("canary was signed")
}

func (c *Canary) push(ctx context.Context, ref artifact.Ref, image Image) error {
	for _, blob := range image.Blobs {
		if err := c.cfg.Registry.PushBlob(ctx, ref.Repository(), blob); err != nil {
			return fmt.Errorf("pushing a blob: %w", err)
		}
	}
	if err := c.cfg.Registry.PutManifest(ctx, ref.Repository(), ref.Digest(), image.Manifest); err != nil {
		return fmt.Errorf("pushing the manifest: %w", err)
	}
	return nil
}

// await looks until something is there. An error of a look is what a look at another moment may not meet: the last one is
// told when the time is over.
func (c *Canary) await(ctx context.Context, what string, look func(context.Context) (bool, error)) error {
	var last error
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		there, err := look(ctx)
		if err == nil && there {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s was not there within %s", what, c.cfg.Patience), last)
		case <-time.After(wait):
		}
	}
}

// clean removes the image of a trial, also where the program is stopping: nobody else would for ten minutes.
func (c *Canary) clean(ctx context.Context, p policy.Policy, ref artifact.Ref) {
	limit := cleanTime
	if ctx.Err() != nil {
		limit = lastTime
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := c.remove(ctx, ref); err != nil {
		c.failed(p, stepCleanup, ref, err)
	}
}

func (c *Canary) remove(ctx context.Context, ref artifact.Ref) error {
	if err := c.cfg.Harbor.RemoveArtifact(ctx, ref); err != nil && !fault.Is(err, fault.Gone) {
		return fmt.Errorf("removing the image: %w", err)
	}
	return nil
}

// removeLeft removes what trials have left that were interrupted.
func (c *Canary) removeLeft(ctx context.Context, project string) error {
	var left []artifact.Ref
	err := c.cfg.Harbor.Population(ctx, project, artifact.Cursor{}, func(_ context.Context, page artifact.Page) error {
		for _, l := range page.Manifests {
			if l.Ref.Repository() == project+"/"+Repository && time.Since(l.PushedAt) > leftAfter {
				left = append(left, l.Ref)
			}
		}
		return nil
	})
	errs := []error{err}
	for _, ref := range left {
		errs = append(errs, c.remove(ctx, ref))
	}
	return errors.Join(errs...)
}

func (c *Canary) failed(p policy.Policy, s step, ref artifact.Ref, err error) {
	c.metrics.failed(p, s)
	c.cfg.Logger.Warn().Err(err).Str("project", p.Project).Str("digest", ref.Digest()).Str("step", string(s)).
		Msg("canary failed: pushes of everybody may fare the same")
}
