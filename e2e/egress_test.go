//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/harness"
)

// The recording proxy and the programs' records would tell of a destination that nobody configured. The end of the suite
// relies on it.
func TestForeignDestinationIsSeen(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	p := w.pushImage(t, "app", "v1")
	w.awaitAll(t)

	t.Run("by the proxy", func(t *testing.T) {
		proxy, err := harness.StartProxy(ctx)
		if err != nil {
			t.Fatal(err)
		}
		host, _, _ := strings.Cut(env.harbor.Host, ":")
		tool, err := harness.NewTool(harness.EnvCosignV2, filepath.Join(t.TempDir(), "cosign"), env.harbor, w.site.Developer,
			append(proxy.Env(), "NO_PROXY="+host))
		if err != nil {
			t.Fatal(err)
		}
		// Without a trusted root, cosign asks the public sigstore for one.
		if out, err := tool.Run(ctx, "verify", "--key", w.Keys.Public, name(p)); err == nil {
			t.Errorf("cosign verifies without a log and without being told to ignore that: %s", out)
		}
		if asked := proxy.Asked(); !slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "sigstore.dev") }) {
			t.Errorf("the proxy saw %q, want the public sigstore", asked)
		}
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("in the records", func(t *testing.T) {
		for _, program := range []string{"receiver", "signer1"} {
			if _, err := os.Stat(filepath.Join(w.dir, program+".egress")); err != nil {
				t.Errorf("%s keeps no record: %v", program, err)
			}
		}
		foreign, err := harness.Foreign(filepath.Join(w.dir, "signer1.egress"), []string{"127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		if len(foreign) < 2 {
			t.Errorf("if nothing were configured, %q would be foreign, want Harbor and the queue", foreign)
		}
	})
}
