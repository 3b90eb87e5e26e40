package scale

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/e2e/bench/machine"
	"github.com/harborseal/harborseal/e2e/harness"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// slotOfRecent is the incremental interval of the configuration: sweeps come when this program asks for them, and not between.
const slotOfRecent = time.Hour

// pulls is the share of repositories that something is pulled from in each minute.
const pulls = 0.5

// minutes measures incremental sweeps after minutes with pushes and pulls: by Harbor's feed, then without the right to read it.
func (b *bench) minutes(ctx context.Context, r *Result) error {
	for _, signer := range b.system.Signers[1:] {
		if err := signer.Process.Stop(); err != nil {
			return err
		}
	}
	for _, source := range []string{Feed, Listing} {
		if source == Listing {
			if err := b.harbor.UpdateRobot(ctx, b.site.Signer, harness.SignerRights()); err != nil {
				return err
			}
		}
		for _, pushes := range b.Pushes {
			b.say("an incremental minute with %d pushes, by %s", pushes, source)
			m, err := b.minute(ctx, pushes)
			if err != nil {
				return fmt.Errorf("incremental sweep by %s: %w", source, err)
			}
			m.Source = source
			r.Minutes = append(r.Minutes, m)
		}
	}
	return nil
}

func (b *bench) minute(ctx context.Context, pushes int) (*Minute, error) {
	signers := b.system.Signers[:1]
	if err := b.touch(ctx, pushes, pulls); err != nil {
		return nil, err
	}
	before, err := b.look(ctx, signers)
	if err != nil {
		return nil, err
	}
	b.proposed++
	slot := time.Now().UnixNano()/int64(slotOfRecent) + b.proposed
	if _, err := b.queue.Propose(ctx, reconcile.Recent, "", slot); err != nil {
		return nil, err
	}
	var after snapshot
	err = harness.Until(ctx, limitOfRecent, func(ctx context.Context) error {
		if after, err = b.look(ctx, signers); err == nil && after.recent == before.recent {
			err = errors.New("the sweep has not ended")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	m := &Minute{
		Pushes: pushes, Projects: len(b.made.Projects), Took: after.at.Sub(before.at), Requests: minus(after.requests, before.requests),
		CPU: after.cpu - before.cpu,
	}
	if m.Found, err = b.compare(ctx, b.unsigned()); err != nil {
		return nil, err
	}
	m.PeakRSS, err = machine.PeakRSS(signers[0].Process.Pid())
	return m, err
}
