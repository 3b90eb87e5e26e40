// Package delivery measures the way of a push through receiver and queue: the real programs, each a process of its own, with
// the Harbor emulator.
//
//   - Receiver: how many webhooks a second the receiver takes, and how fast, to what a bare loop of synced publishes does.
//   - Surge: 600 and 60,000 webhooks of one project at once, over ten connections and without bound, until all is signed.
//   - Recovery: 10,000 requests wait for the signer, and somebody pushes meanwhile.
//   - Queue: what one request costs by the queue alone, with a handler that does nothing.
//
// Whatever a rate is compared with is measured in the same run, half of it before and half of it after. Programs, emulator and
// the sender of webhooks share the processors and the disk of one machine: a ratio below 1 is, before anything else, what the
// others use of them.
package delivery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Options are what all parts need.
type Options struct {
	// Dir is a folder for the programs and all that they write.
	Dir      string
	Progress io.Writer
	// Quick measures little, and judges no times.
	Quick bool
	// Surge is the larger surge, in webhooks; 0 is the one that the targets are about.
	Surge int
}

func (o Options) say(format string, args ...any) {
	_, _ = fmt.Fprintf(o.Progress, format+"\n", args...) // nobody can be told
}

// dir is the folder of one part.
func (o Options) dir(part string) string { return filepath.Join(o.Dir, "stage-"+part) }

// build compiles the programs and the yardstick.
func (o Options) build(ctx context.Context) (harness.Programs, *yardstick.Yardstick, error) {
	o.say("building the programs")
	programs, err := harness.Build(ctx, o.Dir)
	if err != nil {
		return harness.Programs{}, nil, err
	}
	y, err := yardstick.Build(ctx, o.Dir)
	return programs, y, err
}

// invented is a digest that is in no registry, for benchmarks in which nothing is signed.
func invented(project string, i int) harbortest.SyntheticRef {
	return harbortest.SyntheticRef{
		Repository: project + "/app", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(project+strconv.Itoa(i)))),
	}
}

// with runs f on a stage, and adds what the programs said last to its error.
func with(ctx context.Context, o stage.Options, f func(*stage.Stage) error) (err error) {
	s, err := stage.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := f(s); err != nil {
		return fmt.Errorf("%w\n%s", err, s.System.Tails())
	}
	return nil
}

// upTo numbers webhooks from one to another.
func upTo(from, to int) []int {
	all := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
