package checker_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What the checker shares with the programs it cannot judge: not even a constant.
func TestCheckerSharesNoCode(t *testing.T) {
	const module = "github.com/harborseal/harborseal/"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("listing the dependencies: %v\n%s", err, out)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 10 {
		t.Fatalf("go list gave %d packages, which cannot be all: %q", len(packages), packages)
	}
	for _, pkg := range packages {
		if strings.HasPrefix(pkg, module) && pkg != module+"e2e/checker" {
			t.Errorf("the checker imports %s, want nothing of this module", pkg)
		}
		// What is not of the standard library begins with a host.
		first, _, _ := strings.Cut(pkg, "/")
		if strings.Contains(first, ".") && !strings.HasPrefix(pkg, module) {
			t.Errorf("the checker imports %s, want the standard library alone", pkg)
		}
	}
}
