package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/delivery/yardstick"
	"github.com/harborseal/harborseal/e2e/bench/hooks"
	"github.com/harborseal/harborseal/e2e/bench/machine"
	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

const (
	// incident is what ended the predecessor; hundredfold is a hundred times that.
	incident    = 600
	hundredfold = 100 * incident
	// harborSends is how many deliveries one Harbor has under way at once.
	harborSends = 10
	// unboundedAtOnce is how many connections are open at once without bound: each program may have some thousand open files.
	unboundedAtOnce = 2000
	// harborTries is how often Harbor tries, and triesApart the time between. Harbor itself waits 16 s and more.
	harborTries = 3
	triesApart  = 5 * time.Second
	// publishedAtOnce is how many webhooks the bare loop has in work.
	publishedAtOnce = 64
)

// SurgeResult is what becomes of webhooks that come all at once.
type SurgeResult struct {
	// Bounded come over ten connections, as those of one Harbor, Unbounded each over its own.
	Bounded   *SurgeRun `json:"bounded"`
	Unbounded *SurgeRun `json:"unbounded"`
	// Loop is the bare loop, measured before and after the unbounded surge.
	Loop   yardstick.Loop `json:"loop"`
	Checks target.Checks  `json:"checks"`
}

// SurgeRun is two surges, the small one and a hundred times it, into a system of their own.
type SurgeRun struct {
	AtOnce int          `json:"at_once"`
	Apart  bool         `json:"connection_for_each"`
	Surges []SurgeSizes `json:"surges"`
	// Left is how many webhooks no try brought in: the sweep has to find their digests.
	Left int `json:"left_to_the_sweep"`
	// Digests were in the project in the end, by Harbor's own listing, Unsigned of them without a signature; Dead is the dead
	// letters.
	Digests  int `json:"digests"`
	Unsigned int `json:"unsigned"`
	Dead     int `json:"dead_letters"`
	// Signing is from the signer's start to the last signature.
	Signing time.Duration `json:"signing_ns"`
	// PeakReceiver and PeakSigner are the most memory that was ever resident, in bytes, embedded queue included.
	PeakReceiver int64 `json:"receiver_peak_rss_bytes"`
	PeakSigner   int64 `json:"signer_peak_rss_bytes"`
}

// SurgeSizes is one surge. Tries are the first and, of what was refused, the others.
type SurgeSizes struct {
	Webhooks int             `json:"webhooks"`
	Tries    []hooks.Answers `json:"tries"`
}

// slowest is the slowest answer of all tries.
func (s SurgeSizes) slowest() time.Duration {
	var slowest time.Duration
	for _, try := range s.Tries {
		slowest = max(slowest, try.All.Max)
	}
	return slowest
}

// others counts answers that Harbor would not take for a refusal to try again later.
func (s SurgeSizes) others() int {
	n := 0
	for _, try := range s.Tries {
		n += try.Others()
	}
	return n
}

// Surge measures surges. The signer starts when all has been sent: it takes what it needs of the processors then.
func Surge(ctx context.Context, o Options) (*SurgeResult, error) {
	programs, y, err := o.build(ctx)
	if err != nil {
		return nil, err
	}
	sizes, compared := []int{incident, hundredfold}, 10_000
	if o.Quick {
		sizes, compared = []int{incident / 10, incident}, 500
	}
	if o.Surge > 0 {
		sizes[1] = o.Surge
	}
	r := &SurgeResult{}
	bounded := &SurgeRun{AtOnce: harborSends}
	if err := o.surge(ctx, programs, bounded, sizes); err != nil {
		return nil, err
	}
	r.Bounded = bounded
	before, err := y.Publish(ctx, compared/2, publishedAtOnce)
	if err != nil {
		return nil, err
	}
	r.Unbounded = &SurgeRun{AtOnce: unboundedAtOnce, Apart: true}
	if err := o.surge(ctx, programs, r.Unbounded, sizes); err != nil {
		return nil, err
	}
	after, err := y.Publish(ctx, compared/2, publishedAtOnce)
	if err != nil {
		return nil, err
	}
	r.Loop = before.Join(after)
	r.Judge(o.Quick)
	return r, nil
}

// surge runs surges into a fresh system until all is signed.
func (o Options) surge(ctx context.Context, programs harness.Programs, r *SurgeRun, sizes []int) error {
	content := harbortest.SyntheticConfig{Projects: 1, Repositories: 10, Prefix: "surge", Unsigned: 1, Seed: 1}
	for _, size := range sizes {
		content.Digests += size
	}
	name := "surge"
	if r.Apart {
		name = "surge-unbounded"
	}
	return with(ctx, stage.Options{Dir: o.dir(name), Programs: programs, Progress: o.Progress, Content: content}, func(s *stage.Stage) error {
		b := &surgeBench{Stage: s, project: s.Made.Projects[0], refs: s.Made.Unsigned}
		if err := s.System.StartProgram(ctx, s.System.Receiver); err != nil {
			return err
		}
		from := 0
		for _, size := range sizes {
			s.Say("surge: %d webhooks, %d at once", size, min(size, r.AtOnce))
			sent, err := b.send(ctx, r, upTo(from, from+size))
			if err != nil {
				return err
			}
			from += size
			r.Surges = append(r.Surges, sent)
			r.Left += len(sent.Tries[len(sent.Tries)-1].Left)
		}
		return b.sign(ctx, r)
	})
}

// surgeBench is a running system and the digests of its project.
type surgeBench struct {
	*stage.Stage
	project string
	refs    []harbortest.SyntheticRef
}

// send sends webhooks, and tries again what was refused, as often as Harbor does.
func (b *surgeBench) send(ctx context.Context, r *SurgeRun, webhooks []int) (SurgeSizes, error) {
	sent := SurgeSizes{Webhooks: len(webhooks)}
	to, err := b.Target(b.project)
	if err != nil {
		return sent, err
	}
	for try := range harborTries {
		if try > 0 {
			if err := pause(ctx, triesApart); err != nil {
				return sent, err
			}
		}
		answers, err := hooks.Send(ctx, to, hooks.Order{
			Webhooks: webhooks, AtOnce: r.AtOnce, Apart: r.Apart, Body: func(i int) []byte { return stage.Body(b.refs[i]) },
		})
		if err != nil {
			return sent, err
		}
		sent.Tries = append(sent.Tries, answers)
		b.Say("  try %d: %d of %d accepted, %d to be tried again, %d otherwise; %.0f/s", try+1, answers.Accepted, answers.Sent, answers.Retryable,
			answers.Others(), answers.Rate())
		if webhooks = answers.Left; len(webhooks) == 0 {
			break
		}
	}
	return sent, nil
}

// sign starts the signer and waits until all is signed. Its first sweep finds what no webhook told of.
func (b *surgeBench) sign(ctx context.Context, r *SurgeRun) error {
	b.Say("surge: signing %d digests", len(b.refs))
	begun := time.Now()
	if err := b.System.StartProgram(ctx, b.System.Signers[0]); err != nil {
		return err
	}
	next := len(b.refs) / 4
	err := b.Await(ctx, func(m harness.Metrics) error {
		const sweeps, failures = "harborseal_sweeps_total", "harborseal_signing_failures_total"
		signed := stage.Signed(m)
		if signed >= next {
			b.Say("  %d signed after %s", signed, time.Since(begun).Round(time.Second))
			next += len(b.refs) / 4
		}
		r.Dead, r.Signing = int(m.Sum(failures, `outcome="dead"`)), time.Since(begun)
		switch swept := m.Sum(sweeps, `kind="full"`); {
		case signed+r.Dead < len(b.refs):
			return fmt.Errorf("%d of %d digests are signed", signed, len(b.refs))
		case swept == 0:
			return errors.New("the sweep has not ended")
		case m.InFlight() > 0:
			return errors.New("something is in work")
		default:
			return nil
		}
	})
	if err != nil {
		return err
	}
	if r.PeakReceiver, err = machine.PeakRSS(b.System.Receiver.Process.Pid()); err != nil {
		return err
	}
	if r.PeakSigner, err = machine.PeakRSS(b.System.Signers[0].Process.Pid()); err != nil {
		return err
	}
	r.Digests, r.Unsigned, err = b.Count(ctx, b.project)
	return err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
