package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// measureSystem measures the whole system on the Harbor emulator. "Backlog": everything is pushed and queued before the
// signer starts, so that the signer is what limits. "Live": pushes are made at once by as many developers as the signer has
// slots, and each webhook is answered as it comes.
func measureSystem(ctx context.Context, slots, backlog, live int, progress io.Writer) (r *systemResult, err error) {
	dir, err := os.MkdirTemp("", "harborseal-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	b := &bench{dir: dir, slots: slots, progress: progress}
	defer func() { err = errors.Join(err, b.stop(), os.RemoveAll(dir)) }()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	r = &systemResult{Slots: slots}
	if r.Backlog, err = b.backlog(ctx, backlog); err != nil {
		return nil, err
	}
	r.Ready = b.ready
	r.Live, err = b.live(ctx, live)
	return r, err
}

// systemResult is both parts.
type systemResult struct {
	Slots int `json:"in_flight"`
	// Ready is the time from the signer's start to its readiness, its key included.
	Ready   time.Duration `json:"ready_ns"`
	Backlog *measure      `json:"backlog"`
	Live    *measure      `json:"live"`
}

// bench is a running system with one signer.
type bench struct {
	dir       string
	slots     int
	progress  io.Writer
	emulator  *harness.Process
	harbor    *harness.Harbor
	system    *harness.System
	developer *harness.Developer
	webhook   *harness.Webhook
	images    int
	// ready is how long the signer's start took.
	ready time.Duration
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, format+"\n", args...) // Nobody can be told.
}

func (b *bench) start(ctx context.Context) error {
	b.say("building the programs, starting the system")
	programs, err := harness.Build(ctx, b.dir)
	if err != nil {
		return err
	}
	speed := harness.EmulatorOptions{RetryScale: 1, DeliveryDelayScale: 1}
	if b.harbor, b.emulator, err = harness.StartEmulator(ctx, programs, b.dir, speed); err != nil {
		return err
	}
	site, err := harness.NewSite(ctx, b.harbor, project)
	if err != nil {
		return err
	}
	b.developer = b.harbor.NewDeveloper(site.Developer)
	b.system, err = harness.NewSystem(ctx, harness.Options{
		Programs: programs, Dir: filepath.Join(b.dir, "system"), Site: site, Enabled: []string{project},
		EditSigner: func(c harness.Config) {
			harness.Set(c, b.slots, "sign", "concurrency")
			harness.Set(c, b.slots, "sign", "max_in_flight") // all is of one project
			harness.Set(c, "info", "log", "level")
		},
		EditReceiver: func(c harness.Config) { harness.Set(c, "info", "log", "level") },
	})
	if err != nil {
		return err
	}
	if err := b.system.Start(ctx); err != nil {
		return err
	}
	b.webhook, err = b.system.AddWebhook(ctx, project, "Default")
	return err
}

func (b *bench) stop() error {
	var errs []error
	if b.system != nil {
		errs = append(errs, b.system.Stop())
	}
	if b.emulator != nil {
		errs = append(errs, b.emulator.Stop())
	}
	return errors.Join(errs...)
}

// Missed implements measured: it has no target.
func (*systemResult) Missed() bool { return false }

// Print implements measured.
func (r *systemResult) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "%d in flight, 1 signer, 1 receiver\tbacklog\tlive\t\n", r.Slots)
	for _, line := range []struct {
		name string
		of   func(m *measure) string
	}{
		{"signatures", func(m *measure) string { return fmt.Sprint(m.signatures) }},
		{"signatures a second", func(m *measure) string { return fmt.Sprintf("%.0f", m.rate()) }},
		{"webhook to verified, p50", func(m *measure) string { return latency(m.percentile(50)) }},
		{"webhook to verified, p99", func(m *measure) string { return latency(m.percentile(99)) }},
		{"requests of the signer, a signature", func(m *measure) string { return m.requestsEach() }},
		{"CPU of the signer, ms a signature", func(m *measure) string { return fmt.Sprintf("%.2f", m.cpuEach(m.signer)) }},
		{"CPU of the receiver, ms a signature", func(m *measure) string { return fmt.Sprintf("%.2f", m.cpuEach(m.receiver)) }},
		{"RSS of the signer, MiB", func(m *measure) string { return fmt.Sprintf("%.0f", mebibytes(m.signer.RSS)) }},
		{"RSS of the receiver, MiB", func(m *measure) string { return fmt.Sprintf("%.0f", mebibytes(m.receiver.RSS)) }},
	} {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t\n", line.name, line.of(r.Backlog), line.of(r.Live))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, err := fmt.Fprintf(out, "The signer was ready %s after its start. Requests a signature: %s.\nEmulator, load and programs share this "+
		"machine; the live part's requests are the developers' too, and not shown.\n", r.Ready.Round(time.Millisecond), r.Backlog.kinds())
	return err
}

func latency(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Millisecond / 10).String()
}
