package logs_test

import (
	"crypto/sha256"
	"errors"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/logs"
)

// TestLoad lets a program that this one starts use a processor, and then this one itself.
func TestLoad(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what processes use")
	}
	const most = 30 * time.Second
	busy := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	running, self := logs.Used(func() { <-time.After(time.Second) })
	if running <= self || running > most {
		t.Errorf("a program that was started uses %s, this one %s", running, self)
	}
	started, self := logs.Used(func() {
		if err := errors.Join(busy.Process.Kill(), busy.Wait()); err == nil {
			t.Error("a killed program ended well")
		}
	})
	if started < 0 || self < 0 {
		t.Errorf("what an ended program used is forgotten: %s", started)
	}
	started, self = logs.Used(func() {
		for begun := time.Now(); time.Since(begun) < time.Second; {
			_ = sha256.Sum256([]byte("something to do"))
		}
	})
	if self <= started || self > most {
		t.Errorf("this program used %s, those that it has started %s", self, started)
	}
}
