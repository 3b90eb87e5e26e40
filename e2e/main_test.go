//go:build e2e

// Package e2e_test runs the whole system: the real programs as processes, against the Harbor emulator, or against the
// real Harbor that HARBOR_URL, HARBOR_USERNAME and HARBOR_PASSWORD name and that reaches this machine by RECEIVER_ADVERTISE
// (an origin with a port; the tests use that port and the hundred above it).
//
// Every test makes a project, and where it must a system, of its own under random names. What is signed is judged by
// e2e/checker and the cosign programs, never by the code under test.
package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// suite is what all tests share.
type suite struct {
	dir    string
	harbor *harness.Harbor
	proxy  *harness.Proxy
	// programs are built as they are installed, breakable ones with failpoints.
	programs  harness.Programs
	breakable func() (harness.Programs, error)
	// natsServer is the server that this module depends on.
	natsServer func() (string, error)
	// older are the programs of an earlier commit.
	older func() (harness.Programs, error)
	// patience bounds each wait. It is met only when something is broken.
	patience time.Duration
	ports    advertise

	mu      sync.Mutex
	faulty  []string // tests that inject faults into the emulator; guarded by mu
	foreign []string // destinations that are not configured; guarded by mu
	// undo is what an interrupted run leaves to do, in order; the ones that are done are nil. Guarded by mu.
	undo []func()
	// shared end with the suite, the last first. Guarded by mu.
	shared []func() error
}

// share keeps something for all tests until the suite ends, however it ends.
func (s *suite) share(end func() error) {
	s.later(func() { _ = end() })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared = append(s.shared, end)
}

// endShared ends what tests have started for each other.
func (s *suite) endShared() error {
	var errs []error
	for _, end := range slices.Backward(s.shared) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// later keeps something to be done if the run is interrupted; the caller calls the result once it has done it itself.
func (s *suite) later(undo func()) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := len(s.undo)
	s.undo = append(s.undo, undo)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.undo[at] = nil
	}
}

// cleanUpOnSignal leaves no process, project or robot behind when the run is interrupted, or is about to meet go test's
// limit, which calls no cleanup.
func (s *suite) cleanUpOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	limit := make(<-chan time.Time)
	if d, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String()); err == nil && d > 2*time.Minute {
		limit = time.After(d - time.Minute)
	}
	go func() {
		select {
		case <-signals:
		case <-limit:
		}
		fmt.Fprintln(os.Stderr, "interrupted: cleaning up")
		s.mu.Lock() // Never unlocked: nobody begins anything more.
		for _, undo := range slices.Backward(s.undo) {
			if undo != nil {
				undo()
			}
		}
		os.Exit(1)
	}()
}

var env *suite

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runSuite(m))
}

func runSuite(m *testing.M) int {
	ctx := context.Background()
	var stop func() error
	var err error
	if env, stop, err = newSuite(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "preparing the end-to-end tests:", err)
		return 1
	}
	env.cleanUpOnSignal()
	code := m.Run()
	if err := errors.Join(env.judgeEgress(), env.judgeSkips(), env.endShared(), stop()); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	if code == 0 {
		if err := os.RemoveAll(env.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	} else {
		fmt.Fprintln(os.Stderr, "logs and configurations are in", env.dir)
	}
	skipped := 0
	if !env.harbor.Emulated {
		skipped = len(env.faulty)
	}
	fmt.Fprintf(os.Stderr, "e2e: %d tests skipped; %d inject faults, which no real Harbor can\n", skipped, len(env.faulty))
	return code
}

func newSuite(ctx context.Context) (*suite, func() error, error) {
	dir, err := os.MkdirTemp("", "harborseal-e2e-")
	if err != nil {
		return nil, nil, err
	}
	s := &suite{dir: dir, patience: 30 * time.Second}
	if s.programs, err = buildInto(ctx, filepath.Join(dir, "bin")); err != nil {
		return nil, nil, err
	}
	s.breakable = sync.OnceValues(func() (harness.Programs, error) {
		return buildInto(ctx, filepath.Join(dir, "bin-failpoints"), "failpoints")
	})
	s.natsServer = sync.OnceValues(func() (string, error) { return harness.BuildNATS(ctx, filepath.Join(dir, "bin")) })
	s.older = sync.OnceValues(func() (harness.Programs, error) { return buildOlder(ctx, filepath.Join(dir, "older")) })
	if s.proxy, err = harness.StartProxy(ctx); err != nil {
		return nil, nil, err
	}
	if s.harbor, err = harness.RealHarbor(); err != nil {
		return nil, nil, err
	}
	if s.harbor != nil {
		// Its third attempt at a webhook may come three minutes after the push.
		s.patience = 4 * time.Minute
		s.ports.origin = os.Getenv(harness.EnvAdvertise)
		return s, s.proxy.Close, nil
	}
	var emulator *harness.Process
	// Webhooks at their recorded delays; the gaps before further attempts are 0.3 to 1.5 s instead of 16 to 74 s.
	speed := harness.EmulatorOptions{RetryScale: 0.02, DeliveryDelayScale: 1}
	if s.harbor, emulator, err = harness.StartEmulator(ctx, s.programs, dir, speed); err != nil {
		return nil, nil, err
	}
	s.later(func() { _ = emulator.Kill() })
	return s, func() error { return errors.Join(emulator.Stop(), s.proxy.Close()) }, nil
}

func buildInto(ctx context.Context, dir string, tags ...string) (harness.Programs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return harness.Programs{}, err
	}
	return harness.Build(ctx, dir, tags...)
}

// advertise gives each system a port of its own, where Harbor cannot reach the loopback interface.
type advertise struct {
	origin string
	used   atomic.Int32
}

// next gives the next system's origin; empty for the loopback interface.
func (a *advertise) next() (string, error) {
	if a.origin == "" {
		return "", nil
	}
	return harness.NextPort(a.origin, int(a.used.Add(1))-1)
}

// needsFaults skips a test on a real Harbor. The list of those that call it is testdata/skips.txt.
func needsFaults(t *testing.T) {
	t.Helper()
	env.mu.Lock()
	if !slices.Contains(env.faulty, t.Name()) {
		env.faulty = append(env.faulty, t.Name())
	}
	env.mu.Unlock()
	if !env.harbor.Emulated {
		t.Skip("injects faults into the emulator")
	}
}

// judgeSkips compares the tests that would skip with the golden list, when all tests ran.
func (s *suite) judgeSkips() error {
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		return nil
	}
	golden, err := os.ReadFile("testdata/skips.txt")
	if err != nil {
		return fmt.Errorf("reading the list of skips: %w", err)
	}
	want := strings.Fields(string(golden))
	got := slices.Sorted(slices.Values(s.faulty))
	if !slices.Equal(got, want) {
		return fmt.Errorf("tests that skip on a real Harbor are %q, testdata/skips.txt has %q", got, want)
	}
	return nil
}

// judgeEgress looks for destinations that nobody configured.
func (s *suite) judgeEgress() error {
	var errs []error
	if asked := s.proxy.Asked(); len(asked) > 0 {
		errs = append(errs, fmt.Errorf("programs wanted to reach %q, which nobody configured", asked))
	}
	if len(s.foreign) > 0 {
		errs = append(errs, fmt.Errorf("programs dialled %q, which nobody configured", s.foreign))
	}
	return errors.Join(errs...)
}
