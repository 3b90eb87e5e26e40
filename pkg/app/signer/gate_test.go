package signer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// Nothing is pulled before the policies are read, nor while Harbor does not answer.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaker := func(name string) *dependency.Breaker {
			b, err := dependency.NewBreaker(dependency.BreakerConfig{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		policies, registry, api := book.New(policy.Terms{}), breaker("registry"), breaker("harbor_api")
		passes := func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := signer.Gate(ctx, policies, registry, api)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			return err == nil
		}
		if passes() {
			t.Error("it is open before the policies are read")
		}
		policies.Loaded()
		if !passes() {
			t.Error("it is closed although nothing is away")
		}
		away := fault.New(fault.Transient, fault.Unreachable, errors.New("nobody is there"))
		for range 5 {
			_ = api.Do(t.Context(), func(context.Context) error { return away })
		}
		if passes() {
			t.Error("it is open while Harbor does not answer")
		}
		time.Sleep(10 * time.Second)
		if !passes() {
			t.Error("nobody may try whether Harbor is back")
		}
	})
}
