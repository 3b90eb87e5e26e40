package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/harborseal/harborseal/e2e/harness"
)

// The names in the emulated Harbor, which this demonstration has for itself.
const (
	enabledProject = "demo"
	otherProject   = "scratch"
	// sweepInterval is that of recent sweeps. It is longer than Harbor's webhooks take at worst, about 5 s, so that they are
	// what tells of most pushes.
	sweepInterval = 8 * time.Second
	// slowPut is how long the signer that is to be killed waits for its manifest PUT: longer than the queue waits for a sign
	// of life, so that another signer has done the work when the PUT of the dead one is answered.
	slowPut = 4 * time.Second
	// waitLimit bounds each wait. It is met only when something is broken.
	waitLimit = 30 * time.Second
)

// image is one push and what is to become of it.
type image struct {
	label  string
	pushed harness.Pushed
	// signed says whether it has to be signed.
	signed bool
	// silent says that no webhook told of it; held, that a killed signer may have had it in work; restored, that its signature
	// was removed and made again.
	silent, held, restored bool
}

// demo is the running demonstration.
type demo struct {
	dir       string
	printer   *printer
	emulator  *harness.Process
	harbor    *harness.Harbor
	site      *harness.Site
	system    *harness.System
	cosign    *harness.Tool
	developer *harness.Developer
	images    []*image
}

// start builds and starts everything.
func (d *demo) start(ctx context.Context) error {
	d.printer.step("building the programs")
	programs, err := harness.Build(ctx, d.dir)
	if err != nil {
		return err
	}
	d.printer.begin()
	d.printer.step("starting an emulated Harbor")
	speed := harness.EmulatorOptions{RetryScale: 1, DeliveryDelayScale: 1}
	if d.harbor, d.emulator, err = harness.StartEmulator(ctx, programs, d.dir, speed); err != nil {
		return err
	}
	if d.site, err = harness.NewSite(ctx, d.harbor, enabledProject, otherProject); err != nil {
		return err
	}
	d.developer = d.harbor.NewDeveloper(d.site.Developer)
	if d.cosign, err = harness.NewTool(harness.EnvCosignV3, filepath.Join(d.dir, "cosign"), d.harbor, d.site.Developer, nil); err != nil {
		return err
	}
	d.printer.step("starting the receiver, with its queue, and two signers")
	d.system, err = harness.NewSystem(ctx, harness.Options{
		Programs: programs, Dir: filepath.Join(d.dir, "system"), Site: d.site, Managed: true,
		Signers: 2, AckWait: 3 * time.Second,
		EditSigner: func(c harness.Config) { harness.Set(c, sweepInterval.String(), "sweep", "incremental") },
	})
	if err != nil {
		return err
	}
	return d.system.Start(ctx)
}

// stop ends all processes.
func (d *demo) stop() error {
	var errs []error
	if d.system != nil {
		errs = append(errs, d.system.Stop())
	}
	if d.emulator != nil {
		errs = append(errs, d.emulator.Stop())
	}
	return errors.Join(errs...)
}

// play pushes what developers push, and breaks what breaks.
func (d *demo) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{d.enable, d.pushAll, d.pushUnseen, d.removeSignature, d.killSigner, d.settle} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) push(ctx context.Context, label, repository, tag string, what remote.Taggable, err error) (*image, error) {
	if err != nil {
		return nil, err
	}
	d.printer.item("push %s", label)
	pushed, err := d.developer.Push(ctx, repository, tag, what)
	if err != nil {
		return nil, err
	}
	one := &image{label: label, pushed: pushed, signed: true}
	d.images = append(d.images, one)
	return one, nil
}

func (d *demo) pushAll(ctx context.Context) error {
	// Just after a recent sweep, webhooks are what tells of a push: the next sweep is a whole interval away.
	if err := d.awaitRecentSweep(ctx); err != nil {
		return err
	}
	d.printer.step("pushing")
	app, err := harness.NewImage(true)
	first, err := d.push(ctx, "image", "demo/app", "v1", app, err)
	if err != nil {
		return err
	}
	d.printer.item("push a second tag on it")
	if _, err := d.developer.Push(ctx, "demo/app", "stable", app); err != nil {
		return err
	}
	d.printer.item("push the same again")
	if err := d.developer.PutAgain(ctx, first.pushed, app); err != nil {
		return err
	}
	index, err := harness.NewIndex("linux/amd64", "linux/arm64")
	if _, err = d.push(ctx, "multi-arch index", "demo/multi", "v1", index, err); err != nil {
		return err
	}
	nested, err := harness.NewImage(false)
	if _, err = d.push(ctx, "nested repository", "demo/team/backend/api", "v1", nested, err); err != nil {
		return err
	}
	untagged, err := harness.NewImage(false)
	if _, err = d.push(ctx, "untagged image", "demo/untagged", "", untagged, err); err != nil {
		return err
	}
	chart, err := harness.NewChart()
	if _, err = d.push(ctx, "Helm chart", "demo/charts/web", "1.2.3", chart, err); err != nil {
		return err
	}
	other, err := harness.NewImage(false)
	unwanted, err := d.push(ctx, "image in a project that is not enabled", "scratch/app", "v1", other, err)
	if err != nil {
		return err
	}
	unwanted.signed = false
	return d.awaitSigned(ctx)
}

// pushUnseen pushes an image whose webhook never comes.
func (d *demo) pushUnseen(ctx context.Context) error {
	d.printer.step("losing a webhook; a sweep, every %s here and each minute else, finds the image", sweepInterval)
	if err := d.harbor.SetFaults(ctx, harness.Faults{LoseNextWebhooks: 1}); err != nil {
		return err
	}
	img, err := harness.NewImage(false)
	one, err := d.push(ctx, "image whose webhook is lost", "demo/unseen", "v1", img, err)
	if err != nil {
		return err
	}
	one.silent = true
	stats, err := d.harbor.Stats(ctx)
	if err == nil && stats.Webhooks.Lost != 1 {
		err = fmt.Errorf("%d webhooks were lost, want 1", stats.Webhooks.Lost)
	}
	if err != nil {
		return err
	}
	return d.awaitSigned(ctx)
}

// killSigner kills a signer with SIGKILL while it has requests in work, and fails if that was not so.
func (d *demo) killSigner(ctx context.Context) error {
	const pushes = 6
	d.printer.step("killing a signer that holds unacknowledged work")
	// Signatures of this one repository take long to arrive, and what is pushed to it does not.
	slow := harness.Faults{Method: "PUT", PathPrefix: "/v2/demo/crash/manifests/sha256-", Latency: slowPut.String()}
	if err := d.harbor.SetFaults(ctx, slow); err != nil {
		return err
	}
	for i := range pushes {
		img, err := harness.NewImage(false)
		one, err := d.push(ctx, fmt.Sprintf("image %d of %d", i+1, pushes), "demo/crash", fmt.Sprintf("v%d", i+1), img, err)
		if err != nil {
			return err
		}
		one.held = true
	}
	victim, held, err := d.busySigner(ctx)
	if err != nil {
		return err
	}
	// What was delivered again before is not the kill's doing.
	before, err := d.redeliveries(ctx, victim)
	if err != nil {
		return err
	}
	if err := victim.Process.Kill(); err != nil {
		return err
	}
	d.printer.item("%s is killed (SIGKILL), with %d requests in work", victim.Name, held)
	if err := d.harbor.SetFaults(ctx, harness.Faults{}); err != nil {
		return err
	}
	redelivered := 0.0
	if err := harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		redelivered, err = d.redeliveries(ctx, victim)
		if err == nil && redelivered <= before {
			err = errors.New("no request of the killed signer was delivered again")
		}
		return err
	}); err != nil {
		return err
	}
	if err := d.awaitSigned(ctx); err != nil {
		return err
	}
	if redelivered, err = d.redeliveries(ctx, victim); err != nil {
		return err
	}
	d.printer.item("%.0f redeliveries to the other one", redelivered-before)
	d.printer.item("start %s again", victim.Name)
	return d.system.StartProgram(ctx, victim)
}

// busySigner waits until a signer has something in work.
func (d *demo) busySigner(ctx context.Context) (victim *harness.Program, held int, err error) {
	err = harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		for _, signer := range d.system.Signers {
			m, err := d.system.Metrics(ctx, signer)
			if err != nil {
				return err
			}
			if n := int(m.InFlight()); n > 0 {
				victim, held = signer, n
				return nil
			}
		}
		return errors.New("no signer has anything in work")
	})
	return victim, held, err
}

// redeliveries counts what all signers but one were given that somebody had been given before.
func (d *demo) redeliveries(ctx context.Context, but *harness.Program) (float64, error) {
	sum := 0.0
	for _, signer := range d.system.Signers {
		if signer == but {
			continue
		}
		m, err := d.system.Metrics(ctx, signer)
		if err != nil {
			return 0, err
		}
		sum += m.Redeliveries()
	}
	return sum, nil
}

// awaitSigned waits until the report says of everything pushed so far that it is signed.
func (d *demo) awaitSigned(ctx context.Context) error {
	return harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		rows, err := d.system.Report().Rows(ctx, nil)
		if err != nil {
			return err
		}
		for _, one := range d.images {
			for _, p := range one.pushed.All() {
				if row := rowOf(rows, p); one.signed && row.State != "signed" {
					return fmt.Errorf("%s (%s@%s) is %q in the report, want signed %s", one.label, p.Repository, p.Digest, row.State, row.Detail)
				}
			}
		}
		return nil
	})
}

// settle waits until nothing is going on any more and a sweep has gone over all of it: what is signed twice, or signed
// though it should not be, would be by then.
func (d *demo) settle(ctx context.Context) error {
	d.printer.step("waiting for a sweep over everything")
	if err := harness.Until(ctx, waitLimit, d.idle); err != nil {
		return err
	}
	if err := d.sweep(ctx); err != nil {
		return err
	}
	return harness.Until(ctx, waitLimit, d.idle)
}

// awaitRecentSweep waits until one more recent sweep has ended.
func (d *demo) awaitRecentSweep(ctx context.Context) error {
	before, err := d.recentSweeps(ctx)
	if err != nil {
		return err
	}
	return harness.Until(ctx, waitLimit, func(ctx context.Context) error {
		now, err := d.recentSweeps(ctx)
		if err == nil && now <= before {
			err = errors.New("no recent sweep has ended")
		}
		return err
	})
}

func (d *demo) recentSweeps(ctx context.Context) (float64, error) {
	sum := 0.0
	for _, signer := range d.system.Signers {
		m, err := d.system.Metrics(ctx, signer)
		if err != nil {
			return 0, err
		}
		sum += m.Sum("harborseal_sweeps_total", `kind="recent"`, `outcome="done"`)
	}
	return sum, nil
}

func (d *demo) idle(ctx context.Context) error {
	stats, err := d.harbor.Stats(ctx)
	if err != nil {
		return err
	}
	if stats.Webhooks.Pending > 0 {
		return fmt.Errorf("%d webhooks wait", stats.Webhooks.Pending)
	}
	for _, signer := range d.system.Signers {
		m, err := d.system.Metrics(ctx, signer)
		if err != nil {
			return err
		}
		if m.InFlight() > 0 {
			return fmt.Errorf("%s has requests in work", signer.Name)
		}
	}
	return nil
}
