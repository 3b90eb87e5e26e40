//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Whatever the registry does wrong for a while, the images are signed once in the end.
func TestRegistryFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults harness.Faults
	}{
		{"429 with Retry-After", harness.Faults{Status: 429, RetryAfter: "1", Count: 5}},
		{"503", harness.Faults{Status: 503, Count: 5}},
		{"500 to every PUT", harness.Faults{Method: "PUT", Status: 500, Count: 3}},
		{"latency", harness.Faults{Latency: "300ms"}},
		{"dropped connections", harness.Faults{DropConnections: 0.3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needsFaults(t)
			w := newWorld(t)
			index, err := harness.NewIndex("linux/amd64")
			w.lose(t, func() { w.push(t, "app", "v1", index, err) })
			faults := tt.faults
			faults.PathPrefix = "/v2/" + w.project
			if err := env.harbor.SetFaults(t.Context(), faults); err != nil {
				t.Fatal(err)
			}
			defer heal(t)
			for _, p := range w.pushed {
				w.report(t, p)
			}
			if faults.DropConnections == 0 && faults.Latency == "" {
				w.awaitFaults(t, faults.Count)
			}
			if faults.DropConnections > 0 {
				// Delays double: with a third of the connections broken for ever, the end would be a matter of luck.
				w.awaitFailure(t)
				heal(t)
			}
			for _, p := range w.pushed {
				w.awaitState(t, p, "signed")
			}
			heal(t)
			w.awaitAll(t)
		})
	}
}

// A Harbor whose token service is away is a fault like others.
func TestTokenServiceAway(t *testing.T) {
	needsFaults(t)
	w := newWorld(t)
	img, err := harness.NewImage(false)
	w.lose(t, func() { w.push(t, "app", "v1", img, err) })
	if err := env.harbor.SetFaults(t.Context(), harness.Faults{PathPrefix: "/service/token", Status: 502}); err != nil {
		t.Fatal(err)
	}
	defer heal(t)
	w.report(t, w.pushed[0])
	w.awaitFailure(t)
	heal(t)
	w.awaitAll(t)
}

// awaitFaults waits until the emulator has used up its faults.
func (w *world) awaitFaults(t *testing.T, count int) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		left, err := env.harbor.Faults(ctx)
		if err == nil && left.Status != 0 {
			err = fmt.Errorf("%d of %d faults are left", left.Count, count)
		}
		return err
	})
}

// awaitFailure waits until an attempt has failed.
func (w *world) awaitFailure(t *testing.T) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		m, err := w.Metrics(ctx, w.Signers[0])
		if err == nil && m.Sum("harborseal_signing_failures_total") < 1 {
			err = errors.New("no attempt has failed")
		}
		return err
	})
}
