package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// DefaultRate is how many requests all reconcilers together send to one Harbor in a second.
const DefaultRate = 20

// peersAskedAfter is how long an answer about the number of live signers is used.
const peersAskedAfter = 5 * time.Second

// Budget is the share of one worker in the requests that sweeps may send to Harbor and its registry. Waiting for it comes
// before each request; it also counts them. It is safe for concurrent use.
type Budget struct {
	total float64
	peers func() int
	count atomic.Uint64

	limiter *rate.Limiter
	mu      sync.Mutex
	asked   time.Time // when peers was asked; guarded by mu
}

// NewBudget makes a Budget of total requests in a second, which is divided by the number of live signers; 0 stands for no
// limit. peers is nil for a single signer.
func NewBudget(total float64, peers func() int) (*Budget, error) {
	switch {
	case total < 0 || math.IsNaN(total) || math.IsInf(total, 0):
		return nil, errors.New("budget: want 0 for no limit, or a number of requests in a second")
	case total == 0:
		return &Budget{limiter: rate.NewLimiter(rate.Inf, 1)}, nil
	}
	if peers == nil {
		peers = func() int { return 1 }
	}
	b := &Budget{total: total, peers: peers, limiter: rate.NewLimiter(rate.Limit(total), 1)}
	return b, nil
}

// Wait returns when one more request may be sent, or ctx ends.
func (b *Budget) Wait(ctx context.Context) error {
	b.share()
	if err := b.limiter.Wait(ctx); err != nil {
		// The limiter gives up early, in words of its own, where the deadline would pass meanwhile.
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		return fmt.Errorf("waiting for the budget of requests: %w", err)
	}
	b.count.Add(1)
	if m, found := ctx.Value(meterKey{}).(*atomic.Int64); found {
		m.Add(1)
	}
	return nil
}

// Requests is how often Wait has let a request pass.
func (b *Budget) Requests() uint64 { return b.count.Load() }

// share divides the budget anew now and then: signers come and go.
func (b *Budget) share() {
	if b.total == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); b.asked.IsZero() || now.Sub(b.asked) >= peersAskedAfter {
		b.asked = now
		b.limiter.SetLimit(rate.Limit(b.total / float64(max(1, b.peers()))))
	}
}

// meterKey is the key under which a context carries the counter of one sweep's requests.
type meterKey struct{}

func metered(ctx context.Context, meter *atomic.Int64) context.Context {
	return context.WithValue(ctx, meterKey{}, meter)
}
