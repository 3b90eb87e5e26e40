// Package compare measures the signing engine against others that make the same signatures: the cosign program, cosign's
// library, and a bare loop that does nothing else than what cannot be left out.
//
// All sign in one registry, on one machine, in one run, one after the other: never two at once. The engine and the bare
// loop take turns several times, because machines are not as even as one would like; ratios are those of neighbours. Each
// contender is a process of its own, and so is the registry, which counts the requests. Some signatures of each order are
// verified by package checker.
//
// The registry is in memory, so that the contenders are what limits, or a real Harbor, so that they are not. It assumes
// that nothing else of weight runs meanwhile.
package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/e2e/harness"
)

// Options say what is measured.
type Options struct {
	// Dir is an empty folder.
	Dir string
	// Harbor is where everybody signs; nil stands for the registry in memory.
	Harbor *harness.Harbor
	// Plan is how much is measured.
	Plan Plan
	// Cosign says that there is a cosign program, and so takes part. Make names it in the environment.
	Cosign bool
	// ProfileDir gets a CPU profile of each contender at each number in flight, if it is not empty.
	ProfileDir string
	// Progress gets lines for people.
	Progress io.Writer
}

// entry is one contender.
type entry struct {
	name, format string
	// program is what is started; empty for the cosign program.
	program string
	// watch lets the engine look again at what it wrote, as it does in production beside its work.
	watch bool
}

func (e entry) label() string { return e.name + ", " + e.format }

const (
	legacy, bundle, both = "legacy", "bundle", "both"
	// bareLoop is the contender that ratios refer to.
	bareLoop  = "bare loop"
	engine    = "engine"
	looking   = "engine and its later looks"
	cosignLib = "cosign's library"
	cosignCLI = "cosign program"
)

func ours(format string) entry { return entry{name: engine, format: format, program: "engine"} }

func yardstick() entry { return entry{name: bareLoop, format: legacy, program: "bare"} }

// watching is the engine as it runs in production. What it does half a minute later would disturb others: it signs apart.
func watching() entry { return entry{name: looking, format: legacy, program: "engine", watch: true} }

func entries() []entry {
	return []entry{
		ours(legacy),
		yardstick(),
		{name: cosignLib, format: legacy, program: "cosignlib"},
		{name: cosignCLI, format: legacy},
		ours(bundle),
		ours(both),
	}
}

// comparison is one run. It is for one goroutine.
type comparison struct {
	Options

	entries []entry
	stage   *stage
	keys    keyFiles
	verify  *verifier
	starts  int
}

// Run measures. A missed target is no error: it stands in the table.
func Run(ctx context.Context, o Options) (table *Table, err error) {
	c := &comparison{Options: o, entries: entries()}
	if !o.Cosign {
		c.entries = slices.DeleteFunc(c.entries, func(e entry) bool { return e.name == cosignCLI })
	} else if err := findCosign(); err != nil {
		return nil, err
	}
	c.say("building the contenders")
	if err := build(ctx, o.Dir); err != nil {
		return nil, err
	}
	if c.keys, err = newKeyFiles(o.Dir); err != nil {
		return nil, err
	}
	if c.stage, err = newStage(ctx, o.Dir, o.Harbor); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stage.close(ctx)) }()
	c.verify = newVerifier(c.stage, c.keys)
	table = &Table{}
	if c.stage.counts() {
		if err := c.countRequests(ctx, table); err != nil {
			return nil, err
		}
	}
	for _, inFlight := range c.Plan.levels() {
		if err := c.takeTurns(ctx, inFlight, c.entries, table); err != nil {
			return nil, err
		}
	}
	if err := c.takeTurns(ctx, checkedLevel, []entry{watching(), yardstick()}, table); err != nil {
		return nil, err
	}
	if c.Plan.Flat > 0 && c.stage.counts() {
		if table.Memory, err = c.memory(ctx); err != nil {
			return nil, err
		}
	}
	if c.stage.counts() {
		table.Judge(c.Plan.timed)
	}
	return table, nil
}

func (c *comparison) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Progress, format+"\n", args...) // nobody can be told
}

// start starts a contender.
func (c *comparison) start(ctx context.Context, e entry, purpose string) (signer, error) {
	c.starts++
	if e.program == "" {
		return newCosign(filepath.Join(c.Dir, fmt.Sprintf("cosign-%d", c.starts)), c.stage, c.keys)
	}
	setup := contender.Setup{
		URL: c.stage.url, Host: c.stage.host, Username: c.stage.username, SecretFile: c.stage.secretFile,
		KeyFile: c.keys.encrypted, PasswordFile: c.keys.passwordFile, Format: e.format, Watch: e.watch,
	}
	if e.name == bareLoop {
		setup.KeyFile, setup.PasswordFile = c.keys.plain, ""
	}
	if c.ProfileDir != "" {
		if e.watch {
			purpose += "-watch"
		}
		setup.CPUProfile = filepath.Join(c.ProfileDir, fmt.Sprintf("%s-%s-%s.pprof", e.program, e.format, purpose))
	}
	return launch(ctx, filepath.Join(c.Dir, e.program), nil, setup.Args()...)
}

// filled is what an order has taken, and what it cost the registry.
type filled struct {
	contender.Result

	registry time.Duration
}

// fill gives a contender so many new images of a new repository, and checks some of the signatures.
func (c *comparison) fill(ctx context.Context, e entry, s signer, n, inFlight int) (filled, error) {
	repository, digests, err := c.stage.images(ctx, n)
	if err != nil {
		return filled{}, err
	}
	return c.sign(ctx, e, s, contender.Order{Repository: repository, Digests: digests, InFlight: inFlight})
}

func (c *comparison) sign(ctx context.Context, e entry, s signer, o contender.Order) (filled, error) {
	var r filled
	before, err := c.stage.cpu(ctx)
	if err != nil {
		return r, err
	}
	if r.Result, err = s.order(ctx, o); err != nil {
		return r, fmt.Errorf("%s: %w", e.label(), err)
	}
	after, err := c.stage.cpu(ctx)
	if err != nil {
		return r, err
	}
	r.registry = after - before
	if r.Signatures != len(o.Digests) {
		return r, fmt.Errorf("%s: %d signatures, %d were ordered", e.label(), r.Signatures, len(o.Digests))
	}
	if err := c.verify.some(ctx, e.format, o); err != nil {
		return r, fmt.Errorf("%s: %w", e.label(), err)
	}
	return r, nil
}

// takeTurns lets contenders sign with so many in flight, in rounds.
func (c *comparison) takeTurns(ctx context.Context, inFlight int, entries []entry, table *Table) (err error) {
	running := make(map[entry]signer)
	defer func() {
		for _, s := range running {
			err = errors.Join(err, s.stop())
		}
	}()
	levels := make(map[entry]*Level)
	rounds := 0
	for _, e := range entries {
		load := c.Plan.load(e, inFlight)
		if load.Rounds == 0 {
			continue
		}
		rounds = max(rounds, load.Rounds)
		if running[e], err = c.start(ctx, e, fmt.Sprint(inFlight)); err != nil {
			return err
		}
		levels[e] = &Level{InFlight: inFlight}
		if warmUp := load.Signatures / 10; warmUp > 0 {
			if _, err := c.fill(ctx, e, running[e], max(warmUp, inFlight), inFlight); err != nil {
				return err
			}
		}
	}
	for round := range rounds {
		order := slices.Clone(entries)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		rates := make(map[entry]float64)
		for _, e := range order {
			load := c.Plan.load(e, inFlight)
			if round >= load.Rounds {
				continue
			}
			c.say("%d in flight, round %d of %d: %s", inFlight, round+1, load.Rounds, e.label())
			if err := c.stage.clear(ctx); err != nil {
				return err
			}
			r, err := c.fill(ctx, e, running[e], load.Signatures, inFlight)
			if err != nil {
				return err
			}
			rates[e] = levels[e].add(r.Result, r.registry)
		}
		for e, rate := range rates {
			levels[e].compare(rate, rates[yardstick()])
		}
	}
	for _, e := range entries {
		r := table.row(e.name, e.format)
		if level := levels[e]; level != nil && r.level(inFlight) == nil {
			r.Levels = append(r.Levels, level.summary())
		}
	}
	return nil
}
