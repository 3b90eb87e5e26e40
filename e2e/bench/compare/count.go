package compare

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/contender"
)

// countRequests lets the registry count what one signature takes: the first of a process, the first in a repository, and
// those that follow.
func (c *comparison) countRequests(ctx context.Context, table *Table) error {
	for _, e := range append(slices.Clip(c.entries), watching()) {
		c.say("counting requests: %s", e.label())
		counted, err := c.countOne(ctx, e)
		if err != nil {
			return err
		}
		table.row(e.name, e.format).Requests = counted
	}
	return nil
}

func (c *comparison) countOne(ctx context.Context, e entry) (counted *Requests, err error) {
	s, err := c.start(ctx, e, "count")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	warm := 100
	if e.program == "" {
		warm = 1 // each is like the first
	}
	counted = &Requests{}
	first, digests, err := c.stage.images(ctx, 1)
	if err != nil {
		return nil, err
	}
	if counted.FirstOfProcess, err = c.counting(ctx, e, s, first, digests); err != nil {
		return nil, err
	}
	second, digests, err := c.stage.images(ctx, 1+warm)
	if err != nil {
		return nil, err
	}
	if counted.Cold, err = c.counting(ctx, e, s, second, digests[:1]); err != nil {
		return nil, err
	}
	counted.Warm, err = c.counting(ctx, e, s, second, digests[1:])
	return counted, err
}

// counting gives the requests for one signature of an order, by kind. One is in flight, so that what is remembered after
// the first serves the second.
func (c *comparison) counting(ctx context.Context, e entry, s signer, repository string, digests []string) (map[string]float64, error) {
	before, err := c.stage.requests(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.order(ctx, contender.Order{Repository: repository, Digests: digests, InFlight: 1}); err != nil {
		return nil, fmt.Errorf("%s: %w", e.label(), err)
	}
	after, err := c.settled(ctx, e)
	if err != nil {
		return nil, err
	}
	each := make(map[string]float64)
	for kind, n := range after {
		if n -= before[kind]; n != 0 {
			each[kind] = float64(n) / float64(len(digests))
		}
	}
	return each, c.verify.some(ctx, e.format, contender.Order{Repository: repository, Digests: digests})
}

// settled gives the requests so far. Of an engine that looks at its tags beside its work, it waits for the first look; the
// second one comes half a minute later, and is the same.
func (c *comparison) settled(ctx context.Context, e entry) (map[string]int64, error) {
	now, err := c.stage.requests(ctx)
	if !e.watch || err != nil {
		return now, err
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		before := now
		if now, err = c.stage.requests(ctx); err != nil || maps.Equal(before, now) {
			return now, err
		}
	}
}

// memory lets the engine make very many signatures, in as many repositories as a large company has, and reads how large
// the process was after the first and after the last of them.
func (c *comparison) memory(ctx context.Context) (m *Memory, err error) {
	const each, inFlight = 1000, 32
	e := watching()
	c.say("%d signatures in one process: %s", c.Plan.Flat, e.label())
	s, err := c.start(ctx, e, "memory")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	m = &Memory{}
	for m.Signatures < c.Plan.Flat {
		if err := c.stage.clear(ctx); err != nil {
			return nil, err
		}
		r, err := c.fill(ctx, e, s, min(each, c.Plan.Flat-m.Signatures), inFlight)
		if err != nil {
			return nil, err
		}
		m.Signatures += r.Signatures
		if m.First == 0 {
			m.First, m.FirstSignatures = r.PeakRSS, r.Signatures
		}
		m.Last = r.PeakRSS
		if m.Signatures%10_000 == 0 {
			c.say("%d signatures, peak %d MiB", m.Signatures, m.Last>>20)
		}
	}
	return m, nil
}
