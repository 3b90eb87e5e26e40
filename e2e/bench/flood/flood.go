// Package flood measures what others notice when one project floods: the real programs, each a process of its own, with the
// Harbor emulator, in which manifest PUTs of a project take turns and 50 ms each, as in a Harbor whose pushes update the quota
// of their project.
//
// Nine projects push at a steady rate, first alone, and then while 5,000 pushes of a tenth project are under way, all at once.
// Harbor itself reports all of them. What is compared is the time from the end of a push to its signature.
package flood

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/harborseal/harborseal/e2e/bench/stage"
	"github.com/harborseal/harborseal/e2e/bench/target"
	"github.com/harborseal/harborseal/e2e/harness"
)

const (
	// putTakes is how long a manifest PUT takes, one at a time for each project.
	putTakes = 50 * time.Millisecond
	// teams is how many other projects there are, and each pushes so often: less often than its budget of priority is used up.
	teams     = 9
	pushEvery = 250 * time.Millisecond
	// flooder is the project that floods.
	flooder = "flood"
	// begun is how many pushes of the flood have ended when the others are measured.
	begun = 20
	// healLimit is how long the flood may take when it is measured and PUTs are quick again.
	healLimit = 90 * time.Second
)

// Options are what is measured. Dir and Progress are required.
type Options struct {
	// Dir is a folder for the programs and all that they write.
	Dir      string
	Progress io.Writer
	// Quick measures little, and judges no times.
	Quick bool
}

// sizes are how many pushes there are.
type sizes struct {
	flood   int
	samples int // of the others together, in each phase
}

func (o Options) sizes() sizes {
	if o.Quick {
		return sizes{flood: 300, samples: 90}
	}
	return sizes{flood: 5000, samples: 2000 + teams}
}

// Result is all that was measured.
type Result struct {
	// Calm and Flooded are of the others.
	Calm    stage.Times `json:"calm"`
	Flooded stage.Times `json:"flooded"`
	Flood   Flood       `json:"flood"`
	// Stored is how many of the flood Harbor has in the end, by its own listing, Signed how many of them have a signature, and Wait
	// how long that was waited for when PUTs were quick again.
	Stored int           `json:"flood_stored"`
	Signed int           `json:"flood_signed"`
	Wait   time.Duration `json:"flood_wait_ns"`
	Checks target.Checks `json:"checks"`
}

// Flood is how far it was while the others were measured.
type Flood struct {
	Pushes       int `json:"pushes"`
	PushedBefore int `json:"pushed_before"`
	PushedAfter  int `json:"pushed_after"`
	SignedBefore int `json:"signed_before"`
	SignedAfter  int `json:"signed_after"`
}

// Ratio is what the flood makes of the others' p99.
func (r *Result) Ratio() float64 {
	if r.Calm.FromPush.P99 <= 0 {
		return 0
	}
	return float64(r.Flooded.FromPush.P99) / float64(r.Calm.FromPush.P99)
}

// Run measures and judges. Nothing is left running.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	programs, err := harness.Build(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	projects := []string{flooder}
	for i := range teams {
		projects = append(projects, "team-"+strconv.Itoa(i+1))
	}
	s, err := stage.New(ctx, stage.Options{Dir: filepath.Join(o.Dir, "stage-flood"), Programs: programs, Progress: o.Progress, Projects: projects})
	if err != nil {
		return nil, err
	}
	b := &bench{Stage: s, sizes: o.sizes(), teams: projects[1:], client: &http.Client{Transport: &http.Transport{}}}
	defer func() {
		b.client.CloseIdleConnections()
		err = errors.Join(err, s.Stop())
	}()
	r = &Result{Flood: Flood{Pushes: b.flood}}
	if err := b.run(ctx, r); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.System.Tails())
	}
	r.Judge(o.Quick)
	return r, nil
}

// bench is a running system.
type bench struct {
	*stage.Stage
	sizes
	teams  []string
	client *http.Client
	// pushers are those of the teams; own that of the flooder.
	pushers []*pusher
	own     *pusher
	watch   *stage.Watch // of the teams
	flooded *stage.Watch // of the flooder
	pushed  atomic.Int64 // of the flood
}

func (b *bench) run(ctx context.Context, r *Result) error {
	if err := b.start(ctx); err != nil {
		return err
	}
	defer b.watch.Close()
	defer b.flooded.Close()
	if err := b.Harbor.SetFaults(ctx, harness.Faults{ManifestPutLatency: putTakes.String()}); err != nil {
		return err
	}
	b.Say("flood: %d pushes of %d projects, alone", b.samples, teams)
	if err := b.measure(ctx, &r.Calm); err != nil {
		return err
	}
	flooding, cancel := context.WithCancel(ctx)
	defer cancel()
	flood := make(chan error, 1)
	go func() { flood <- b.floodAll(flooding) }()
	// Signatures of the flood wait behind its pushes.
	err := harness.Until(ctx, time.Minute, func(context.Context) error {
		if b.pushed.Load() < begun {
			return errors.New("the flood has not begun")
		}
		return nil
	})
	if err != nil {
		cancel()
		return errors.Join(err, <-flood)
	}
	b.Say("flood: the same while %d pushes of another project are under way", b.flood)
	r.Flood.PushedBefore, r.Flood.SignedBefore = int(b.pushed.Load()), b.flooded.Signed()
	if err := b.measure(ctx, &r.Flooded); err != nil {
		cancel()
		return errors.Join(err, <-flood)
	}
	r.Flood.PushedAfter, r.Flood.SignedAfter = int(b.pushed.Load()), b.flooded.Signed()
	return b.heal(ctx, r, cancel, flood)
}

// heal gives up the pushes that have not ended, lets PUTs be quick again, and waits until what Harbor has of the flood is signed.
func (b *bench) heal(ctx context.Context, r *Result, giveUp func(), flood <-chan error) error {
	b.Say("flood: %d of %d pushed, %d signed; the rest is given up", r.Flood.PushedAfter, b.flood, r.Flood.SignedAfter)
	if err := b.Harbor.SetFaults(ctx, harness.Faults{}); err != nil {
		return err
	}
	giveUp()
	if err := <-flood; err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	begun := time.Now()
	for ; time.Since(begun) < healLimit; r.Wait = time.Since(begun) {
		// Harbor may have gone on with some of them.
		digests, unsigned, err := b.Count(ctx, flooder)
		if err != nil {
			return err
		}
		r.Stored, r.Signed = digests, digests-unsigned
		stats, err := b.Harbor.Stats(ctx)
		if err != nil {
			return err
		}
		if unsigned == 0 && stats.Webhooks.Pending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	return nil
}

// start starts all programs, and Harbor's reports of all pushes.
func (b *bench) start(ctx context.Context) (err error) {
	if err := b.System.Start(ctx); err != nil {
		return err
	}
	err = b.Await(ctx, func(m harness.Metrics) error {
		if swept := int(m.Sum("harborseal_sweeps_total", `kind="full"`)); swept < teams+1 {
			return fmt.Errorf("%d of %d projects are swept", swept, teams+1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, project := range append([]string{flooder}, b.teams...) {
		if _, err := b.System.AddWebhook(ctx, project, "Default"); err != nil {
			return err
		}
		p, err := b.newPusher(ctx, project)
		if err != nil {
			return err
		}
		if project == flooder {
			b.own = p
			continue
		}
		b.pushers = append(b.pushers, p)
	}
	if b.watch, err = b.Watch(b.teams...); err != nil {
		return err
	}
	if b.flooded, err = b.Watch(flooder); err != nil {
		b.watch.Close()
		return err
	}
	// The first image of each project is not counted.
	err = b.Await(ctx, func(m harness.Metrics) error {
		if signed := stage.Signed(m); signed < teams+1 {
			return fmt.Errorf("%d of %d first images are signed", signed, teams+1)
		}
		return nil
	})
	b.watch.Forget()
	b.flooded.Forget()
	return err
}

// measure lets each team push at a steady rate, whether the push before has ended or not, and waits for the signatures.
func (b *bench) measure(ctx context.Context, into *stage.Times) (err error) {
	pushes, pushing := errgroup.WithContext(ctx)
	for i, p := range b.pushers {
		pushes.Go(func() error {
			// They are out of step.
			timer := time.NewTimer(pushEvery * time.Duration(i) / teams)
			defer timer.Stop()
			for range b.samples / teams {
				select {
				case <-pushing.Done():
					return context.Cause(pushing)
				case <-timer.C:
				}
				timer.Reset(pushEvery)
				pushes.Go(func() error {
					digest, err := p.push(pushing)
					b.watch.Pushed(p.repository, digest, time.Now())
					return err
				})
			}
			return nil
		})
	}
	if err := pushes.Wait(); err != nil {
		return err
	}
	*into, err = b.watch.Times(ctx)
	return err
}

// floodAll pushes all of the flood at once.
func (b *bench) floodAll(ctx context.Context) error {
	pushes, ctx := errgroup.WithContext(ctx)
	for range b.flood {
		pushes.Go(func() error {
			_, err := b.own.push(ctx)
			b.pushed.Add(1)
			return err
		})
	}
	return pushes.Wait()
}
