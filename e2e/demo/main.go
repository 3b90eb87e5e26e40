// Command demo shows the main job: enable a project, push an image, find it signed.
//
// It builds the programs, starts an emulated Harbor, the receiver with its embedded queue and two signers as real
// processes, enables a project with one call as its compliance admin does, pushes what developers push, loses a webhook,
// removes a signature, kills a signer that holds work, and then looks from the outside whether every digest is signed once,
// and nothing that should not be, and whether the project's coverage says so. It ends with a status other than 0 if anything
// is missing, signed twice, or signed though it should not be. Everything it writes is in a temporary folder, and every port
// is a free one of the loopback interface.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	keep := flags.Bool("keep", false, "leave everything running at the end, until Ctrl-C, and say what to open")
	format := flags.String("o", "text", "text or json: what is written to standard output")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	if *format != "text" && *format != "json" {
		return fmt.Errorf("-o %q: want text or json", *format)
	}
	p := &printer{out: stdout, color: term.IsTerminal(int(stdout.Fd())) && os.Getenv("NO_COLOR") == "", start: time.Now()}
	if *format == "json" {
		// The result alone goes to standard output.
		p.out, p.color = stderr, false
	}
	dir, err := os.MkdirTemp("", "harborseal-demo-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	d := &demo{dir: dir, printer: p}
	err = d.show(ctx, stdout, *format)
	if *keep && d.system != nil && ctx.Err() == nil {
		if err != nil {
			p.fail("%v", err)
		}
		d.explain()
		<-ctx.Done()
		p.step("stopping")
	}
	if err != nil && ctx.Err() == nil && d.system != nil {
		_, _ = io.WriteString(stderr, d.system.Tails())
	}
	err = errors.Join(err, d.stop())
	if err == nil || *keep {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return fmt.Errorf("%w\nthe logs are in %s", err, dir)
}

func (d *demo) show(ctx context.Context, stdout io.Writer, format string) error {
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		return err
	}
	result, err := d.verify(ctx)
	if err != nil {
		return err
	}
	if format == "json" {
		err = result.writeJSON(stdout)
	} else {
		result.print(d.printer)
	}
	if err == nil && len(result.Violations) > 0 {
		err = fmt.Errorf("%d rules are broken, see above", len(result.Violations))
	}
	return err
}
