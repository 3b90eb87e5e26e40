package notary

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Why an epoch was opened: the reasons of epoch_opened events. A reason is added, never renamed.
const (
	// FirstStart: there was no checkpoint anywhere.
	FirstStart = "first_start"
	// AfterRestore: a backup was restored.
	AfterRestore = "restored"
	// AfterRollback: a checkpoint is known of more events than the ledger has, and nobody has recorded a restore.
	AfterRollback = "rolled_back"
	// BaseLost: the events from which to go on have expired, and no checkpoint is left.
	BaseLost = "base_lost"
)

// Tick makes what is due in this slot of time: it records findings, and a checkpoint or the opening of an epoch. Several receivers
// may do it at the same time: the ledger keeps the first of one slot.
//
// A crash before the event is recorded costs the checkpoint of the slot; one behind it nothing, because a checkpoint counts when it
// is met in the ledger. An error is that of the ledger.
func (n *Notary) Tick(ctx context.Context) error {
	event, due, err := n.due()
	if recordErr := n.recordFindings(ctx); err == nil {
		err = recordErr
	}
	if err != nil || !due {
		return err
	}
	if _, err := n.cfg.Ledger.Record(ctx, event); err != nil {
		return fmt.Errorf("recording a checkpoint: %w", err)
	}
	return nil
}

// due decides what is to be recorded.
func (n *Notary) due() (event artifact.Event, due bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.follower
	if f == nil || !f.caughtUp() && len(f.chain.ahead) < maxAhead/2 {
		return artifact.Event{}, false, nil
	}
	c, now := &f.chain, n.cfg.Now()
	if c.restored > 0 {
		event, err = n.newEpoch(f, AfterRestore, now)
		return event, err == nil, err
	}
	head, err := c.head()
	n.summary.Halted = f.halted
	if err != nil || f.halted {
		return artifact.Event{}, false, err
	}
	if reason := n.epochDue(f); reason != "" {
		event, err = n.newEpoch(f, reason, now)
		return event, err == nil, err
	}
	if head == nil || head.size() == 0 || f.newest <= c.last.LastSeq && now.Sub(f.at) < idleInterval {
		return artifact.Event{}, false, nil
	}
	record, err := newRecord(n.cfg.Key, c.epoch, head)
	if err != nil {
		return artifact.Event{}, false, err
	}
	slot := strconv.FormatInt(now.UnixNano()/int64(n.cfg.Interval), 10)
	id := n.cfg.Key.eventID(artifact.Checkpointed, strconv.FormatUint(c.epoch, 10), n.cfg.Interval.String(), slot)
	return artifact.Event{
		ID: id, Kind: artifact.Checkpointed, Time: now.UTC(), Actor: artifact.Self, Origin: artifact.OriginProbe, CorrelationID: id, Checkpoint: &record,
	}, true, nil
}

// epochDue says why a new epoch has to be opened, empty if not. All events have been read.
func (n *Notary) epochDue(f *follower) string {
	c := &f.chain
	switch {
	case !f.caughtUp():
		return ""
	case len(c.known) > 0:
		n.found(rolledBack(c.known[len(c.known)-1], c.position))
		return AfterRollback
	case c.epoch == 0:
		return FirstStart
	case c.base == nil:
		return BaseLost
	default:
		return ""
	}
}

// rolledBack is the finding that a checkpoint is known of events that are not there.
func rolledBack(k Known, position uint64) Finding {
	from := min(position+1, k.Record.LastSeq)
	return Finding{RolledBack, k.Record.Epoch, from, k.Record.LastSeq, fmt.Sprintf(
		"%s has a checkpoint of %d events up to %d, which the ledger does not have", k.Source, k.Record.Size, k.Record.LastSeq)}
}

// newEpoch makes the event that opens the next epoch. Its log begins behind the last checkpoint that fits what is there.
func (n *Notary) newEpoch(f *follower, reason string, now time.Time) (artifact.Event, error) {
	c := &f.chain
	r := artifact.EpochRecord{Epoch: c.epoch + 1, First: c.covers, Stream: f.created.UTC(), Previous: c.last.Note}
	if c.base != nil {
		r.First = c.base.lastSeq + 1
	}
	if i := len(c.known) - 1; i >= 0 {
		r.Epoch, r.Previous = max(r.Epoch, c.known[i].Record.Epoch+1), c.known[i].Record.Note
	}
	var err error
	if r.Note, err = signNote(n.cfg.Key, epochText(n.cfg.Key.Name(), reason, r)); err != nil {
		return artifact.Event{}, err
	}
	id := n.cfg.Key.eventID(artifact.EpochOpened, strconv.FormatUint(r.Epoch, 10))
	return artifact.Event{
		ID: id, Kind: artifact.EpochOpened, Time: now.UTC(), Actor: artifact.Self, Origin: artifact.OriginProbe, CorrelationID: id, Reason: reason, Epoch: &r,
	}, nil
}
