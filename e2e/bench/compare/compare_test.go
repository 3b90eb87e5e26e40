package compare_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/e2e/bench/compare"
	"github.com/harborseal/harborseal/e2e/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// progress shows how far a run is.
type progress struct{ t *testing.T }

func (p progress) Write(line []byte) (int, error) {
	p.t.Logf("%s", line)
	return len(line), nil
}

// TestEverybodySigns runs all contenders for a few signatures, which the run itself verifies. Times are not judged: this
// may share the machine with anything.
func TestEverybodySigns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs programs")
	}
	cosign := findCosign(t)
	table, err := compare.Run(t.Context(), compare.Options{Dir: t.TempDir(), Plan: compare.Quick(), Cosign: cosign, Progress: progress{t}})
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range table.Checks {
		if !check.OK {
			t.Errorf("%s: %s, want %s", check.Name, check.Value, check.Target)
		}
	}
	signed := make(map[string]int)
	for _, r := range table.Rows {
		for _, level := range r.Levels {
			if level.Rate <= 0 || level.CPU <= 0 || level.PeakRSS <= 0 {
				t.Errorf("%s, %s with %d in flight: %+v, want more than 0", r.Signer, r.Format, level.InFlight, level)
			}
			signed[fmt.Sprintf("%s, %s, %d", r.Signer, r.Format, level.InFlight)] = level.Signatures
		}
		if r.Requests == nil || len(r.Requests.Warm) == 0 || len(r.Requests.Cold) == 0 {
			t.Errorf("%s, %s: no requests were counted", r.Signer, r.Format)
		}
	}
	want := map[string]int{
		"engine, legacy, 1": 20, "bare loop, legacy, 1": 20, "cosign's library, legacy, 1": 20,
		"engine, bundle, 1": 20, "engine, both, 1": 20,
		"engine, legacy, 32": 100, "bare loop, legacy, 32": 100, "cosign's library, legacy, 32": 100,
		"engine, bundle, 32": 100, "engine, both, 32": 100, "engine and its later looks, legacy, 32": 100,
	}
	if cosign {
		want["cosign program, legacy, 1"] = 1
	}
	for what, n := range want {
		if signed[what] != n {
			t.Errorf("%s in flight: %d signatures, want %d", what, signed[what], n)
		}
	}
	if len(signed) != len(want) {
		t.Errorf("measured %v, want %v", signed, want)
	}
}

// findCosign says whether there is a cosign program. Where make did not name it, it may be built all the same.
func findCosign(t *testing.T) bool {
	t.Helper()
	path := os.Getenv(harness.EnvCosignV2)
	if path == "" {
		var err error
		if path, err = filepath.Abs("../../../.tools/bin/cosign-v2.6.5"); err != nil {
			t.Fatal(err)
		}
		t.Setenv(harness.EnvCosignV2, path)
	}
	if _, err := os.Stat(path); err != nil { //nolint:gosec // the variable is there to name any program
		t.Log("cosign v2 is not installed: it does not take part; run make tools")
		return false
	}
	return true
}
