// Package logs measures what transparency logs and timestamps cost: the real programs, each a process of its own, with the Harbor
// emulator, real logs and a real timestamp authority.
//
//   - rates: signatures a second where an entry is required, with Rekor v1 and v2, with as many waiting for the log as are
//     configured, to what the log itself does: the service's own client in a bare loop with as many callers.
//   - stamps: what a timestamp costs.
//   - recovery: images are signed while the log is away, then it is back and the entries are made.
//   - names: how long it takes until the metrics say that a name is gone.
//
// Whatever a rate is compared with is measured in the same run, half of it before and half of it after: all share the processors
// of this machine, and a ratio below 1 is, before anything else, the processor time that the logs do not get.
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/policy"
)

// checkpoint is how often Rekor v2 publishes one. Its own default is 10 s.
const checkpoint = 2 * time.Second

// Options are what is measured. Dir and Progress are required.
type Options struct {
	// Dir is a folder for the programs and everything that they write.
	Dir      string
	Progress io.Writer
	// Rates are measured in their order, those of one type of log one after the other.
	Rates []Plan
	// Stamped is how many images are signed for each setting of timestamps.
	Stamped int
	// Debts is how many images are signed while the log, of the type Recovery, is away. Compared are as many entries in the bare
	// loop at most.
	Debts, Compared int
	Recovery        policy.LogType
	// Names is how many names disappear at once.
	Names int
}

// Plan is one rate.
type Plan struct {
	Log policy.LogType
	// Waiting is how many wait for the log at once; Signatures is how many are made.
	Waiting, Signatures int
}

// Full is what the targets are about; debts is how many entries are owed when the log is back.
func Full(dir string, debts int, progress io.Writer) Options {
	return Options{
		Dir: dir, Progress: progress,
		Rates: []Plan{
			{policy.RekorV1, 64, 1024},
			{policy.RekorV1, 512, 1536},
			{policy.RekorV2, 64, 384},
			{policy.RekorV2, 512, 2048},
		},
		Stamped: 1000, Debts: debts, Compared: 2048, Recovery: policy.RekorV1, Names: 4,
	}
}

// Quick shows that everything works.
func Quick(dir string, progress io.Writer) Options {
	return Options{
		Dir: dir, Progress: progress, Rates: []Plan{{policy.RekorV1, 16, 64}, {policy.RekorV2, 64, 128}},
		Stamped: 64, Debts: 128, Compared: 64, Recovery: policy.RekorV1, Names: 1,
	}
}

// Run measures and judges. Nothing is left running.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	b := &bench{Options: o}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(ctx); err != nil {
		return nil, fmt.Errorf("setting up: %w", err)
	}
	r = &Result{Checkpoint: checkpoint}
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		if err := b.withLog(ctx, kind, r); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	if err := b.stamps(ctx, r); err != nil {
		return nil, fmt.Errorf("timestamps: %w", err)
	}
	r.Judge()
	return r, nil
}

// bench is what all worlds share.
type bench struct {
	Options
	programs harness.Programs
	emulator *harness.Process
	harbor   *harness.Harbor
	worlds   int
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.Progress, format+"\n", args...) // Nobody can be told.
}

func (b *bench) start(ctx context.Context) error {
	b.say("building the programs")
	var err error
	if b.programs, err = harness.Build(ctx, b.Dir); err != nil {
		return err
	}
	b.harbor, b.emulator, err = harness.StartEmulator(ctx, b.programs, b.Dir, harness.EmulatorOptions{RetryScale: 1, DeliveryDelayScale: 1})
	return err
}

func (b *bench) stop() error {
	if b.emulator == nil {
		return nil
	}
	return b.emulator.Stop()
}

// withLog measures everything that is measured with one type of log. Only one is there at a time: an idle one works, too.
func (b *bench) withLog(ctx context.Context, kind policy.LogType, r *Result) (err error) {
	var plans []Plan
	for _, p := range b.Rates {
		if p.Log == kind {
			plans = append(plans, p)
		}
	}
	recovery := b.Recovery == kind && b.Debts > 0
	if len(plans) == 0 && !recovery {
		return nil
	}
	log, err := b.startLog(ctx, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for _, p := range plans {
		rate, err := b.rate(ctx, log, p)
		if err != nil {
			return err
		}
		r.Rates = append(r.Rates, rate)
	}
	if !recovery {
		return nil
	}
	if r.Recovery, err = b.recovery(ctx, log); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if r.Names, err = b.names(ctx, log); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	return nil
}

func (b *bench) startLog(ctx context.Context, kind policy.LogType) (*harness.Rekor, error) {
	b.say("starting %s", kind)
	dir := filepath.Join(b.Dir, string(kind))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	if kind == policy.RekorV1 {
		return harness.StartRekorV1(ctx, dir)
	}
	return harness.StartRekorV2(ctx, dir, harness.RekorOptions{Checkpoint: checkpoint})
}
