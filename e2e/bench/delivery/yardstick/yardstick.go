// Package yardstick runs what the receiver is compared with: the program publish, a bare loop of synced publishes.
package yardstick

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/quantile"
)

// Loop is what the bare loop has taken. A webhook is two publishes, one after the other; Latency is that of both together.
type Loop struct {
	Webhooks int             `json:"webhooks"`
	InFlight int             `json:"in_flight"`
	Took     time.Duration   `json:"took_ns"`
	CPU      time.Duration   `json:"cpu_ns"`
	Latency  quantile.Spread `json:"latency"`
}

// Rate is webhooks a second.
func (l Loop) Rate() float64 {
	if l.Took <= 0 {
		return 0
	}
	return float64(l.Webhooks) / l.Took.Seconds()
}

// Join takes two runs together. Latency is that of the slower one.
func (l Loop) Join(other Loop) Loop {
	sum := Loop{Webhooks: l.Webhooks + other.Webhooks, InFlight: l.InFlight, Took: l.Took + other.Took, CPU: l.CPU + other.CPU, Latency: l.Latency}
	if other.Latency.P50 > l.Latency.P50 {
		sum.Latency = other.Latency
	}
	return sum
}

// Address is where the program serves.
type Address struct {
	URL string `json:"url"`
}

// Yardstick is the built program.
type Yardstick struct{ dir, program string }

// Build compiles the program into a folder, which also gets its streams.
func Build(ctx context.Context, dir string) (*Yardstick, error) {
	y := &Yardstick{dir: dir, program: filepath.Join(dir, "publish")}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", y.program, "github.com/harborseal/harborseal/e2e/bench/programs/publish") //nolint:gosec // our own program
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the program publish: %w\n%s", err, out)
	}
	return y, nil
}

// command makes a run with a fresh store, which done removes.
func (y *Yardstick) command(ctx context.Context, args ...string) (cmd *exec.Cmd, done func() error, err error) {
	store, err := os.MkdirTemp(y.dir, "publish-")
	if err != nil {
		return nil, nil, fmt.Errorf("making a folder: %w", err)
	}
	cmd = exec.CommandContext(ctx, y.program, append([]string{"-store", store}, args...)...) //nolint:gosec // our own program
	cmd.Stderr = os.Stderr
	return cmd, func() error { return os.RemoveAll(store) }, nil
}

// Publish publishes so many webhooks in a loop.
func (y *Yardstick) Publish(ctx context.Context, webhooks, inFlight int) (l Loop, err error) {
	cmd, done, err := y.command(ctx, "-webhooks", strconv.Itoa(webhooks), "-in-flight", strconv.Itoa(inFlight))
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, done()) }()
	out, err := cmd.Output()
	if err != nil {
		return l, fmt.Errorf("running the program publish: %w", err)
	}
	if err := json.Unmarshal(out, &l); err != nil {
		return l, fmt.Errorf("reading what publish has measured: %w", err)
	}
	return l, nil
}

// Serve lets it publish for each request, of so many at most, while use runs, which is given its origin.
func (y *Yardstick) Serve(ctx context.Context, webhooks int, use func(ctx context.Context, origin string) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, done, err := y.command(ctx, "-webhooks", strconv.Itoa(webhooks), "-serve")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("running the program publish: %w", err)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running the program publish: %w", err)
	}
	var at Address
	if err = json.NewDecoder(bufio.NewReader(stdout)).Decode(&at); err == nil {
		err = use(ctx, at.URL)
	}
	cancel()
	var exit *exec.ExitError
	if waitErr := cmd.Wait(); waitErr != nil && !errors.Is(waitErr, context.Canceled) && !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	return err
}
