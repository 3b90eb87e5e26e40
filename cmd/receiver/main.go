// Command receiver takes Harbor's webhooks, hands them to the queue, and serves the report. Run it with --help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/harborseal/harborseal/pkg/api"
	app "github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

const usage = `receiver takes Harbor's webhooks and serves the signed-digest report.

Usage:
  receiver [run] --config FILE     serve until SIGTERM
  receiver --check-config --config FILE
                                   check the configuration and the files that it names, and exit
  receiver new-token --name NAME   make a token for the report's API: prints the token once, and its line for
                                   api.tokens_file
  receiver version

Every key of the configuration has an environment variable: HARBORSEAL_HTTP_LISTEN for http.listen.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) error {
	command := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "run":
		return serve(ctx, args, stdout, stderr)
	case "new-token":
		return newToken(args, stdout, stderr)
	case "version":
		_, err := fmt.Fprintln(stdout, telemetry.Version())
		return err
	case "help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("unknown command %q: run receiver --help", command)
	}
}

// parse reads flags and refuses what is left over, which is mostly a forgotten flag name.
func parse(flags *flag.FlagSet, args []string, out io.Writer) error {
	flags.SetOutput(out)
	flags.Usage = func() { _, _ = io.WriteString(out, usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: run receiver --help", flags.Arg(0))
	}
	return nil
}

func serve(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	path := flags.String("config", "", "configuration file")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *path == "" {
		return errors.New("--config is required: config/receiver.yaml is an example")
	}
	cfg, err := config.LoadReceiver(*path, os.Environ())
	if err != nil {
		return err
	}
	if *check {
		if err := app.Check(cfg); err != nil {
			return err
		}
		_, err := fmt.Fprintln(stdout, "the configuration is good")
		return err
	}
	logger := telemetry.NewLogger(stderr, telemetry.LogConfig{Level: cfg.Log.Level, Format: cfg.Log.Format}, telemetry.IsTerminal(stderr))
	a, err := app.New(cfg, logger) //nolint:contextcheck // New binds listeners and opens files: it waits for nobody
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

func newToken(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("new-token", flag.ContinueOnError)
	name := flags.String("name", "", "who will use the token")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	token, line, err := api.NewToken(*name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "token                     %s\nline for api.tokens_file  %s\n", token, line)
	return err
}
