// Package scale measures the reconciler on a Harbor of a million digests: the real programs, each a process of its own, against
// the Harbor emulator with synthetic content.
//
// What it measures is the sweep of content that is known: the ledger's rows say of each signed digest by what it was signed,
// and the sweep compares them with what Harbor lists. Those rows are put into the receiver's database by the ledger's own
// rules, as of one event of the stream, instead of a million events being published and projected first: only the way into the
// database is shorter. The first sweep of all, which has no such rows and reads and verifies every signature, is not measured.
//
// Signing is paused meanwhile: what sweeps ask for stays in the queue, where it is counted and compared with what was made
// unsigned. All programs, the emulator and this one share the machine.
package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/control"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Options are what is measured. Dir and Progress are required.
type Options struct {
	// Dir is a folder for the programs and everything that they write: about a kilobyte for each digest.
	Dir      string
	Content  harbortest.SyntheticConfig
	Progress io.Writer
	// Pushes are those of each incremental minute, from the fewest to the most.
	Pushes []int
}

// prefix begins the names of all projects, and stands in the policy that enables them.
const prefix = "synthetic"

// Full is what the targets are about.
func Full(dir string, progress io.Writer) Options {
	return Options{
		Dir: dir, Progress: progress, Pushes: []int{100, 1000},
		Content: harbortest.SyntheticConfig{
			Projects: 500, Repositories: 20_000, Digests: 1_000_000, Indexes: 0.2, Children: 4, Unsigned: 0.001, Prefix: prefix, Seed: 1,
		},
	}
}

// Quick shows in some seconds that everything works.
func Quick(dir string, progress io.Writer) Options {
	return Options{
		Dir: dir, Progress: progress, Pushes: []int{100, 1000},
		Content: harbortest.SyntheticConfig{
			Projects: 20, Repositories: 400, Digests: 40_000, Indexes: 0.2, Children: 4, Unsigned: 0.001, Prefix: prefix, Seed: 1,
		},
	}
}

// Run measures and judges. Nothing is left running.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	b := &bench{Options: o}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.start(ctx); err != nil {
		return nil, fmt.Errorf("setting up: %w", err)
	}
	r = &Result{Content: Content{
		Projects: len(b.made.Projects), Repositories: b.made.Repositories, Digests: b.made.Digests, Indexes: b.made.Indexes,
		Unsigned: len(b.made.Unsigned), Fewest: b.made.Requests, Seeding: b.seeding,
	}}
	for _, measure := range []func(context.Context, *Result) error{b.sweeps, b.minutes} {
		if err := measure(ctx, r); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, b.system.Tails())
		}
	}
	r.Judge()
	return r, nil
}

// bench is a running system with two signers, of which none runs at first.
type bench struct {
	Options
	emulator *harness.Process
	harbor   *harness.Harbor
	control  control.Control
	site     *harness.Site
	system   *harness.System
	queue    *queueView
	made     harbortest.Synthetic
	seeding  time.Duration
	// pushed are those that came after the content was made. No signer knows them, as they are not signed.
	pushed []harbortest.SyntheticRef
	// proposed counts the recent sweeps that were asked for.
	proposed int64
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.Progress, format+"\n", args...) // Nobody can be told.
}

func (b *bench) start(ctx context.Context) error {
	b.say("building the programs, making %d digests in %d projects", b.Content.Digests, b.Content.Projects)
	programs, err := harness.Build(ctx, b.Dir)
	if err != nil {
		return err
	}
	speed := harness.EmulatorOptions{RetryScale: 1, DeliveryDelayScale: 1}
	if b.harbor, b.emulator, err = harness.StartEmulator(ctx, programs, b.Dir, speed); err != nil {
		return err
	}
	b.control = control.New(b.harbor.URL)
	if b.made, err = b.control.Synthesize(ctx, b.Content); err != nil {
		return err
	}
	// A log without any push is taken for one that is switched off.
	if err := b.touch(ctx, 1, 0); err != nil {
		return err
	}
	if b.site, err = harness.NewSite(ctx, b.harbor); err != nil {
		return err
	}
	if err := b.harbor.GrantFeed(ctx, b.site.Signer, harness.SignerRights()); err != nil {
		return err
	}
	if b.system, err = harness.NewSystem(ctx, harness.Options{
		Programs: programs, Dir: filepath.Join(b.Dir, "scale"), Site: b.site, Enabled: []string{prefix + "-*"}, Signers: 2,
		// What the emulator makes is of the legacy format.
		Format: "legacy", AckWait: time.Minute,
		EditReceiver: func(c harness.Config) {
			harness.Set(c, "info", "log", "level")
			harness.Set(c, "4GiB", "queue", "embedded", "max_store")
		},
		EditSigner: func(c harness.Config) { harness.Set(c, "info", "log", "level") },
	}); err != nil {
		return err
	}
	if err := b.system.StartProgram(ctx, b.system.Receiver); err != nil {
		return err
	}
	if b.queue, err = openQueue(ctx, b.system); err != nil {
		return err
	}
	if err := b.queue.pause(ctx); err != nil {
		return err
	}
	return b.seed(ctx)
}

// touch pushes into the content, all of it unsigned, and pulls from a share of its repositories.
func (b *bench) touch(ctx context.Context, pushes int, pulls float64) error {
	touched, err := b.control.Touch(ctx, harbortest.TouchConfig{Pushes: pushes, Pulls: pulls, Over: time.Minute})
	if err != nil {
		return err
	}
	b.pushed = append(b.pushed, touched.Pushed...)
	return nil
}

// unsigned are all digests that sweeps have to ask for by now.
func (b *bench) unsigned() []harbortest.SyntheticRef {
	return append(append([]harbortest.SyntheticRef(nil), b.made.Unsigned...), b.pushed...)
}

func (b *bench) stop() error {
	if b.queue != nil {
		b.queue.close()
	}
	var errs []error
	if b.system != nil {
		errs = append(errs, b.system.Stop())
	}
	if b.emulator != nil {
		errs = append(errs, b.emulator.Stop())
	}
	return errors.Join(errs...)
}
