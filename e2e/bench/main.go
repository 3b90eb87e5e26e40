// Command bench measures what signing costs and prints tables. It has five parts:
//
//   - signing: the engine against the cosign program, cosign's library and a bare net/http loop (package compare), with the
//     targets that it has to meet. With HARBOR_URL and friends, as for `make e2e`, this part alone is measured there.
//   - footprint: how large the programs are, how long they take to start, and what each key provider adds.
//   - system: the real programs with the Harbor emulator.
//   - scale: the sweeps of a Harbor with a million digests (package scale), with the targets that they have to meet.
//   - logs: what transparency logs and timestamps cost, with real servers (package logs), which the environment names as for
//     `make e2e`.
//
// All share one machine with what they talk to. The numbers are good for comparing, on the same machine and in the same run;
// they are not those of a real Harbor, whose write path is the bottleneck there. The command fails if a target is missed.
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
	"slices"
	"strings"
	"syscall"

	"github.com/harborseal/harborseal/e2e/bench/compare"
	"github.com/harborseal/harborseal/e2e/bench/footprint"
	"github.com/harborseal/harborseal/e2e/bench/logs"
	"github.com/harborseal/harborseal/e2e/bench/scale"
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

const (
	partSigning   = "signing"
	partFootprint = "footprint"
	partSystem    = "system"
	partScale     = "scale"
	partLogs      = "logs"
)

func allParts() []string {
	return []string{partSigning, partFootprint, partSystem, partScale, partLogs}
}

// options are the flags.
type options struct {
	output, parts, profiles      string
	quick                        bool
	count                        float64
	backlog, live, slotsOfSystem int
	debts                        int
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.output, "o", "table", "form of the result: table or json")
	flags.StringVar(&o.parts, "parts", strings.Join(allParts(), ","), "parts to measure")
	flags.BoolVar(&o.quick, "quick", false, "see that everything works: few signatures and digests, no judgement of times; signing alone, unless -parts says more")
	flags.Float64Var(&o.count, "count", 1, "factor on the signatures of each round of signing")
	flags.StringVar(&o.profiles, "profiles", "", "folder for CPU profiles of the contenders")
	flags.IntVar(&o.backlog, "backlog", 1000, "system: images that wait when the signer starts")
	flags.IntVar(&o.live, "live", 480, "system: images that are pushed while the signer works")
	flags.IntVar(&o.slotsOfSystem, "in-flight", 32, "system: requests in work at once, and developers who push")
	flags.IntVar(&o.debts, "debts", 10_000, "logs: entries that are owed when the log is back")
	if err := flags.Parse(args); err != nil {
		return o, fmt.Errorf("parsing flags: %w", err)
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("parsing flags: unexpected argument %q", flags.Arg(0))
	case o.output != "table" && o.output != "json":
		return o, fmt.Errorf("parsing flags: -o %q: want table or json", o.output)
	case o.count <= 0:
		return o, errors.New("parsing flags: -count must be positive")
	case o.debts <= 0:
		return o, errors.New("parsing flags: -debts must be positive")
	}
	named := false
	flags.Visit(func(f *flag.Flag) { named = named || f.Name == "parts" })
	if o.quick && !named {
		o.parts = partSigning
	}
	for part := range strings.SplitSeq(o.parts, ",") {
		if !slices.Contains(allParts(), part) {
			return o, fmt.Errorf("parsing flags: -parts: there is no part %q", part)
		}
	}
	return o, nil
}

// result is all that was measured.
type result struct {
	// Harbor is the address of a real one.
	Harbor    string          `json:"harbor,omitempty"`
	Signing   *compare.Table  `json:"signing,omitempty"`
	Footprint []footprint.Row `json:"footprint,omitempty"`
	System    *systemResult   `json:"system,omitempty"`
	Scale     *scale.Result   `json:"scale,omitempty"`
	Logs      *logs.Result    `json:"logs,omitempty"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	harbor, err := harness.RealHarbor()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "harborseal-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	plan := compare.Full(o.count)
	var r result
	switch {
	case o.quick:
		plan = compare.Quick()
	case harbor != nil:
		plan = compare.Real(o.count)
	}
	parts := strings.Split(o.parts, ",")
	if harbor != nil {
		r.Harbor, parts = harbor.URL, []string{partSigning}
	}
	for _, part := range parts {
		switch part {
		case partSigning:
			r.Signing, err = compare.Run(ctx, compare.Options{
				Dir: dir, Harbor: harbor, Plan: plan, Cosign: true, ProfileDir: o.profiles, Progress: stderr,
			})
		case partFootprint:
			r.Footprint, err = footprint.Measure(ctx, dir, stderr)
		case partSystem:
			r.System, err = measureSystem(ctx, o.slotsOfSystem, o.backlog, o.live, stderr)
		case partScale:
			content := scale.Full(dir, stderr)
			if o.quick {
				content = scale.Quick(dir, stderr)
			}
			r.Scale, err = scale.Run(ctx, content)
		case partLogs:
			content := logs.Full(dir, o.debts, stderr)
			if o.quick {
				content = logs.Quick(dir, stderr)
			}
			r.Logs, err = logs.Run(ctx, content)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	if err := r.write(stdout, o.output); err != nil {
		return err
	}
	if r.Signing != nil && r.Signing.Missed() || r.Scale != nil && r.Scale.Missed() || r.Logs != nil && r.Logs.Missed() {
		return errors.New("a target was missed")
	}
	return nil
}

func (r *result) write(out io.Writer, form string) error {
	if form == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	}
	if r.Harbor != "" {
		_, _ = fmt.Fprintf(out, "Harbor at %s\n", r.Harbor) // the next write tells
	}
	var errs []error
	if r.Signing != nil {
		errs = append(errs, r.Signing.Print(out))
	}
	if r.Footprint != nil {
		_, _ = fmt.Fprintln(out)
		errs = append(errs, footprint.Print(out, r.Footprint))
	}
	if r.System != nil {
		_, _ = fmt.Fprintln(out)
		errs = append(errs, r.System.print(out))
	}
	if r.Scale != nil {
		_, _ = fmt.Fprintln(out)
		errs = append(errs, r.Scale.Print(out))
	}
	if r.Logs != nil {
		_, _ = fmt.Fprintln(out)
		errs = append(errs, r.Logs.Print(out))
	}
	return errors.Join(errs...)
}
