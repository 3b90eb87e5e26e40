package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// injection is a fault that can be put into force and ended.
type injection struct {
	begin, end func(ctx context.Context) error
	// detail says what was broken, for people.
	detail string
	// during, if there is one, runs until ctx ends, which is when the fault does.
	during func(ctx context.Context)
}

// breakFor puts a fault into force for as long as it is planned, and writes it into the journal. It ends it also if the run is
// broken off.
func (w *world) breakFor(ctx context.Context, a plan.Action) {
	fault, err := w.injection(a)
	if err != nil {
		w.say("%s: %v", a.Fault, err)
		return
	}
	step := checker.Step{Kind: checker.StepFault, Began: time.Now(), Fault: string(a.Fault), Project: a.Project, Detail: fault.detail}
	// Other faults may keep it from beginning: it is tried again for a while.
	if err := harness.Until(ctx, patience, fault.begin); err != nil {
		// It does not count, but it may have begun.
		w.say("%s (%s): %v", a.Fault, fault.detail, err)
	} else {
		defer func() { w.journal.write(step) }()
	}
	w.lasting(ctx, fault, time.Duration(a.For))
	if err := harness.Until(context.WithoutCancel(ctx), time.Minute, fault.end); err != nil {
		w.say("ending %s (%s): %v", a.Fault, fault.detail, err)
	}
	step.Ended = time.Now()
}

// lasting waits until a fault is to end.
func (w *world) lasting(ctx context.Context, fault injection, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	if fault.during != nil {
		fault.during(ctx)
	}
	<-ctx.Done()
}

// injection makes what a planned fault means.
func (w *world) injection(a plan.Action) (injection, error) {
	programs := w.programs()
	program := programs[a.Target%len(programs)]
	node := w.nats.Nodes[a.Target%len(w.nats.Nodes)]
	nodes := w.nodes(a.Target)
	switch a.Fault {
	case plan.KillReceiver:
		return w.killing(w.system.Receivers[a.Target%len(w.system.Receivers)]), nil
	case plan.KillSigner:
		return w.killing(w.system.Signers[a.Target%len(w.system.Signers)]), nil
	case plan.KillNATS:
		return w.killingNodes(nodes), nil
	case plan.Reset:
		return w.resetting(a, program, node), nil
	case plan.Partition:
		return w.parting(a, program, node), nil
	case plan.StoreFull:
		return w.filling(), nil
	case plan.DiskFull:
		return w.fillingDisks(nodes)
	case plan.Database:
		return w.locking(w.system.Receivers[a.Target%len(w.system.Receivers)]), nil
	case plan.Clock:
		return w.shifting(program, time.Duration(a.Shift)), nil
	case plan.RekorAway:
		return w.refusing(a), nil
	case plan.Quota:
		return w.crowding(a.Project), nil
	default:
		return w.emulated(a)
	}
}

// nodes picks nodes of the queue: one, two or all.
func (w *world) nodes(target int) []*harness.Node {
	all := w.nats.Nodes
	var picked []*harness.Node
	for i := range 1 + target/len(all)%len(all) {
		picked = append(picked, all[(target+i)%len(all)])
	}
	return picked
}

func names(nodes []*harness.Node) string {
	var all []string
	for _, node := range nodes {
		all = append(all, node.Name)
	}
	return strings.Join(all, " ")
}

func (w *world) killingNodes(nodes []*harness.Node) injection {
	return injection{
		begin: func(context.Context) error {
			var errs []error
			for _, node := range nodes {
				errs = append(errs, w.nats.Kill(node))
			}
			return errors.Join(errs...)
		},
		end:    func(ctx context.Context) error { return w.relaunch(ctx, nodes) },
		detail: names(nodes),
	}
}

// relaunch starts those nodes that do not run.
func (w *world) relaunch(ctx context.Context, nodes []*harness.Node) error {
	var errs []error
	for _, node := range nodes {
		if !node.Running() {
			errs = append(errs, w.nats.Launch(ctx, node))
		}
	}
	return errors.Join(errs...)
}

func (w *world) killing(p *harness.Program) injection {
	return injection{
		begin:  func(context.Context) error { return w.kill(p) },
		end:    func(ctx context.Context) error { return w.launch(ctx, p) },
		detail: p.Name,
	}
}

// resetting breaks connections again and again: they are made anew at once.
func (w *world) resetting(a plan.Action, p *harness.Program, node *harness.Node) injection {
	if a.Target%5 == 4 {
		again := func(context.Context) error { w.system.ResetWebhooks(); return nil }
		return injection{begin: again, end: again, detail: "between Harbor and the receivers"}
	}
	reset, detail := func() {
		for _, proxy := range p.Door.Proxies {
			proxy.Reset()
		}
	}, "between "+p.Name+" and the queue"
	if a.Target%2 == 0 {
		reset, detail = func() {
			for _, other := range w.nats.Nodes {
				if other != node {
					w.nats.Reset(node, other)
				}
			}
		}, "between "+node.Name+" and the others"
	}
	again := func(context.Context) error { reset(); return nil }
	return injection{begin: again, end: again, detail: detail}
}

// parting keeps a node from the others, or a program from the queue; both ends are told, or neither is.
func (w *world) parting(a plan.Action, p *harness.Program, node *harness.Node) injection {
	flow, how := harness.Refuse, "refused"
	if a.Target/2%2 == 0 {
		flow, how = harness.Swallow, "swallowed"
	}
	if a.Target%2 == 0 {
		set := func(flow harness.Flow) func(context.Context) error {
			return func(context.Context) error { w.nats.Isolate(node, flow); return nil }
		}
		return injection{begin: set(flow), end: set(harness.Pass), detail: node.Name + " from the others, " + how}
	}
	set := func(flow harness.Flow) func(context.Context) error {
		return func(context.Context) error { p.Door.Set(flow); return nil }
	}
	return injection{begin: set(flow), end: set(harness.Pass), detail: p.Name + " from the queue, " + how}
}

// shifting moves the clock of a program.
func (w *world) shifting(p *harness.Program, by time.Duration) injection {
	set := func(by time.Duration) func(context.Context) error {
		return func(context.Context) error {
			path := w.clockFile(p)
			if err := os.WriteFile(path+".new", []byte(by.String()), 0o600); err != nil {
				return fmt.Errorf("shifting a clock: %w", err)
			}
			// It may be read at any moment.
			return os.Rename(path+".new", path)
		}
	}
	return injection{begin: set(by), end: set(0), detail: fmt.Sprintf("%s by %s", p.Name, by)}
}

// refusing takes the log away.
func (w *world) refusing(a plan.Action) injection {
	trouble, detail := harness.Trouble{Refuse: true}, "refuses"
	switch a.Target % 3 {
	case 1:
		trouble, detail = harness.Trouble{Hang: true}, "hangs"
	case 2:
		trouble, detail = harness.Trouble{Swallow: true}, "loses its answers"
	}
	set := func(t harness.Trouble) func(context.Context) error {
		return func(ctx context.Context) error { return w.fronts[0].Cause(ctx, t) }
	}
	return injection{begin: set(trouble), end: set(harness.Trouble{}), detail: detail}
}

// crowding leaves a project so little room that an image fits and its signature may not.
func (w *world) crowding(project string) injection {
	const room = 1200
	return injection{
		begin: func(ctx context.Context) error {
			q, err := w.harbor.Quota(ctx, project)
			if err != nil {
				return err
			}
			return w.harbor.SetQuota(ctx, project, q.Used+room)
		},
		end:    func(ctx context.Context) error { return w.harbor.SetQuota(ctx, project, harness.Unlimited) },
		detail: project,
	}
}

// emulated is what the emulator does wrong.
func (w *world) emulated(a plan.Action) (injection, error) {
	route := a.Route
	f := harness.Faults{Route: route, Rate: a.Share}
	switch a.Fault {
	case plan.Unauthorized:
		f.Status = 401
	case plan.Throttled:
		f.Status, f.RetryAfter = 429, "2"
	case plan.Unavailable:
		f.Status, f.RetryAfter = 503, "1"
	case plan.Slow:
		f = harness.Faults{Route: route, Latency: "700ms"}
	case plan.Half:
		f = harness.Faults{Route: route, CutAnswers: a.Share}
	case plan.Cut:
		f = harness.Faults{DropConnections: a.Share}
	case plan.Lost:
		f = harness.Faults{LoseWebhookRate: a.Share}
	case plan.Doubled:
		f = harness.Faults{DoubleWebhookRate: a.Share}
	default:
		return injection{}, errors.New("nobody knows how to do this")
	}
	name := string(a.Fault)
	return injection{
		begin:  func(ctx context.Context) error { return w.harbor.SetFault(ctx, name, f) },
		end:    func(ctx context.Context) error { return w.harbor.SetFault(ctx, name, harness.Faults{}) },
		detail: fmt.Sprintf("%s %.1f", route, a.Share),
	}, nil
}
