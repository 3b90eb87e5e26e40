package keylog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// change is what is to be recorded of one key.
type change struct {
	kind   artifact.Kind
	key    Key
	number int // of the key's events
	detail string
}

// compare gives what is recorded of the keys from now on, and what has changed.
func compare(before map[string]entry, keys []Key) (map[string]entry, []change) {
	after := make(map[string]entry, len(keys))
	maps.Copy(after, before)
	var changes []change
	configured := map[string]bool{}
	for _, k := range keys {
		configured[k.ID] = true
		was, known := before[k.ID]
		if known && was.State == k.State {
			after[k.ID] = entry{Name: k.Name, State: k.State, Changes: was.Changes}
			continue
		}
		after[k.ID] = entry{Name: k.Name, State: k.State, Changes: was.Changes + 1}
		changes = append(changes, change{kind: kindOf(was.State, k.State), key: k, number: was.Changes + 1})
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		was := before[id]
		// A key that is revoked stays so, wherever it is written.
		if configured[id] || was.State == gone || was.State == Revoked {
			continue
		}
		after[id] = entry{Name: was.Name, State: gone, Changes: was.Changes + 1}
		changes = append(changes, change{
			kind: artifact.KeyRetired, key: Key{ID: id, Name: was.Name, State: Retired}, number: was.Changes + 1,
			detail: "it is no longer in the configuration: what it signed counts no more",
		})
	}
	return after, changes
}

// kindOf says what it is that a key comes from one state to another; from none if it is new.
func kindOf(before, now string) artifact.Kind {
	switch {
	case now == Revoked:
		return artifact.KeyRevoked
	case now == Retired && before == Active:
		return artifact.KeyRetired
	default:
		return artifact.KeyAdded // it signs, or what it signed counts, which was not so before
	}
}

func (j *Journal) record(ctx context.Context, c change, now time.Time) error {
	if _, err := j.cfg.Recorder.Record(ctx, eventOf(c, UseImage, j.cfg.Actor, now)); err != nil {
		return fmt.Errorf("recording a key: %w", err)
	}
	j.cfg.Logger.Info().Str("key", c.key.Name).Str("key_id", c.key.ID).Str("outcome", string(c.kind)).Msg("the keys have changed")
	return nil
}

// eventOf has the same id whoever finds the change.
func eventOf(c change, use, actor string, now time.Time) artifact.Event {
	id := artifact.EventID(c.kind, artifact.Ref{}, use, c.key.ID, c.key.State, strconv.Itoa(c.number))
	return artifact.Event{
		ID: id, Kind: c.kind, Time: now, Actor: actor, Origin: artifact.OriginConfig, CorrelationID: id, Detail: c.detail,
		Key: &artifact.KeyRecord{ID: c.key.ID, Name: c.key.Name, Use: use, State: c.key.State},
	}
}

// Declare records keys of a use of which nothing else is kept: each in its state, once, as long as the ledger holds the event. It is
// for programs that may not keep a state, such as receivers with the key of their checkpoints ([UseLedger]): the one that signs is
// Active, those that only verify are Retired. It may be repeated at each start.
func Declare(ctx context.Context, recorder Recorder, actor, use string, keys []Key) error {
	if err := check(keys); err != nil {
		return err
	}
	now := time.Now().UTC()
	for _, k := range keys {
		before := ""
		if k.State == Retired {
			before = Active
		}
		if _, err := recorder.Record(ctx, eventOf(change{kind: kindOf(before, k.State), key: k, number: 1}, use, actor, now)); err != nil {
			return fmt.Errorf("recording a key: %w", err)
		}
	}
	return nil
}
