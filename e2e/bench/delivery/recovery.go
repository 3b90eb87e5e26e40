package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/machine"
	"github.com/harborseal/harborseal/e2e/bench/quantile"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

const (
	// waitingProjects is among how many projects the waiting requests are divided.
	waitingProjects = 20
	// livePushEvery is how often somebody pushes meanwhile: less often than a project's budget of priority is used up.
	livePushEvery = 250 * time.Millisecond
	// mostOfLivePush is how long a push may take while the others are caught up with.
	mostOfLivePush = time.Second
)

// RecoveryResult is how a signer catches up.
type RecoveryResult struct {
	Waiting int           `json:"waiting"`
	Queued  hooks.Answers `json:"queued"`
	// Ready is from the signer's start to its readiness, Took to the signature of the last of the waiting.
	Ready time.Duration `json:"ready_ns"`
	Took  time.Duration `json:"took_ns"`
	// Calm and Meanwhile are, of pushes into another project, from the webhook to the signature: while nothing waits, and while
	// the signer catches up.
	Calm      quantile.Spread `json:"calm"`
	Meanwhile quantile.Spread `json:"meanwhile"`
	// Unsigned are those of the waiting projects that nothing has signed, by Harbor's listing.
	Unsigned   int           `json:"unsigned"`
	Signer     harness.Usage `json:"signer"` // of catching up
	PeakSigner int64         `json:"signer_peak_rss_bytes"`
	Checks     target.Checks `json:"checks"`
}

// Rate is signatures a second, from the signer's start.
func (r *RecoveryResult) Rate() float64 { return float64(r.Waiting) / max(r.Took.Seconds(), 1e-9) }

// Recovery measures how a signer catches up with what waits for it.
func Recovery(ctx context.Context, o Options) (*RecoveryResult, error) {
	programs, _, err := o.build(ctx)
	if err != nil {
		return nil, err
	}
	r := &RecoveryResult{Waiting: 10_000}
	if o.Quick {
		r.Waiting = 600
	}
	err = with(ctx, stage.Options{
		Dir: o.dir("recovery"), Programs: programs, Progress: o.Progress,
		// More than enough for the waiting projects, which get unequal shares, and another one.
		Content: harbortest.SyntheticConfig{
			Projects: waitingProjects + 1, Repositories: waitingProjects + 1, Digests: r.Waiting * 6 / 5, Prefix: "recovery", Unsigned: 1, Seed: 1,
		},
		Edit: func(options *harness.Options) {
			// The first sweep has nothing to ask for.
			since := "since:" + time.Now().UTC().Format(time.RFC3339)
			options.Policies = []harness.Config{{"projects": options.Enabled, "backfill": since}}
		},
	}, func(s *stage.Stage) error {
		b := &recoveryBench{Stage: s, live: s.Made.Projects[waitingProjects]}
		for _, project := range s.Made.Projects[:waitingProjects] {
			b.waiting = append(b.waiting, s.Unsigned(project)...)
		}
		if len(b.waiting) < r.Waiting {
			return fmt.Errorf("the content has %d digests for %d requests", len(b.waiting), r.Waiting)
		}
		b.waiting = b.waiting[:r.Waiting]
		return b.run(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	r.Judge(o.Quick)
	return r, nil
}

// recoveryBench is a running system.
type recoveryBench struct {
	*stage.Stage
	waiting []harbortest.SyntheticRef
	live    string // a project of which nothing waits
	pushed  int    // of its digests
	watch   *stage.Watch
}

func (b *recoveryBench) run(ctx context.Context, r *RecoveryResult) (err error) {
	if err := b.System.Start(ctx); err != nil {
		return err
	}
	err = b.Await(ctx, func(m harness.Metrics) error {
		if swept := int(m.Sum("harborseal_sweeps_total", `kind="full"`)); swept < len(b.Made.Projects) {
			return fmt.Errorf("%d of %d projects are swept", swept, len(b.Made.Projects))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if b.watch, err = b.Watch(b.live); err != nil {
		return err
	}
	defer b.watch.Close()
	b.Say("recovery: pushes while nothing waits")
	calm, cancel := context.WithTimeout(ctx, 20*livePushEvery)
	defer cancel()
	if err := b.pushUntil(ctx, calm.Done()); err != nil {
		return err
	}
	times, err := b.watch.Times(ctx)
	if err != nil {
		return err
	}
	r.Calm = times.FromPush
	signer := b.System.Signers[0]
	if err := signer.Process.Stop(); err != nil {
		return err
	}
	if r.Queued, err = b.queue(ctx); err != nil {
		return err
	}
	done, err := b.Watch(b.Made.Projects[:waitingProjects]...)
	if err != nil {
		return err
	}
	defer done.Close()
	begun := time.Now()
	if err := b.System.StartProgram(ctx, signer); err != nil {
		return err
	}
	r.Ready = time.Since(begun)
	b.Say("recovery: catching up with %d requests", len(b.waiting))
	if err := b.catchUp(ctx, r, done, begun); err != nil {
		return err
	}
	if r.Signer, err = signer.Process.Usage(); err != nil {
		return err
	}
	if r.PeakSigner, err = machine.PeakRSS(signer.Process.Pid()); err != nil {
		return err
	}
	return b.count(ctx, r)
}

// queue sends the webhooks of what is to wait.
func (b *recoveryBench) queue(ctx context.Context) (all hooks.Answers, err error) {
	b.Say("recovery: queueing %d requests", len(b.waiting))
	byProject := map[string][]int{}
	for i, ref := range b.waiting {
		project := stage.ProjectOf(ref)
		byProject[project] = append(byProject[project], i)
	}
	for project, webhooks := range byProject {
		to, err := b.Target(project)
		if err != nil {
			return all, err
		}
		some, err := hooks.Send(ctx, to, hooks.Order{
			Webhooks: webhooks, AtOnce: harborSends, Body: func(i int) []byte { return stage.Body(b.waiting[i]) },
		})
		if err != nil {
			return all, err
		}
		all = all.Join(some)
	}
	if all.Accepted != len(b.waiting) {
		return all, fmt.Errorf("%d of %d webhooks are accepted: %v", all.Accepted, len(b.waiting), all.Broken)
	}
	return all, nil
}

// catchUp waits for the waiting, while somebody pushes into another project.
func (b *recoveryBench) catchUp(ctx context.Context, r *RecoveryResult, done *stage.Watch, begun time.Time) error {
	caughtUp := make(chan struct{})
	pushing := make(chan error, 1)
	go func() { pushing <- b.pushUntil(ctx, caughtUp) }()
	err := b.Await(ctx, func(harness.Metrics) error {
		if signed := done.Signed(); signed < len(b.waiting) {
			return fmt.Errorf("%d of %d requests are done", signed, len(b.waiting))
		}
		return nil
	})
	r.Took = time.Since(begun)
	close(caughtUp)
	if err := errors.Join(err, <-pushing); err != nil {
		return err
	}
	times, err := b.watch.Times(ctx)
	r.Meanwhile = times.FromPush
	return err
}

// pushUntil pushes into the live project at a steady rate until it is told to end.
func (b *recoveryBench) pushUntil(ctx context.Context, end <-chan struct{}) error {
	to, err := b.Target(b.live)
	if err != nil {
		return err
	}
	refs := b.Unsigned(b.live)
	ticker := time.NewTicker(livePushEvery)
	defer ticker.Stop()
	pushes, ctx := errgroup.WithContext(ctx)
	for ended := false; b.pushed < len(refs) && !ended; {
		ref := refs[b.pushed]
		b.pushed++
		b.watch.Pushed(ref.Repository, ref.Digest, time.Now())
		pushes.Go(func() error {
			answers, err := hooks.Send(ctx, to, hooks.Order{Webhooks: []int{0}, AtOnce: 1, Body: func(int) []byte { return stage.Body(ref) }})
			if err == nil && answers.Accepted == 0 {
				err = fmt.Errorf("a push was not accepted: %d to be tried again, %v", answers.Retryable, answers.Broken)
			}
			return err
		})
		select {
		case <-ctx.Done():
			ended = true
		case <-end:
			ended = true
		case <-ticker.C:
		}
	}
	return pushes.Wait()
}

// count asks Harbor what is signed of the waiting.
func (b *recoveryBench) count(ctx context.Context, r *RecoveryResult) error {
	waiting := map[string]int{}
	for _, ref := range b.waiting {
		waiting[stage.ProjectOf(ref)]++
	}
	for project, n := range waiting {
		digests, unsigned, err := b.Count(ctx, project)
		if err != nil {
			return err
		}
		// Nobody has asked for the rest of the last project.
		r.Unsigned += unsigned - (digests - n)
	}
	return nil
}

// Judge holds it against the targets; without times where they say nothing.
func (r *RecoveryResult) Judge(quick bool) {
	r.Checks = nil
	r.Checks.Add("signed in the end", fmt.Sprintf("all %d", r.Waiting), r.Unsigned == 0, "%d", r.Waiting-r.Unsigned)
	if !quick {
		r.Checks.Add("push meanwhile, p99", "at most "+mostOfLivePush.String(), r.Meanwhile.Count > 0 && r.Meanwhile.P99 <= mostOfLivePush,
			"%s of %d", r.Meanwhile.P99.Round(time.Millisecond), r.Meanwhile.Count)
	}
}

// Missed says whether a target was missed.
func (r *RecoveryResult) Missed() bool { return r.Checks.Missed() }

// Print writes the table.
func (r *RecoveryResult) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "recovery: waiting	queued/s	signer ready after	empty after	signed/s	signer's CPU, ms each	its peak RSS, MiB	")
	_, _ = fmt.Fprintf(w, "%d	%.0f	%s	%s	%.0f	%.2f	%.0f	\n", r.Waiting, r.Queued.Rate(), r.Ready.Round(time.Millisecond),
		r.Took.Round(time.Second/10), r.Rate(), float64(r.Signer.CPU.Microseconds())/1000/float64(max(1, r.Waiting)), mebibytes(r.PeakSigner))
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	_, err := fmt.Fprintf(out, "A push into another project, from webhook to signature, p50 / p99 / max: %s while nothing waits (%d pushes), %s while the signer\n"+
		"catches up (%d pushes, one every %s). The waiting are of %d projects.\n", r.Calm, r.Calm.Count, r.Meanwhile, r.Meanwhile.Count, livePushEvery, waitingProjects)
	if err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return r.Checks.Print(out)
}
