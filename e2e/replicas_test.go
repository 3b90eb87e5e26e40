//go:build e2e

package e2e_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// Two receivers and three signers on one cluster, by nothing but configuration. One of each is killed under load, and comes back:
// everything is signed because of its webhook, once, and both receivers say the same.
func TestReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 0.1, harness.NATSOptions{Nodes: 3}, func(o *harness.Options) { o.Signers = 3 })
	f.start(t)
	load := f.pushing(t, "app", 250*time.Millisecond)
	load.further(t, 10)
	receiver, signer := f.Receivers[0], f.Signers[0]
	for _, p := range []*harness.Program{receiver, signer} {
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	load.further(t, 20)
	for _, p := range []*harness.Program{receiver, signer} {
		if err := f.StartProgram(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	load.further(t, 10)
	all := load.end()
	f.awaitSigned(t, all, 2*time.Minute)
	f.judgeFleet(t)
	t.Log(f.tidings(t, all))
	for i, made := range f.each(t, "harborseal_signing_outcomes_total", `how="made"`) {
		if made == 0 {
			t.Errorf("%s has signed nothing, want the work shared", f.Signers[i].Name)
		}
	}
}
