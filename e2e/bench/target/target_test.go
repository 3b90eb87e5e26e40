package target_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/e2e/bench/target"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	var checks target.Checks
	var out bytes.Buffer
	if err := checks.Print(&out); err != nil || out.Len() > 0 || checks.Missed() {
		t.Errorf("of no checks: got %q, %v, missed %t; want nothing", out.String(), err, checks.Missed())
	}
	checks.Add("height", "at most 5 m", true, "%.1f m", 4.5)
	if checks.Missed() {
		t.Error("a target is missed that is met")
	}
	checks.Add("width", "at least 3 m", false, "%d m", 2)
	if !checks.Missed() {
		t.Error("a missed target is not seen")
	}
	if err := checks.Print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := [][]string{{"check", "target", "value"}, {"height", "at most 5 m", "4.5 m", "ok"}, {"width", "at least 3 m", "2 m", "MISSED"}}
	if len(lines) != len(want) {
		t.Fatalf("got %q, want %d lines", lines, len(want))
	}
	for i, cells := range want {
		for _, cell := range cells {
			if !strings.Contains(lines[i], cell) {
				t.Errorf("line %q has no %q", lines[i], cell)
			}
		}
	}
}
