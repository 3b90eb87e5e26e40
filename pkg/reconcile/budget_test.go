package reconcile_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/reconcile"
)

func TestTheBudgetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var peers atomic.Int64
		peers.Store(1)
		b, err := reconcile.NewBudget(20, func() int { return int(peers.Load()) })
		if err != nil {
			t.Fatal(err)
		}
		seconds := func(requests int) float64 {
			began := time.Now()
			for range requests {
				if err := b.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began).Seconds()
		}
		if got := seconds(200); got < 9.8 || got > 10.1 {
			t.Errorf("200 requests of one signer took %.2f s, want 10", got)
		}
		peers.Store(4)
		time.Sleep(5 * time.Second)
		if got := seconds(200); got < 39 || got > 40.2 {
			t.Errorf("200 requests of one of four took %.2f s, want 40", got)
		}
		peers.Store(0) // nobody knows
		time.Sleep(5 * time.Second)
		if got := seconds(20); got > 1.3 {
			t.Errorf("20 requests took %.2f s, want 1: there is this signer at least", got)
		}
		if got := b.Requests(); got != 420 {
			t.Errorf("%d requests were counted, want 420", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait with a short deadline: %v, want it exceeded", err)
		}
	})
}

func TestBudgets(t *testing.T) {
	for _, total := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := reconcile.NewBudget(total, nil); err == nil {
			t.Errorf("NewBudget(%v): want an error", total)
		}
	}
	unlimited, err := reconcile.NewBudget(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		for range 10_000 {
			if err := unlimited.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("no limit: 10,000 requests waited for %s", took)
		}
	})
}
