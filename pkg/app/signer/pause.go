package signer

import (
	"context"
	"maps"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
)

// PauseChange is what [SetPause] has found and done.
type PauseChange struct {
	// Before and After are the pause that was asked for; zero values if there was never one.
	Before, After policy.Pause
	// Others are the other pauses that stand, by project; the empty name stands for all.
	Others map[string]policy.Pause
}

// Changed says whether anything is otherwise than before.
func (c PauseChange) Changed() bool { return c.Before != c.After }

// SetPause stops signing everywhere, or lets it go on, for a project or, without a name, for all. It needs the queue alone:
// neither a receiver nor Harbor has to be there. Signers obey as soon as they see it, which is at once where they are
// connected. It is safe to repeat.
func SetPause(ctx context.Context, cfg *config.Signer, actor enroll.Actor, project string, paused bool, reason string) (PauseChange, error) {
	client, err := dialQueue(ctx, cfg, dialerOf(cfg), "signer-pause")
	if err != nil {
		return PauseChange{}, err
	}
	defer client.Close()
	before, err := pauses(ctx, client)
	if err != nil {
		return PauseChange{}, err
	}
	if err := enroll.SetPause(ctx, client, actor, project, paused, reason); err != nil {
		return PauseChange{}, err
	}
	after, err := pauses(ctx, client)
	if err != nil {
		return PauseChange{}, err
	}
	change := PauseChange{Before: before[project], After: after[project], Others: after}
	maps.DeleteFunc(change.Others, func(name string, p policy.Pause) bool { return name == project || !p.Paused })
	return change, nil
}

// pauses gives all entries about pauses, those that were lifted too. One that cannot be read stands: it may say that nothing
// is to be signed.
func pauses(ctx context.Context, client *queue.Client) (map[string]policy.Pause, error) {
	found := map[string]policy.Pause{}
	err := readPolicies(ctx, client, func(e book.Entry) {
		if e.Kind != book.Pause || len(e.Value) == 0 {
			return
		}
		p, err := policy.DecodePause(e.Value)
		if err != nil {
			p = policy.Pause{Paused: true, Reason: "the entry cannot be read: " + err.Error(), At: e.At}
		}
		found[e.Project] = p
	})
	return found, err
}
