package checker_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What the checker shares with the programs it cannot judge: not even a constant. Of others it uses what verifiers do.
func TestCheckerSharesNoCode(t *testing.T) {
	const module = "github.com/harborseal/harborseal/"
	packages := list(t, "-deps")
	if len(packages) < 10 {
		t.Fatalf("go list gave %d packages, which cannot be all: %q", len(packages), packages)
	}
	for _, pkg := range packages {
		if strings.HasPrefix(pkg, module) && pkg != module+"e2e/checker" {
			t.Errorf("the checker imports %s, want nothing of this module", pkg)
		}
	}
	own := list(t, "-f", `{{join .Imports "\n"}}`)
	if len(own) < 10 {
		t.Fatalf("go list gave %d packages, which cannot be all: %q", len(own), own)
	}
	for _, pkg := range own {
		// What is not of the standard library begins with a host.
		first, _, _ := strings.Cut(pkg, "/")
		if strings.Contains(first, ".") && !strings.HasPrefix(pkg, "github.com/sigstore/sigstore") {
			t.Errorf("the checker imports %s, want the standard library and sigstore's for verifiers alone", pkg)
		}
	}
}

func list(t *testing.T, flags ...string) []string {
	t.Helper()
	args := append(append([]string{"list"}, flags...), ".")
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput() //nolint:gosec // the flags stand in this file
	if err != nil {
		t.Fatalf("listing packages: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}
