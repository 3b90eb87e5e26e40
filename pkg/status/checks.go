package status

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// sightingAge is for how long it counts that a manifest was seen in the registry, and absenceAge that it was not: a new signature
	// must not wait for long.
	sightingAge = 10 * time.Second
	absenceAge  = 2 * time.Second
	// childrenAge is for how long it is remembered what an index names. It cannot change: a digest stands for it.
	childrenAge = time.Hour
	// questionsAtOnce bounds the questions to Harbor, over all callers, and fanOut those about one index.
	questionsAtOnce = 16
	fanOut          = 8
)

// registry is where images are. It is safe for concurrent use, makes one attempt, and its errors are faults.
type registry interface {
	// Resolve gives the manifest that a tag or a digest names now, with its children. The fault is Gone if there is none.
	Resolve(ctx context.Context, repository, reference string) (artifact.Listed, error)
	// Answers says whether the registry hands out a manifest.
	Answers(ctx context.Context, ref artifact.Ref) (bool, error)
}

// checks asks the registry, and remembers what may be. It is safe for concurrent use.
type checks struct {
	registry registry
	timeout  time.Duration
	now      func() time.Time
	gate     chan struct{}
	seen     *memory[artifact.Ref, sighting]
	children *memory[string, []string] // by the digest of the index; empty for what is none. Never changed.
	metrics  *metrics
}

// sighting is whether a manifest was in the registry, and when.
type sighting struct {
	there bool
	at    time.Time
}

func newChecks(cfg Config, m *metrics) *checks {
	return &checks{
		registry: cfg.Registry, timeout: cfg.Timeout, now: cfg.Now, gate: make(chan struct{}, questionsAtOnce),
		seen: newMemory[artifact.Ref, sighting](cfg.Now), children: newMemory[string, []string](cfg.Now), metrics: m,
	}
}

// resolve asks what a reference names, each time: a tag that was moved just now must not lead to what it named before.
func (c *checks) resolve(ctx context.Context, repository, reference string) (artifact.Listed, error) {
	leave, err := c.enter(ctx)
	if err != nil {
		return artifact.Listed{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	c.metrics.questions.WithLabelValues("resolve").Inc()
	listed, err := c.registry.Resolve(ctx, repository, reference)
	if err != nil {
		return artifact.Listed{}, fmt.Errorf("asking what %s names: %w", reference, err)
	}
	c.remember(listed.Ref, listed.Children)
	return listed, nil
}

// remember keeps what a manifest names.
func (c *checks) remember(ref artifact.Ref, children []string) {
	c.children.put(ref.Digest(), children, c.now(), childrenAge)
}

// childrenOf gives what a manifest names; nothing if it is no index.
func (c *checks) childrenOf(ctx context.Context, ref artifact.Ref) ([]string, error) {
	return c.children.get(ctx, ref.Digest(), func() ([]string, time.Duration, error) {
		listed, err := c.resolve(context.WithoutCancel(ctx), ref.Repository(), ref.Digest())
		return listed.Children, childrenAge, err
	})
}

// verified takes a signer's word: it has just read these signatures in the registry.
func (c *checks) verified(e artifact.Event) {
	if e.Kind != artifact.Signed && e.Kind != artifact.LogPaid {
		return
	}
	if index, known := isIndex(e.MediaType); known && !index {
		c.remember(e.Ref, nil)
	}
	at := e.Time
	if now := c.now(); at.After(now) {
		at = now
	}
	for _, s := range e.Signatures {
		if ref, err := e.Ref.Sibling(s.Digest); err == nil {
			c.seen.put(ref, sighting{there: true, at: at}, at, sightingAge)
		}
	}
}

// look says which manifests are in the registry, as of at most 10 s ago. oldest is the age of the oldest of the answers.
func (c *checks) look(ctx context.Context, refs []artifact.Ref) (missing map[artifact.Ref]bool, oldest time.Time, err error) {
	var (
		all   = make([]sighting, len(refs))
		errs  = make([]error, len(refs))
		group sync.WaitGroup
		slots = make(chan struct{}, fanOut)
	)
	for i, ref := range refs {
		if s, found := c.seen.find(ref); found {
			all[i] = s
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			all[i], errs[i] = c.see(ctx, ref)
		})
	}
	group.Wait()
	missing = map[artifact.Ref]bool{}
	for i, s := range all {
		switch {
		case errs[i] != nil:
			return nil, time.Time{}, errs[i]
		case !s.there:
			missing[refs[i]] = true
		case oldest.IsZero() || s.at.Before(oldest):
			oldest = s.at
		default:
		}
	}
	return missing, oldest, nil
}

func (c *checks) see(ctx context.Context, ref artifact.Ref) (sighting, error) {
	return c.seen.get(ctx, ref, func() (sighting, time.Duration, error) {
		// Others wait for it, so that it must not end because this caller has gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		leave, err := c.enter(ctx)
		if err != nil {
			return sighting{}, 0, err
		}
		defer leave()
		c.metrics.questions.WithLabelValues("signature").Inc()
		s := sighting{at: c.now()}
		if s.there, err = c.registry.Answers(ctx, ref); err != nil {
			return sighting{}, 0, fmt.Errorf("looking for a signature in the registry: %w", err)
		}
		if s.there {
			return s, sightingAge, nil
		}
		return s, absenceAge, nil
	})
}

// enter waits for a turn among the questions to Harbor.
func (c *checks) enter(ctx context.Context) (leave func(), err error) {
	select {
	case c.gate <- struct{}{}:
		return func() { <-c.gate }, nil
	case <-ctx.Done():
		return nil, fault.Newf(fault.Transient, fault.Timeout, "waiting for a turn among the questions to Harbor: %w", ctx.Err())
	}
}
