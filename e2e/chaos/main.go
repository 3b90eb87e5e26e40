// Command chaos pushes images through a whole system while a seeded plan breaks it, mends everything, waits until all is calm,
// and lets e2e/checker judge what registry and ledger hold then.
//
// The system is what an installation is, on the loopback interface: two receivers behind a balancer of connections, two signers,
// three NATS servers with proxies between all of them, a log of Rekor v2, and the Harbor emulator. Programs are built with
// failpoints, for their clock alone. The stores of the NATS servers are on small volumes of their own, which become full, where
// this program may mount volumes, as root may; elsewhere it says that no disk was full.
//
// It says in one line on standard output what was found, and fails if a rule is broken, if a kind of fault did not happen, or if
// calm does not return. Everything that it wrote stays in its folder then: the plan (history.jsonl), what was really done
// (journal.jsonl), the ledger, and the logs of all programs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

// options are the flags.
type options struct {
	seed     uint64
	duration time.Duration
	history  string
	keep     bool
	calm     time.Duration
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.seed, "seed", 0, "seed of the plan; 0 for one that nobody knows yet")
	flags.DurationVar(&o.duration, "duration", 10*time.Minute, "how long things are broken")
	flags.StringVar(&o.history, "history", "", "file with the plan of another run, which is done again")
	flags.BoolVar(&o.keep, "keep", false, "keep the folder also if all is well")
	flags.DurationVar(&o.calm, "calm", 6*time.Minute, "how long the system may take to come to rest")
	if err := flags.Parse(args); err != nil {
		return o, fmt.Errorf("parsing flags: %w", err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("parsing flags: unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

// plan makes the plan of a run, or reads that of another one.
func (o options) plan() (*plan.Plan, error) {
	if o.history == "" {
		if o.seed == 0 {
			o.seed = rand.Uint64N(1 << 32) //nolint:gosec // it is shown to everybody
		}
		return plan.Generate(o.seed, o.duration)
	}
	f, err := os.Open(o.history)
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	defer func() { _ = f.Close() }()
	return plan.Read(f)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	p, err := o.plan()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "harborseal-chaos-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	err = chaos(ctx, p, dir, o.calm, stdout, stderr)
	if err == nil && !o.keep {
		return os.RemoveAll(dir)
	}
	if err != nil {
		err = fmt.Errorf("%w\neverything is in %s; again: make chaos HISTORY=%s", err, dir, filepath.Join(dir, historyFile))
	}
	return err
}

// The files of a run.
const (
	historyFile = "history.jsonl"
	journalFile = "journal.jsonl"
	ledgerFile  = "ledger.jsonl"
)

// chaos does a plan and judges.
func chaos(ctx context.Context, p *plan.Plan, dir string, limit time.Duration, stdout, stderr io.Writer) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, "%6.1fs  "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...) // nobody can be told
	}
	if err := writePlan(p, filepath.Join(dir, historyFile)); err != nil {
		return err
	}
	j, err := newJournal(filepath.Join(dir, journalFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	say("seed %d, %s: %d actions, %d of them faults; everything is in %s", p.Seed, time.Duration(p.Duration), len(p.Actions), len(p.Faults()), dir)
	w, err := newWorld(ctx, dir, p, j, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }() //nolint:contextcheck // what runs is ended also if ctx has
	if err := w.start(ctx); err != nil {
		return err
	}
	say("the system runs")
	if err := w.play(ctx, p); err != nil {
		return err
	}
	if err := w.calm(ctx, limit); err != nil {
		return err
	}
	return w.judge(ctx, p, stdout)
}

func writePlan(p *plan.Plan, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in the folder of this run
	if err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return p.Write(f)
}
