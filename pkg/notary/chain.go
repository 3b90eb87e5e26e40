package notary

import (
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// trailSize is how many leaves are remembered behind the newest checkpoint: for an epoch that begins before it, because another
// receiver made a checkpoint meanwhile.
const trailSize = 16 << 10

// Known is a checkpoint that is known from elsewhere than the stream.
type Known struct {
	Record artifact.CheckpointRecord
	// Source says where from, for people.
	Source string
}

// chain follows the events of a ledger and compares them with the checkpoints among them, and with those that are known from
// elsewhere. It belongs to one goroutine, or to whoever holds the mutex of its owner.
type chain struct {
	keys *Keys
	// epoch is the current one, 0 before the first is met. base is the tree at its newest verified checkpoint: nil while there is
	// none from which to go on. last is that checkpoint; its Note is empty in an epoch that has none.
	epoch uint64
	base  *tree
	last  artifact.CheckpointRecord
	// ahead are the leaves behind base, trail those before: all leaves from sequence covers on are in one of them.
	ahead, trail []Leaf
	covers       uint64
	// restored is the sequence of a restored event that no epoch has answered.
	restored uint64
	position uint64
	// known are checkpoints from elsewhere that have not been compared, by epoch and size. left are those of epochs that ended before
	// they were met, unused counts those whose events have expired.
	known, left []Known
	unused      int

	// found is told what does not fit. verified is told each checkpoint that does, with the tree before it and the leaves between:
	// a nil tree for one that is taken as the base. What comes after a mismatch follows nothing. opened is told each epoch.
	found    func(Finding)
	verified func(r artifact.CheckpointRecord, from *tree, leaves []Leaf)
	opened   func(seq uint64, reason string, r artifact.EpochRecord)
}

// add takes the next event.
func (c *chain) add(e artifact.Entry) {
	c.position = e.Seq
	c.ahead = append(c.ahead, leafOf(e))
	switch e.Event.Kind {
	case artifact.Checkpointed:
		c.meetCheckpoint(e)
	case artifact.EpochOpened:
		c.meetEpoch(e)
	case artifact.Restored:
		c.restored = e.Seq
	default:
	}
}

func (c *chain) meetEpoch(e artifact.Entry) {
	if e.Event.Epoch == nil {
		return // A newer program's, or nobody's: it is a leaf like others.
	}
	r := *e.Event.Epoch
	if err := openEpoch(c.keys, e.Event.Reason, r); err != nil {
		c.found(Finding{BadSignature, r.Epoch, e.Seq, e.Seq, err.Error()})
		return
	}
	if r.Epoch <= c.epoch || r.First > e.Seq {
		return
	}
	all := slices.Concat(c.trail, c.ahead)
	first, _ := slices.BinarySearchFunc(all, r.First, func(l Leaf, seq uint64) int { return compareSeq(l.Seq, seq) })
	c.enter(r.Epoch)
	c.ahead, c.trail = slices.Clone(all[first:]), nil
	if r.First >= c.covers {
		c.base = emptyTree(r.First - 1)
	}
	if e.Seq > c.restored {
		c.restored = 0
	}
	if c.opened != nil {
		c.opened(e.Seq, e.Event.Reason, r)
	}
}

func compareSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

func (c *chain) meetCheckpoint(e artifact.Entry) {
	if e.Event.Checkpoint == nil {
		return // As above.
	}
	r := *e.Event.Checkpoint
	signed, at, err := openRecord(c.keys, r)
	if err == nil && r.LastSeq >= e.Seq {
		c.found(Finding{
			Removed, r.Epoch, min(c.oldest(), e.Seq), e.Seq,
			fmt.Sprintf("the checkpoint here covers events up to %d, which were in front of it", r.LastSeq),
		})
		return
	}
	if err != nil {
		c.found(Finding{BadSignature, r.Epoch, e.Seq, e.Seq, err.Error()})
		return
	}
	switch {
	case r.Epoch < c.epoch:
		return // Of a receiver that had not heard of the new epoch yet.
	case r.Epoch > c.epoch:
		if c.epoch > 0 {
			c.found(Finding{Removed, r.Epoch, c.oldest(), e.Seq, fmt.Sprintf("the event that opened epoch %d is not there", r.Epoch)})
		}
		c.enter(r.Epoch)
	}
	switch {
	case c.base == nil:
		if c.covers <= 1 { // Nothing has expired.
			c.found(Finding{Removed, r.Epoch, 1, e.Seq, fmt.Sprintf("the event that opened epoch %d is not there, or not as it was", r.Epoch)})
		}
		c.rebase(r, at)
		c.dropKnown(r.Size)
		c.report(r, nil, nil)
	case r.Size >= c.base.size():
		c.compare(r, signed, at)
	default: // Older than one that was verified already, of a receiver that was behind.
	}
}

// oldest is the first sequence that no checkpoint covers.
func (c *chain) oldest() uint64 {
	if len(c.ahead) > 0 {
		return c.ahead[0].Seq
	}
	return c.position
}

// compare checks a checkpoint against the events before it.
func (c *chain) compare(r artifact.CheckpointRecord, signed Checkpoint, at *tree) {
	from := c.base.clone()
	want := r.Size - from.size()
	have := c.countTo(r.LastSeq)
	covered := c.ahead[:have]
	next, err := c.extend(covered)
	fits := err == nil && uint64(len(covered)) == want
	if fits {
		root, rootErr := next.root()
		fits = rootErr == nil && root == signed.Root && (r.Size == 0 || next.lastSeq == r.LastSeq)
	}
	if !fits {
		c.found(mismatch(r, from, want, uint64(len(covered))))
	}
	covered = slices.Clone(covered)
	c.rebase(r, at)
	if fits {
		c.report(r, from, covered)
	}
}

func mismatch(r artifact.CheckpointRecord, from *tree, want, have uint64) Finding {
	f := Finding{Mismatch, r.Epoch, from.lastSeq + 1, max(r.LastSeq, from.lastSeq+1), "these are not the events that the checkpoint covers"}
	switch {
	case have < want:
		f.Kind, f.Detail = Removed, fmt.Sprintf("the checkpoint covers %d events, %d are there", want, have)
	case have > want:
		f.Kind, f.Detail = Inserted, fmt.Sprintf("the checkpoint covers %d events, %d are there", want, have)
	}
	return f
}

// countTo says how many of the leaves ahead have a sequence up to one.
func (c *chain) countTo(seq uint64) int {
	n, found := slices.BinarySearchFunc(c.ahead, seq, func(l Leaf, seq uint64) int { return compareSeq(l.Seq, seq) })
	if found {
		n++
	}
	return n
}

// extend gives the tree behind base with more leaves, and compares it with what is known on the way.
func (c *chain) extend(leaves []Leaf) (*tree, error) {
	t := c.base.clone()
	c.checkKnown(t)
	for _, l := range leaves {
		if err := t.add(l, nil); err != nil {
			return nil, fmt.Errorf("appending to the tree: %w", err)
		}
		c.checkKnown(t)
	}
	return t, nil
}

// checkKnown compares a tree with what is known of its size. What was compared is not compared again.
func (c *chain) checkKnown(t *tree) {
	for len(c.known) > 0 && c.known[0].Record.Epoch == c.epoch && c.known[0].Record.Size <= t.size() {
		k := c.known[0]
		c.known = c.known[1:]
		if k.Record.Size < t.size() {
			c.unused++
			continue
		}
		signed, err := OpenCheckpoint(c.keys, k.Record.Note)
		if root, rootErr := t.root(); err != nil || rootErr != nil || root != signed.Root {
			last := max(t.lastSeq, 1)
			c.found(Finding{
				Mismatch, c.epoch, min(c.base.lastSeq+1, last), last,
				"these are not the events that the checkpoint of " + k.Source + " covers",
			})
		}
	}
}

// enter begins an epoch. What is known of those before, and was not met, will never be.
func (c *chain) enter(epoch uint64) {
	n, _ := slices.BinarySearchFunc(c.known, epoch, func(k Known, epoch uint64) int { return compareSeq(k.Record.Epoch, epoch) })
	if c.epoch == 0 {
		c.unused += n // The events of those epochs have expired.
	} else {
		c.left = append(c.left, c.known[:n]...)
	}
	c.known = c.known[n:]
	c.epoch, c.last, c.base = epoch, artifact.CheckpointRecord{}, nil
}

// dropKnown forgets what is known of the events before a base.
func (c *chain) dropKnown(size uint64) {
	c.known = slices.DeleteFunc(c.known, func(k Known) bool {
		drop := k.Record.Epoch == c.epoch && k.Record.Size < size
		if drop {
			c.unused++
		}
		return drop
	})
}

// rebase goes on from a checkpoint.
func (c *chain) rebase(r artifact.CheckpointRecord, at *tree) {
	n := c.countTo(r.LastSeq)
	c.trail = append(c.trail, c.ahead[:n]...)
	c.ahead = slices.Clone(c.ahead[n:])
	if drop := len(c.trail) - trailSize; drop > trailSize { // not each time
		c.covers = c.trail[drop].Seq
		c.trail = slices.Clone(c.trail[drop:])
	}
	c.base, c.last = at, r
	if r.Size == 0 && len(c.ahead) > 0 {
		at.lastSeq = c.ahead[0].Seq - 1
	}
}

func (c *chain) report(r artifact.CheckpointRecord, from *tree, leaves []Leaf) {
	if c.verified != nil {
		c.verified(r, from, leaves)
	}
}

// head is the tree with all events: nil where there is no base.
func (c *chain) head() (*tree, error) {
	if c.base == nil {
		return nil, nil //nolint:nilnil // the pointer says that there is none
	}
	return c.extend(c.ahead)
}
