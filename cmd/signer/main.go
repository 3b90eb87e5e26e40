// Command signer takes requests from the queue and signs images in Harbor. Run it with --help.
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

	app "github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

const usage = `signer signs the images that the receiver was told of.

Usage:
  signer [run] --config FILE       work until SIGTERM
  signer --check-config --config FILE
                                   check the configuration, keys and secrets, and exit
  signer generate-key --password-file FILE [--output-prefix PREFIX]
                                   make an encrypted key pair: PREFIX.key and PREFIX.pub (default: harborseal)
  signer public-key --key FILE --password-file FILE
                                   print the public key of an encrypted key
  signer version

Every key of the configuration has an environment variable: HARBORSEAL_HARBOR_URL for harbor.url.
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
		fmt.Fprintln(os.Stderr, "signer:", err)
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
	case "generate-key":
		return generateKey(args, stdout, stderr)
	case "public-key":
		return publicKey(args, stdout, stderr)
	case "version":
		_, err := fmt.Fprintln(stdout, telemetry.Version())
		return err
	case "help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("unknown command %q: run signer --help", command)
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
		return fmt.Errorf("unexpected argument %q: run signer --help", flags.Arg(0))
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
		return errors.New("--config is required: config/signer.yaml is an example")
	}
	cfg, err := config.LoadSigner(*path, os.Environ())
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

func generateKey(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("generate-key", flag.ContinueOnError)
	password := flags.String("password-file", "", "file with the password on one line")
	prefix := flags.String("output-prefix", "harborseal", "path of the files without .key and .pub")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *password == "" {
		return errors.New("--password-file is required: the private key is kept encrypted")
	}
	key, err := sigstore.GenerateKey(*prefix, *password)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "private key  %s.key (encrypted, for the signer alone)\npublic key   %s.pub\nkey id       %s\n", *prefix, *prefix, key.ID())
	return err
}

func publicKey(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("public-key", flag.ContinueOnError)
	file := flags.String("key", "", "encrypted private key")
	password := flags.String("password-file", "", "file with the password on one line")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if *file == "" || *password == "" {
		return errors.New("--key and --password-file are required")
	}
	key, err := sigstore.LoadPrivateKey(*file, *password)
	if err != nil {
		return err
	}
	_, err = stdout.Write(key.PublicPEM())
	return err
}
