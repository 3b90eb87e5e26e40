package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// still is how long nothing may happen before the system counts as calm.
const still = 3 * time.Second

// calm mends everything, sets the policies to what they were in the beginning, and waits until the system has come to rest: twice,
// with a sweep that somebody asks for in between, because what webhooks have missed and what was given up is found by sweeps.
func (w *world) calm(ctx context.Context, limit time.Duration) error {
	step := checker.Step{Kind: checker.StepCalm, Began: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := w.heal(ctx); err != nil {
		return fmt.Errorf("mending everything: %w", err)
	}
	w.say("everything is mended")
	if err := w.rest(ctx, limit); err != nil {
		return err
	}
	w.say("at rest; asking for sweeps")
	w.journal.write(checker.Step{Kind: checker.StepSweep, Began: time.Now()})
	if err := w.sweep(ctx, limit); err != nil {
		return err
	}
	if err := w.rest(ctx, limit); err != nil {
		return err
	}
	step.Ended = time.Now()
	w.journal.write(step)
	w.say("calm after %s", step.Ended.Sub(step.Began).Round(time.Second/10))
	return nil
}

// heal ends all faults, those too that could not be ended in time, and waits until every program is ready.
func (w *world) heal(ctx context.Context) error {
	if err := w.ended(); err != nil {
		return err
	}
	w.nats.Heal()
	for _, v := range w.nats.Volumes() {
		if err := v.Empty(); err != nil {
			return err
		}
	}
	if err := w.relaunch(ctx, w.nats.Nodes); err != nil {
		return err
	}
	errs := []error{
		w.nats.AwaitHealthy(ctx), w.harbor.SetFaults(ctx, harness.Faults{}), w.harbor.SetQuota(ctx, plan.CrowdedProject, harness.Unlimited),
		w.fronts[0].Cause(ctx, harness.Trouble{}), w.nats.Empty(ctx),
	}
	for _, p := range w.programs() {
		errs = append(errs, w.shifting(p, 0).end(ctx))
		if !p.Process.Running() {
			errs = append(errs, w.launch(ctx, p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range w.programs() {
		if err := w.system.AwaitReady(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range plan.Projects() {
		if p.AtLast() == nil {
			continue
		}
		if err := w.insist(ctx, p.Name, *p.AtLast()); err != nil {
			return err
		}
	}
	return nil
}

// rest waits until nothing waits, nothing is in work, and nothing was recorded for some seconds.
func (w *world) rest(ctx context.Context, limit time.Duration) error {
	js, done, err := w.queue()
	if err != nil {
		return err
	}
	defer done()
	var last uint64
	since, told := time.Now(), time.Now()
	err = harness.Until(ctx, limit, func(ctx context.Context) error {
		events, err := w.busy(ctx, js)
		if events != last || err != nil {
			last, since = events, time.Now()
		}
		if err == nil && time.Since(since) < still {
			err = fmt.Errorf("something was recorded %s ago", time.Since(since).Round(time.Second/10))
		}
		if err != nil && time.Since(told) > 10*time.Second {
			told = time.Now()
			w.say("waiting: %v", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("calm does not return: %w", err)
	}
	return nil
}

// busy says what is still going on, and how many events there are.
func (w *world) busy(ctx context.Context, js jetstream.JetStream) (events uint64, err error) {
	stats, err := w.harbor.Stats(ctx)
	if err != nil {
		return 0, err
	}
	if stats.Webhooks.Pending > 0 {
		return 0, fmt.Errorf("%d webhooks wait", stats.Webhooks.Pending)
	}
	for _, name := range []string{"SIGN", "DEBT", "LEDGER"} {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return 0, fmt.Errorf("asking for %s: %w", name, err)
		}
		state := stream.CachedInfo().State
		if name == "LEDGER" {
			events = state.LastSeq
			continue
		}
		if state.Msgs > 0 {
			return 0, fmt.Errorf("%d messages wait in %s", state.Msgs, name)
		}
	}
	for _, p := range w.programs() {
		m, err := w.system.Metrics(ctx, p)
		if err != nil {
			return 0, err
		}
		if n := m.InFlight(); n > 0 {
			return 0, fmt.Errorf("%s has %v requests in work", p.Name, n)
		}
		if n := m.Sum("harborseal_ledger_lag_events"); n > 0 {
			return 0, fmt.Errorf("%s has not read %v events", p.Name, n)
		}
	}
	return events, nil
}

// sweep asks for a full sweep of each project that is enabled, and waits for its end.
func (w *world) sweep(ctx context.Context, limit time.Duration) error {
	for _, p := range plan.Projects() {
		if last := p.AtLast(); last == nil || last.Mode == "off" {
			continue
		}
		asked := time.Now()
		path := "/api/v1/projects/" + p.Name
		if err := harness.Until(ctx, limit, func(ctx context.Context) error {
			answer, err := w.system.Call(ctx, w.harbor.Admin(), http.MethodPost, path+"/sweep", nil, nil)
			if err == nil && answer.Status != http.StatusAccepted {
				err = fmt.Errorf("asking for a sweep of %s: the answer is %d: %.300s", p.Name, answer.Status, answer.Body)
			}
			return err
		}); err != nil {
			return err
		}
		if err := harness.Until(ctx, limit, func(ctx context.Context) error { return w.swept(ctx, path, asked) }); err != nil {
			return err
		}
	}
	return nil
}

// swept says whether the last full sweep of a project began after a time.
func (w *world) swept(ctx context.Context, path string, asked time.Time) error {
	answer, err := w.system.Call(ctx, w.harbor.Admin(), http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	var state struct {
		Coverage struct {
			LastSweep *struct {
				StartedAt time.Time `json:"started_at"`
			} `json:"last_sweep"`
		} `json:"coverage"`
	}
	if err := json.Unmarshal(answer.Body, &state); err != nil {
		return fmt.Errorf("reading the state of %s: %w", path, err)
	}
	if last := state.Coverage.LastSweep; last == nil || last.StartedAt.Before(asked.Truncate(time.Second)) {
		return fmt.Errorf("%s was not swept since %s", path, asked.Format(time.TimeOnly))
	}
	return nil
}
