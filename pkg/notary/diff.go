package notary

import (
	"context"
	"fmt"
	"slices"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// window is how far the diff looks ahead for where an event has gone. What was moved further is removed here and inserted there.
const window = 64

// diff compares the events with the leaves that are stored, and says what became of which. It belongs to one goroutine.
//
// The leaves count only if they are those of a signed checkpoint: whoever can write the database could else make findings.
type diff struct {
	keys  *Keys
	store Store
	logs  []Log
	first uint64 // leaves before it have expired

	// The leaves that were read: those of logs[0] from seq next on come then. at is the tree of them.
	next    uint64
	at      *tree
	leaves  []storedLeaf
	entries []artifact.Entry

	compared uint64
	findings []Finding
	// spoiled are epochs whose leaves are not those of their checkpoint.
	spoiled map[uint64]bool
	notes   []string
	// covered are the sequences that are stored, log by log: what is in none of them is not compared.
	covered []span
}

// storedLeaf is a leaf of the log of an epoch.
type storedLeaf struct {
	Leaf
	epoch uint64
}

// span are the sequences behind one up to another.
type span struct{ after, to uint64 }

func newDiff(keys *Keys, store Store, logs []Log, first uint64) *diff {
	d := &diff{keys: keys, store: store, logs: logs, first: first, spoiled: map[uint64]bool{}}
	for _, l := range logs {
		d.covered = append(d.covered, span{l.BaseSeq, l.LastSeq})
	}
	return d
}

// limit is the sequence up to which the leaves of the present log count: a log that was followed by another, of a ledger that had
// gone back, may have more.
func (d *diff) limit() uint64 {
	if len(d.logs) > 1 {
		return min(d.logs[0].LastSeq, d.logs[1].BaseSeq)
	}
	return d.logs[0].LastSeq
}

// opened is told that an epoch begins: what the logs before it have from there on was of a ledger that had gone back.
func (d *diff) opened(epoch, first uint64) {
	d.findings = slices.DeleteFunc(d.findings, func(f Finding) bool { return f.Epoch < epoch && f.From >= first })
	d.leaves = slices.DeleteFunc(d.leaves, func(l storedLeaf) bool { return l.epoch < epoch && l.Seq >= first })
}

// fill reads leaves until there are enough to look ahead, or no more.
func (d *diff) fill(ctx context.Context) error {
	for len(d.leaves) <= window && len(d.logs) > 0 {
		log := d.logs[0]
		if d.at == nil {
			at, err := treeAt(log.BaseSize, log.BaseSeq, log.BaseFrontier)
			if err != nil {
				d.spoil(log)
				continue
			}
			d.at, d.next = at, log.BaseSeq+1
		}
		tile, found, err := d.store.TileBehind(ctx, log.Epoch, d.next)
		if err != nil {
			return err
		}
		_, leaves := tile.leaves()
		took := false
		for _, l := range leaves {
			if l.Seq < d.next || d.at.size() == log.Size {
				continue
			}
			took = true
			d.next = l.Seq + 1
			if err := d.at.add(l, nil); err != nil {
				return err
			}
			if l.Seq >= d.first && l.Seq <= d.limit() {
				d.leaves = append(d.leaves, storedLeaf{l, log.Epoch})
			}
		}
		if !found || !took || d.at.size() == log.Size {
			d.endLog(log)
		}
	}
	return nil
}

// endLog judges the leaves of a log when all are read.
func (d *diff) endLog(log Log) {
	c, err := OpenCheckpoint(d.keys, log.Note)
	root, rootErr := d.at.root()
	if err != nil || rootErr != nil || c.Size != d.at.size() || c.Root != root || c.Epoch != log.Epoch {
		d.spoil(log)
		return
	}
	d.logs, d.at = d.logs[1:], nil
}

func (d *diff) spoil(log Log) {
	d.spoiled[log.Epoch] = true
	d.notes = append(d.notes, fmt.Sprintf(
		"the leaves of epoch %d in the database are not those of its checkpoint, and were not used: the database was changed or is damaged", log.Epoch))
	d.logs, d.at = d.logs[1:], nil
}

// add takes the next event.
func (d *diff) add(ctx context.Context, e artifact.Entry) error {
	d.entries = append(d.entries, e)
	return d.run(ctx, window)
}

// finish compares what is left and gives the findings.
func (d *diff) finish(ctx context.Context) ([]Finding, error) {
	if err := d.run(ctx, 0); err != nil {
		return nil, err
	}
	for len(d.leaves) > 0 {
		d.find(Removed, d.leaves[0].epoch, d.leaves[0].Seq, d.leaves[0].Seq)
		d.leaves = d.leaves[1:]
		if err := d.fill(ctx); err != nil {
			return nil, err
		}
	}
	if len(d.spoiled) > 0 { // Leaves of several epochs may have been looked at together.
		return nil, nil
	}
	return d.findings, nil
}

// run compares as long as there are more entries than keep.
func (d *diff) run(ctx context.Context, keep int) error {
	for len(d.entries) > keep {
		if err := d.fill(ctx); err != nil {
			return err
		}
		if len(d.leaves) == 0 {
			d.entries = d.entries[:0] // No checkpoint that is stored covers these.
			return nil
		}
		if same(d.entries[0], d.leaves[0]) {
			d.compared++
			d.drop(1, 1)
		} else {
			d.differ()
		}
	}
	return nil
}

// same says whether an event is what a leaf was made of, wherever it stands now.
func same(e artifact.Entry, l storedLeaf) bool { return LeafHash(l.Seq, e.Subject, e.Data) == l.Hash }

func (d *diff) drop(entries, leaves int) {
	d.entries, d.leaves = d.entries[entries:], d.leaves[leaves:]
}

// differ judges an event that is not what the next leaf was made of.
func (d *diff) differ() {
	entry, leaf := d.entries[0], d.leaves[0]
	if !slices.ContainsFunc(d.covered, func(s span) bool { return entry.Seq > s.after && entry.Seq <= s.to }) {
		d.drop(1, 0)
		return
	}
	moved := d.leafOf(entry)        // the leaf of this event is further on: so many are missing, or it was moved here
	later := d.entryOf(d.leaves[0]) // the event of this leaf is further on: so many are new, or it was moved there
	switch {
	case moved > 0 && later > 0:
		n := max(moved, later) + 1
		n = min(n, len(d.entries), len(d.leaves))
		d.find(Reordered, leaf.epoch, leaf.Seq, d.leaves[n-1].Seq)
		d.drop(n, n)
	case moved > 0:
		d.find(Removed, leaf.epoch, leaf.Seq, d.leaves[moved-1].Seq)
		d.drop(0, moved)
	case later > 0:
		d.find(Inserted, leaf.epoch, entry.Seq, d.entries[later-1].Seq)
		d.drop(later, 0)
	case entry.Seq < leaf.Seq:
		d.find(Inserted, leaf.epoch, entry.Seq, entry.Seq)
		d.drop(1, 0)
	case entry.Seq > leaf.Seq:
		d.find(Removed, leaf.epoch, leaf.Seq, leaf.Seq)
		d.drop(0, 1)
	default:
		d.find(Changed, leaf.epoch, leaf.Seq, leaf.Seq)
		d.drop(1, 1)
	}
}

func (d *diff) leafOf(e artifact.Entry) int {
	for i, l := range d.leaves[:min(window, len(d.leaves))] {
		if same(e, l) {
			return i
		}
	}
	return -1
}

func (d *diff) entryOf(l storedLeaf) int {
	for i, e := range d.entries[:min(window, len(d.entries))] {
		if same(e, l) {
			return i
		}
	}
	return -1
}

// find remembers a finding. One that goes on where the last ended is the same.
func (d *diff) find(kind FindingKind, epoch, from, to uint64) {
	detail := map[FindingKind]string{
		Changed: "it is not what it was when a checkpoint covered it", Removed: "it was there when a checkpoint covered it",
		Inserted: "it was not there when a checkpoint covered those around it", Reordered: "they stood in another order when a checkpoint covered them",
	}[kind]
	if n := len(d.findings); n > 0 && d.findings[n-1].Kind == kind && d.findings[n-1].To+1 == from && kind != Reordered {
		d.findings[n-1].To = to
		return
	}
	if len(d.findings) < maxFindings {
		d.findings = append(d.findings, Finding{Kind: kind, Epoch: epoch, From: from, To: to, Detail: detail})
	}
}
