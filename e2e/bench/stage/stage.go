// Package stage sets up the real programs, each a process of its own, with the Harbor emulator and much content, for the
// benchmarks of delivery. Content is made up (harbortest.Synthesize): its manifests can be signed, and nothing has to be pushed.
//
// Who sends webhooks, whether signers run, and what is counted is up to the benchmark. All programs share one machine.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/control"
	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// Format is that of all signatures: the one that takes the fewest requests.
const Format = "bundle"

// Options are what is set up. Dir, Programs and Progress are required.
type Options struct {
	// Dir is a folder for all that the programs write; it is made.
	Dir      string
	Programs harness.Programs
	Progress io.Writer
	// Content is made before anything starts; with 0 projects there is none.
	Content harbortest.SyntheticConfig
	// Projects are made beside it.
	Projects []string
	// Edit changes what the system is made of, by default: all projects are enabled, one signer, the default ack wait.
	Edit func(*harness.Options)
}

// Stage is what was set up. It is for one goroutine, but for what only asks.
type Stage struct {
	Harbor   *harness.Harbor
	Emulator *harness.Process
	Control  control.Control
	Site     *harness.Site
	System   *harness.System
	// Made is the content.
	Made harbortest.Synthetic

	progress io.Writer
}

// New sets up the emulator and writes what the system needs. No program of the system is started.
func New(ctx context.Context, o Options) (_ *Stage, err error) {
	s := &Stage{progress: o.Progress}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("setting up: %w", err), s.Stop())
		}
	}()
	if err := makeFolder(o.Dir); err != nil {
		return nil, err
	}
	speed := harness.EmulatorOptions{RetryScale: 1, DeliveryDelayScale: 1}
	if s.Harbor, s.Emulator, err = harness.StartEmulator(ctx, o.Programs, o.Dir, speed); err != nil {
		return nil, err
	}
	s.Control = control.New(s.Harbor.URL)
	var enabled []string
	if o.Content.Projects > 0 {
		if s.Made, err = s.Control.Synthesize(ctx, o.Content); err != nil {
			return nil, err
		}
		enabled = append(enabled, s.Made.Projects...)
	}
	if s.Site, err = harness.NewSite(ctx, s.Harbor); err != nil {
		return nil, err
	}
	for _, project := range o.Projects {
		if err := s.Site.AddProject(ctx, project); err != nil {
			return nil, err
		}
		enabled = append(enabled, project)
	}
	options := harness.Options{
		Programs: o.Programs, Dir: filepath.Join(o.Dir, "system"), Site: s.Site, Enabled: enabled, Format: Format, AckWait: time.Minute,
		EditReceiver: func(c harness.Config) {
			harness.Set(c, "info", "log", "level")
			harness.Set(c, "4GiB", "queue", "embedded", "max_store")
		},
		EditSigner: func(c harness.Config) { harness.Set(c, "info", "log", "level") },
	}
	if o.Edit != nil {
		o.Edit(&options)
	}
	s.System, err = harness.NewSystem(ctx, options)
	return s, err
}

// Stop ends all programs.
func (s *Stage) Stop() error {
	var errs []error
	if s.System != nil {
		errs = append(errs, s.System.Stop())
	}
	if s.Emulator != nil {
		errs = append(errs, s.Emulator.Stop())
	}
	return errors.Join(errs...)
}

// Say tells how far it is.
func (s *Stage) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.progress, format+"\n", args...) // nobody can be told
}

// Unsigned are the digests of one project that the content has without a signature.
func (s *Stage) Unsigned(project string) []harbortest.SyntheticRef {
	var some []harbortest.SyntheticRef
	for _, ref := range s.Made.Unsigned {
		if ProjectOf(ref) == project {
			some = append(some, ref)
		}
	}
	return some
}

// ProjectOf is the project of a digest.
func ProjectOf(ref harbortest.SyntheticRef) string {
	project, _ := split(ref.Repository)
	return project
}

// Target is where Harbor reports the pushes of a project.
func (s *Stage) Target(project string) (hooks.Target, error) {
	return hooks.NewTarget(s.System.WebhookAddress(project), s.System.WebhookAuth)
}

// Body is what Harbor reports of a push.
func Body(ref harbortest.SyntheticRef) []byte {
	project, name := split(ref.Repository)
	return harness.Delivery(project, name, ref.Digest, "v1")
}

// Await waits until a condition on the metrics of the signers together holds. It gives up if nothing has changed for a while,
// which the condition tells by what it says is missing.
func (s *Stage) Await(ctx context.Context, condition func(harness.Metrics) error) error {
	const limit = 2 * time.Minute
	var missing string
	for {
		last := missing
		err := harness.Until(ctx, limit, func(ctx context.Context) error {
			m, err := s.Metrics(ctx)
			if err != nil {
				return err
			}
			err = condition(m)
			if err != nil && err.Error() != last {
				missing = err.Error()
				return nil
			}
			missing = ""
			return err
		})
		if err != nil {
			return fmt.Errorf("%w\n%s", err, s.System.Tails())
		}
		if missing == "" {
			return nil
		}
	}
}

// Metrics adds up those of all signers that run.
func (s *Stage) Metrics(ctx context.Context) (harness.Metrics, error) {
	sum := harness.Metrics{}
	for _, signer := range s.System.Signers {
		if signer.Process == nil || !signer.Process.Running() {
			continue
		}
		m, err := s.System.Metrics(ctx, signer)
		if err != nil {
			return nil, err
		}
		for name, value := range m {
			sum[name] += value
		}
	}
	return sum, nil
}

// Signed is how many digests were signed: requests that found a signature are left out.
func Signed(m harness.Metrics) int {
	return int(m.Sum("harborseal_signing_outcomes_total", `outcome="signed"`, `how="made"`))
}
