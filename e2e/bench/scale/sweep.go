package scale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/machine"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

const (
	// limitOfSweeps is how long the full sweeps of all projects may take.
	limitOfSweeps = 5 * time.Minute
	// limitOfRecent is how long anything else may take.
	limitOfRecent = time.Minute
	pollEvery     = 250 * time.Millisecond
	sayEvery      = 15 * time.Second
	// slow is what each request takes longer on a slow Harbor, where one in shareOfSlow of the projects is swept.
	slow        = 20 * time.Millisecond
	shareOfSlow = 10
)

// sweeps measures full sweeps by one signer and by two: of all projects, and of some on a Harbor that is slow to answer. On the
// emulator as it is, what a second signer gains depends on the processors that all programs share; there, signers wait for
// Harbor instead.
func (b *bench) sweeps(ctx context.Context, r *Result) error {
	first, second := b.system.Signers[:1], b.system.Signers[:2]
	some := b.made.Projects[:max(1, len(b.made.Projects)/shareOfSlow)]
	for _, step := range []struct {
		signers  []*harness.Program
		projects []string
		latency  time.Duration
		start    bool
		into     *[]*Sweep
	}{
		// The first signer begins by itself when it starts, as no project was ever swept.
		{signers: first, projects: b.made.Projects, start: true, into: &r.Sweeps},
		{signers: first, projects: some, latency: slow, into: &r.Slow},
		{signers: second, projects: some, latency: slow, start: true, into: &r.Slow},
		{signers: second, projects: b.made.Projects, into: &r.Sweeps},
	} {
		n := len(step.signers)
		b.say("sweeping %d projects with %s, %s more for each request", len(step.projects), signers(n), step.latency)
		if err := b.harbor.SetFaults(ctx, harness.Faults{Latency: step.latency.String()}); err != nil {
			return err
		}
		s, err := b.sweep(ctx, step.signers, step.projects, step.start)
		if err != nil {
			return fmt.Errorf("full sweeps of %d projects with %s: %w", len(step.projects), signers(n), err)
		}
		s.Latency = step.latency
		*step.into = append(*step.into, s)
	}
	return nil
}

// sweep lets signers sweep projects, and measures. Where it starts the last of them, the others run already.
func (b *bench) sweep(ctx context.Context, signers []*harness.Program, projects []string, start bool) (*Sweep, error) {
	last, running := signers[len(signers)-1], signers
	if start {
		running = signers[:len(signers)-1]
	}
	before, err := b.look(ctx, running)
	if err != nil {
		return nil, err
	}
	if start {
		if err := b.system.StartProgram(ctx, last); err != nil {
			return nil, err
		}
	}
	if !start || len(signers) > 1 {
		before.at = time.Now()
		for _, project := range projects {
			if _, err := b.queue.Propose(ctx, reconcile.Full, project, reconcile.AdHoc(time.Now())); err != nil {
				return nil, err
			}
		}
	}
	after, err := b.await(ctx, signers, before.full+len(projects), len(projects))
	if err != nil {
		return nil, err
	}
	s := &Sweep{
		Signers: len(signers), Projects: len(projects), Took: after.at.Sub(before.at), Requests: minus(after.requests, before.requests),
		Population: after.manifests - before.manifests, Unsigned: after.unsigned - before.unsigned, CPU: after.cpu - before.cpu,
		ReceiverCPU: after.receiver.CPU - before.receiver.CPU, ReceiverRSS: after.receiver.RSS, EmulatorCPU: after.emulator - before.emulator,
	}
	for _, signer := range signers {
		peak, err := machine.PeakRSS(signer.Process.Pid())
		if err != nil {
			return nil, err
		}
		s.PeakRSS = max(s.PeakRSS, peak)
	}
	s.Found, err = b.compare(ctx, b.unsigned())
	return s, err
}

// compare holds what waits in the queue against what sweeps had to find.
func (b *bench) compare(ctx context.Context, want []harbortest.SyntheticRef) (Found, error) {
	requested, err := b.queue.requested(ctx)
	if err != nil {
		return Found{}, err
	}
	names := make(map[string]bool, len(requested))
	for ref := range requested {
		names[ref.String()] = true
	}
	return compare(names, want), nil
}

// compare counts; the requested are in the form repository@digest.
func compare(requested map[string]bool, want []harbortest.SyntheticRef) Found {
	f := Found{Want: len(want)}
	for _, ref := range want {
		if requested[ref.Repository+"@"+ref.Digest] {
			f.Found++
		}
	}
	f.Others = len(requested) - f.Found
	return f
}

// snapshot is how far the programs are at one moment. Counts of sweeps are sums over the signers.
type snapshot struct {
	at           time.Time
	full, recent int
	// manifests are those that full sweeps have looked at, unsigned those of them that they asked for, or that waited already.
	manifests, unsigned int
	cpu                 time.Duration
	receiver            harness.Usage
	emulator            time.Duration // of CPU
	requests            map[string]int
}

func (b *bench) look(ctx context.Context, signers []*harness.Program) (snapshot, error) {
	s := snapshot{at: time.Now()}
	for _, signer := range signers {
		m, err := b.system.Metrics(ctx, signer)
		if err != nil {
			return s, err
		}
		const sweeps, manifests = "harborseal_sweeps_total", "harborseal_sweep_manifests_total"
		s.full += int(m.Sum(sweeps, `kind="full"`, `outcome="done"`))
		s.recent += int(m.Sum(sweeps, `kind="recent"`, `outcome="done"`))
		s.manifests += int(m.Sum(manifests, `kind="full"`) - m.Sum(manifests, `kind="full"`, `finding="gone"`))
		s.unsigned += int(m.Sum(manifests, `kind="full"`, `finding="requested"`) + m.Sum(manifests, `kind="full"`, `finding="pending"`))
		usage, err := signer.Process.Usage()
		if err != nil {
			return s, err
		}
		s.cpu += usage.CPU
		if bad := m.Sum(sweeps, `outcome="failed"`) + m.Sum(sweeps, `outcome="paused"`); bad > 0 {
			return s, fmt.Errorf("%.0f sweeps of %s have failed or paused", bad, signer.Name)
		}
	}
	stats, err := b.harbor.Stats(ctx)
	if err != nil {
		return s, err
	}
	// What is left out is the emulator's own door, which is this program's.
	maps.DeleteFunc(stats.Requests, func(kind string, _ int) bool { return strings.HasSuffix(kind, " other") })
	s.requests = stats.Requests
	emulator, err := b.emulator.Usage()
	if err != nil {
		return s, err
	}
	s.emulator = emulator.CPU
	s.receiver, err = b.system.Receiver.Process.Usage()
	return s, err
}

// await waits until so many full sweeps have ended well, of which some are new.
func (b *bench) await(ctx context.Context, signers []*harness.Program, full, some int) (snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limitOfSweeps, errors.New("the sweeps took too long"))
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	said := time.Now()
	for {
		now, err := b.look(ctx, signers)
		if err != nil || now.full >= full {
			return now, err
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			b.say("  %d of %d projects", some-full+now.full, some)
		}
		select {
		case <-ctx.Done():
			return now, fmt.Errorf("%d of %d sweeps are done: %w", now.full, full, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

func minus(after, before map[string]int) map[string]int {
	left := map[string]int{}
	for kind, n := range after {
		if n -= before[kind]; n > 0 {
			left[kind] = n
		}
	}
	return left
}
