package queue

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a growing, capped and jittered delay. It is not safe for concurrent use.
type backoff struct {
	first, limit time.Duration
	next         time.Duration
}

func newBackoff() *backoff { return &backoff{first: 50 * time.Millisecond, limit: 5 * time.Second} }

// reset starts again with the first delay; called after a success.
func (b *backoff) reset() { b.next = 0 }

// wait waits for the delay and doubles it. It ends early with the error of ctx.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, b.first), b.limit)
	timer := time.NewTimer(jitter(b.next))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jitter spreads a delay over half to one and a half of itself, so that many programs do not come back at once.
func jitter(delay time.Duration) time.Duration {
	return delay/2 + rand.N(delay) //nolint:gosec // jitter is no secret
}
