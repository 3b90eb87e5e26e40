// Command emulator runs the Harbor emulator of pkg/harbor/harbortest as a process of its own.
//
// When it listens it prints one line of JSON, {"url":"http://127.0.0.1:port"}, on standard output; logs go to standard
// error. Everything that Harbor's API can do is set up through that API, as user admin. What no Harbor has is under
// /_emulator/: faults (GET, PUT; faults/NAME, too, for several side by side), version (GET, PUT), stats (GET), synthetic
// (POST makes content, GET lists it a line each), touch (POST pushes and pulls in it), login (PUT registers id tokens and CLI
// secrets for OIDC mode) and audit (DELETE purges the log). SIGTERM or SIGINT ends it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "emulator:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cfg harbortest.Config
	flags := flag.NewFlagSet("emulator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "address to listen on")
	flags.StringVar(&cfg.Version, "version", harbortest.DefaultVersion, "Harbor version to be, as v2.11.2")
	flags.StringVar(&cfg.AdminPassword, "admin-password", harbortest.DefaultAdminPassword, "password of the user admin")
	flags.Float64Var(&cfg.RetryScale, "retry-scale", 1, "factor on the gaps between webhook attempts")
	flags.Float64Var(&cfg.DeliveryDelayScale, "delivery-delay-scale", 1, "factor on the delay of webhook deliveries")
	flags.DurationVar(&cfg.WebhookTimeout, "webhook-timeout", 3*time.Second, "time that a webhook receiver may take")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "seed for delays and fault rates; 0 is random")
	faults := flags.String("faults", "", `faults from the start, as JSON: {"latency":"50ms"}`)
	synthetic := flags.String("synthetic", "", `content from the start, as JSON: {"projects":5,"repositories":50,"digests":1000}`)
	verbose := flags.Bool("verbose", false, "log every request")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("parsing flags: %w", err)
	}
	var injected harbortest.Faults
	if *faults != "" {
		if err := json.Unmarshal([]byte(*faults), &injected); err != nil {
			return fmt.Errorf("parsing -faults: %w", err)
		}
	}
	content, err := parseSynthetic(*synthetic)
	if err != nil {
		return err
	}
	level := zerolog.InfoLevel
	if *verbose {
		level = zerolog.DebugLevel
	}
	cfg.Logger = zerolog.New(stderr).Level(level).With().Timestamp().Logger()
	harbor, err := harbortest.Start(cfg) //nolint:contextcheck // its life ends with Close
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	harbor.SetFaults(injected)
	if content != nil {
		if _, err := harbor.Synthesize(*content); err != nil {
			return errors.Join(fmt.Errorf("making -synthetic: %w", err), harbor.Close())
		}
	}
	if err := json.NewEncoder(stdout).Encode(map[string]string{"url": harbor.URL()}); err != nil {
		return errors.Join(fmt.Errorf("announcing the address: %w", err), harbor.Close())
	}
	<-ctx.Done()
	if err := harbor.Close(); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}

// parseSynthetic reads -synthetic; nil is none. An unknown key is an error.
func parseSynthetic(raw string) (*harbortest.SyntheticConfig, error) {
	if raw == "" {
		return nil, nil //nolint:nilnil // the flag is optional
	}
	content := new(harbortest.SyntheticConfig)
	decoder := json.NewDecoder(strings.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(content); err != nil {
		return nil, fmt.Errorf("parsing -synthetic: %w", err)
	}
	return content, nil
}
