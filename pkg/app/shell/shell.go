// Package shell is the command line that both programs share: subcommands, flags, and the way from a configuration file to
// a running service. It prints and returns errors; only main exits.
package shell

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

// Program is a program with subcommands. "run" is meant where none is named; "version" and "help" are there by themselves.
type Program struct {
	Name     string
	Usage    string
	Commands map[string]func(ctx context.Context, c *Call) error
}

// Call is one call of a subcommand.
type Call struct {
	// Flags are declared by the subcommand before it calls Parse.
	Flags  *flag.FlagSet
	Stdout io.Writer
	Stderr *os.File

	program string
	args    []string
}

// Run calls the subcommand that args name.
func (p Program) Run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) error {
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	switch name {
	case "version":
		_, err := fmt.Fprintln(stdout, telemetry.Version())
		return err
	case "help":
		_, err := io.WriteString(stdout, p.Usage)
		return err
	}
	command, found := p.Commands[name]
	if !found {
		return fmt.Errorf("unknown command %q: run %s --help", name, p.Name)
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { _, _ = io.WriteString(stderr, p.Usage) }
	err := command(ctx, &Call{Flags: flags, Stdout: stdout, Stderr: stderr, program: p.Name, args: args})
	if errors.Is(err, flag.ErrHelp) {
		return nil // the usage is printed
	}
	return err
}

// Parse reads the flags and refuses what is left over, which is mostly a forgotten flag name.
func (c *Call) Parse() error {
	if err := c.Flags.Parse(c.args); err != nil {
		return err
	}
	if c.Flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: run %s --help", c.Flags.Arg(0), c.program)
	}
	return nil
}

// ParseWords parses the flags, which may stand before, between and behind the words that it gives.
func (c *Call) ParseWords() (words []string, err error) {
	for rest := c.args; ; rest = c.Flags.Args()[1:] {
		if err := c.Flags.Parse(rest); err != nil {
			return nil, err
		}
		if c.Flags.NArg() == 0 {
			return words, nil
		}
		words = append(words, c.Flags.Arg(0))
	}
}

// Service is what "run" needs of a program. C is its configuration.
type Service[C any] struct {
	Load  func(path string, environ []string) (*C, error)
	Log   func(*C) config.Log
	Check func(context.Context, *C) error
	New   func(context.Context, *C, zerolog.Logger) (Runner, error)
}

// TuneMemory lets the garbage collector run half as often, unless GOGC says otherwise. What lives in these programs is some
// megabytes, which would be collected dozens of times a second; it costs as many megabytes more.
func TuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
}

// Runner works until its context ends.
type Runner interface {
	Run(ctx context.Context) error
}

// Serve is the subcommand "run", with --config and --check-config.
func (s Service[C]) Serve(ctx context.Context, c *Call) error {
	path := c.Flags.String("config", "", "configuration file")
	check := c.Flags.Bool("check-config", false, "check the configuration and exit")
	if err := c.Parse(); err != nil {
		return err
	}
	if *path == "" {
		return fmt.Errorf("--config is required: config/%s.yaml is an example", c.program)
	}
	cfg, err := s.Load(*path, os.Environ())
	if err != nil {
		return err
	}
	if *check {
		if err := s.Check(ctx, cfg); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.Stdout, "the configuration is good")
		return err
	}
	log := s.Log(cfg)
	service, err := s.New(ctx, cfg, telemetry.NewLogger(c.Stderr, telemetry.LogConfig{Level: log.Level, Format: log.Format}, telemetry.IsTerminal(c.Stderr)))
	if err != nil {
		return err
	}
	return service.Run(ctx)
}
