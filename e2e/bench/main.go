// Command bench measures the whole system on the Harbor emulator: the real programs, as processes, on one machine with the
// emulator and the load. The numbers are good for comparing one version with another on the same machine. They are not those
// of a real Harbor, whose write path is the bottleneck there.
//
// It measures twice. "Backlog": everything is pushed and queued before the signer starts, so that the signer is what
// limits. "Live": pushes are made at once by as many developers as the signer has slots, and each webhook is answered as it
// comes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/harborseal/harborseal/e2e/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	backlog := flags.Int("backlog", 1000, "images that wait when the signer starts")
	live := flags.Int("live", 480, "images that are pushed while the signer works")
	slots := flags.Int("in-flight", 32, "requests in work at once, and developers who push")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	dir, err := os.MkdirTemp("", "harborseal-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	b := &bench{dir: dir, slots: *slots, progress: stderr}
	defer func() { err = errors.Join(err, b.stop(), os.RemoveAll(dir)) }()
	if err := b.start(ctx); err != nil {
		return err
	}
	queued, err := b.backlog(ctx, *backlog)
	if err != nil {
		return err
	}
	pushed, err := b.live(ctx, *live)
	if err != nil {
		return err
	}
	return print(stdout, *slots, queued, pushed)
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

func print(out io.Writer, slots int, queued, pushed *measure) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "%d in flight, 1 signer, 1 receiver\tbacklog\tlive\t\n", slots)
	for _, line := range []struct {
		name string
		of   func(m *measure) string
	}{
		{"signatures", func(m *measure) string { return fmt.Sprint(m.signatures) }},
		{"signatures a second", func(m *measure) string { return fmt.Sprintf("%.0f", m.rate()) }},
		{"webhook to verified, p50", func(m *measure) string { return m.percentile(50) }},
		{"webhook to verified, p99", func(m *measure) string { return m.percentile(99) }},
		{"requests of the signer, a signature", func(m *measure) string { return m.requestsEach() }},
		{"CPU of the signer, ms a signature", func(m *measure) string { return m.cpuEach(m.signer) }},
		{"CPU of the receiver, ms a signature", func(m *measure) string { return m.cpuEach(m.receiver) }},
		{"RSS of the signer, MiB", func(m *measure) string { return fmt.Sprintf("%.0f", mebibytes(m.signer.RSS)) }},
		{"RSS of the receiver, MiB", func(m *measure) string { return fmt.Sprintf("%.0f", mebibytes(m.receiver.RSS)) }},
	} {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t\n", line.name, line.of(queued), line.of(pushed))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, err := fmt.Fprintf(out, "Requests a signature: %s.\nEmulator, load and programs share this machine; the live part's requests are "+
		"the developers' too, and not shown.\n", queued.kinds())
	return err
}
