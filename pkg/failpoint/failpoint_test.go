package failpoint_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/failpoint"
)

func TestNamesAreUnique(t *testing.T) {
	names := failpoint.Names()
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	if len(sorted) != len(names) {
		t.Errorf("got %d names, %d of them different", len(names), len(sorted))
	}
}

// build makes the victim, with failpoints or without.
func build(t *testing.T, tags string) string {
	t.Helper()
	// The test's result is cached with the files that it looked at; the compiler's reads do not count.
	sources, err := filepath.Glob("*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("got the sources %v (%v)", sources, err)
	}
	for _, source := range sources {
		if _, err := os.Stat(source); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "victim")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", program, "./testdata/victim").CombinedOutput() //nolint:gosec // arguments of this test
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// run gives what the victim wrote, and how it ended.
func run(t *testing.T, program string, environ []string, args ...string) (lines []string, stderr string, signal syscall.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program that this test built
	cmd.Env = append(os.Environ(), environ...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if ctx.Err() != nil {
		t.Fatalf("%v: has not ended", environ)
	}
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			signal = status.Signal()
		}
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out)), errs.String(), signal
}

func TestWithoutTheTagNothingHappens(t *testing.T) {
	if failpoint.Enabled {
		t.Skip("this is a build with failpoints")
	}
	program := build(t, "")
	lines, _, signal := run(t, program, []string{failpoint.EnvPoint + "=signing/received=kill"}, "1")
	if want := append(failpoint.Names(), "end"); !slices.Equal(lines, want) || signal != 0 {
		t.Errorf("got %q and signal %v, want %q and none", lines, signal, want)
	}
	if n := testing.AllocsPerRun(100, func() { failpoint.Hit(failpoint.SigningReceived) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestFailpoints(t *testing.T) {
	program := build(t, "failpoints")
	names := failpoint.Names()

	t.Run("kill", func(t *testing.T) {
		for i, name := range names {
			lines, _, signal := run(t, program, []string{failpoint.EnvPoint + "=" + name + "=kill"}, "1")
			if want := names[:i+1]; !slices.Equal(lines, want) || signal != syscall.SIGKILL {
				t.Errorf("%s: got %q and signal %v, want %q and SIGKILL", name, lines, signal, want)
			}
		}
	})
	t.Run("third hit", func(t *testing.T) {
		lines, _, signal := run(t, program, []string{failpoint.EnvPoint + "=signing/received@3=kill"}, "4")
		if want := 2*len(names) + 1; len(lines) != want || signal != syscall.SIGKILL {
			t.Errorf("got %d hits and signal %v, want %d and SIGKILL", len(lines), signal, want)
		}
	})
	t.Run("the first of several", func(t *testing.T) {
		value := "receiver/after-record=kill,signing/after-sign=kill"
		lines, _, signal := run(t, program, []string{failpoint.EnvPoint + "=" + value}, "1")
		if got := lines[len(lines)-1]; got != failpoint.SigningAfterSign || signal != syscall.SIGKILL {
			t.Errorf("got an end at %s and signal %v, want %s and SIGKILL", got, signal, failpoint.SigningAfterSign)
		}
	})
	t.Run("nothing asked for", func(t *testing.T) {
		if lines, _, signal := run(t, program, nil, "1"); lines[len(lines)-1] != "end" || signal != 0 {
			t.Errorf("got %q and signal %v, want the end", lines, signal)
		}
	})
	t.Run("once", func(t *testing.T) {
		once := filepath.Join(t.TempDir(), "once")
		environ := []string{failpoint.EnvPoint + "=signing/after-attach=kill", failpoint.EnvOnce + "=" + once}
		if _, _, signal := run(t, program, environ, "1"); signal != syscall.SIGKILL {
			t.Errorf("first run: got signal %v, want SIGKILL", signal)
		}
		if _, err := os.Stat(once); err != nil {
			t.Errorf("after the first run: %v", err)
		}
		if lines, _, signal := run(t, program, environ, "1"); lines[len(lines)-1] != "end" || signal != 0 {
			t.Errorf("second run: got %q and signal %v, want the end", lines, signal)
		}
	})
	t.Run("block", func(t *testing.T) { testBlock(t, program) })
	t.Run("mistakes", func(t *testing.T) {
		for value, want := range map[string]string{
			"signing/nothing=kill":    "no such failpoint",
			"signing/received":        "want name=kill or name=block",
			"signing/received=die":    "want name=kill or name=block",
			"signing/received@0=kill": "want name@N",
			"signing/received@x=kill": "want name@N",
		} {
			lines, stderr, _ := run(t, program, []string{failpoint.EnvPoint + "=" + value}, "1")
			if !strings.Contains(stderr, want) || len(lines) != 1 {
				t.Errorf("%s: got %q and %.200q, want a panic with %q at the first hit", value, lines, stderr, want)
			}
		}
		if _, stderr, _ := run(t, program, nil, "0", "undeclared"); !strings.Contains(stderr, "undeclared is not declared") {
			t.Errorf("a hit that is not declared: got %.200q, want a panic", stderr)
		}
		unwritable := failpoint.EnvOnce + "=" + filepath.Join(t.TempDir(), "no", "folder")
		if _, stderr, _ := run(t, program, []string{failpoint.EnvPoint + "=signing/received=kill", unwritable}, "1"); !strings.Contains(stderr, "no such file") {
			t.Errorf("a file that cannot be made: got %.200q, want a panic", stderr)
		}
	})
}

// TestClock moves the clock of a program that runs, and of one that cannot be moved.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, tags, want string }{
		{"with failpoints", "failpoints", "1m30s"},
		{"without", "", "0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "clock")
			v := startClock(t, build(t, tt.tags), file)
			if got := v(); got != "0s" {
				t.Errorf("without a file the clock is %s ahead, want 0s", got)
			}
			if err := os.WriteFile(file+".new", []byte("90s\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
			// The file is read again within a second; in the other build there is nothing to wait for.
			got := v()
			for deadline := time.Now().Add(10 * time.Second); got != tt.want && time.Now().Before(deadline); got = v() {
			}
			if got != tt.want {
				t.Errorf("with a file the clock is %s ahead, want %s", got, tt.want)
			}
		})
	}
}

// startClock gives a function that asks a victim how far its clock is ahead.
func startClock(t *testing.T, program, file string) func() string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "now")
	cmd.Env = append(os.Environ(), failpoint.EnvClock+"="+file)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	answers := bufio.NewScanner(stdout)
	return func() string {
		t.Helper()
		if _, err := stdin.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() {
			t.Fatalf("the victim gives no answer: %v", answers.Err())
		}
		return answers.Text()
	}
}

func testBlock(t *testing.T, program string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "1")
	cmd.Env = append(os.Environ(), failpoint.EnvPoint+"=signing/after-decide=block")
	// Held open, or the victim's only other goroutine ends.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	for line := range lines {
		if line == failpoint.SigningAfterDecide {
			break
		}
	}
	// Without the block the rest takes microseconds.
	quiet := time.NewTimer(300 * time.Millisecond)
	defer quiet.Stop()
	select {
	case line, alive := <-lines:
		t.Errorf("got %q (alive: %v), want silence", line, alive)
	case <-quiet.C:
	}
	if err := errors.Join(cmd.Process.Kill(), stdin.Close()); err != nil {
		t.Error(err)
	}
	for line := range lines {
		t.Errorf("got %q after the block, want nothing", line)
	}
	_ = cmd.Wait()
}
