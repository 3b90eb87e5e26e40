// Command bench measures what signing costs and prints tables. It has these parts:
//
//   - signing: the engine against the cosign program, cosign's library and a bare net/http loop (package compare), with the
//     targets that it has to meet. With HARBOR_URL and friends, as for `make e2e`, this part alone is measured there.
//   - footprint: how large the programs are, how long they take to start, and what each key provider adds.
//   - system: the real programs with the Harbor emulator.
//   - scale: the sweeps of a Harbor with a million digests (package scale), with the targets that they have to meet.
//   - logs: what transparency logs and timestamps cost, with real servers (package logs), which the environment names as for
//     `make e2e`.
//   - receiver, surge, recovery, queue: the way of a push through receiver and queue (package delivery).
//   - flood: what others notice of one project's 5,000 pushes (package flood).
//   - projects: what 1,000 and 5,000 projects cost servers and programs that are idle (package projects).
//   - report: the signed-digest report of a million digests on SQLite and PostgreSQL, ten million with SCALE=full in the environment
//     (package reporting).
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

// options are the flags.
type options struct {
	output, parts, profiles      string
	quick                        bool
	count                        float64
	backlog, live, slotsOfSystem int
	debts, surge                 int
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
	flags.IntVar(&o.surge, "surge", 0, "surge: webhooks of the larger one; 0 for those of the target")
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
	case o.surge < 0:
		return o, errors.New("parsing flags: -surge must not be negative")
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
	// harbor is the address of a real one.
	harbor string
	parts  []partResult
}

type partResult struct {
	name string
	of   measured
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	s := setting{options: o, progress: stderr}
	if s.harbor, err = harness.RealHarbor(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "harborseal-bench-"); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	var r result
	parts := strings.Split(o.parts, ",")
	if s.harbor != nil {
		r.harbor, parts = s.harbor.URL, []string{partSigning}
	}
	for _, part := range parts {
		of, err := s.measure(ctx, part)
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		r.parts = append(r.parts, partResult{part, of})
	}
	if err := r.write(stdout, o.output); err != nil {
		return err
	}
	if slices.ContainsFunc(r.parts, func(p partResult) bool { return p.of.Missed() }) {
		return errors.New("a target was missed")
	}
	return nil
}

// MarshalJSON gives an object with the parts by their names.
func (r *result) MarshalJSON() ([]byte, error) {
	object := map[string]any{}
	if r.harbor != "" {
		object["harbor"] = r.harbor
	}
	for _, part := range r.parts {
		object[part.name] = part.of
	}
	return json.Marshal(object)
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
	if r.harbor != "" {
		_, _ = fmt.Fprintf(out, "Harbor at %s\n", r.harbor) // the next write tells
	}
	var errs []error
	for i, part := range r.parts {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		errs = append(errs, part.of.Print(out))
	}
	return errors.Join(errs...)
}
