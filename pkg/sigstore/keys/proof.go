package keys

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// proof is that a key of a KMS or HSM has signed what its public key verifies. [Open] makes it; if nobody answers then, the first
// signatures try it again, until one of them has it.
type proof struct {
	// try makes the proof. Its errors are marked as those of a remote.
	try func(ctx context.Context) error
	// where stands in errors.
	where   string
	timeout time.Duration
	// closed is closed when the key is.
	closed <-chan struct{}
	// turn holds an element while somebody tries: an HSM that is just starting shall not meet a crowd.
	turn chan struct{}

	mu      sync.Mutex
	missing error // guarded by mu: why there is no proof; nil with one
	failed  int   // guarded by mu: how many tries
}

func newProof(c *calls, where string, try func(context.Context) error) *proof {
	return &proof{try: try, where: where, timeout: c.timeout, closed: c.closed, turn: make(chan struct{}, 1)}
}

// require returns nil once there is a proof, and tries to make it otherwise. Whoever comes meanwhile waits for that, not longer than
// the timeout, and shares what comes of it. A try that its own caller gave up says nothing about the key: the next one tries anew.
func (p *proof) require(ctx context.Context) error {
	failed, missing := p.state()
	if missing == nil {
		return nil
	}
	timer := time.NewTimer(p.timeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.closed:
		return errClosed
	case <-timer.C:
		return fmt.Errorf("another signature is still trying to reach it; before, it was: %w", missing)
	case p.turn <- struct{}{}:
	}
	defer func() { <-p.turn }()
	if now, missing := p.state(); missing == nil || now != failed {
		return missing
	}
	err := p.try(ctx)
	if err == nil || ctx.Err() == nil {
		p.settle(err)
	}
	return err
}

func (p *proof) state() (failed int, missing error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed, p.missing
}

func (p *proof) settle(missing error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = missing
	if missing != nil {
		p.failed++
	}
}
