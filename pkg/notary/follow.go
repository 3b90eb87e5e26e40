package notary

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// follower is one reading of the ledger. The chain is guarded by the notary's mutex, the saver belongs to the goroutine that reads.
type follower struct {
	chain chain
	saver *saver // nil without a store
	// first is the first sequence of the stream when the reading began, and created when the stream was made. target is what has to
	// be read before anything is signed: the newest event then.
	first, target uint64
	created       time.Time
	// newest is the sequence of the newest event that is not a checkpoint, at when the newest checkpoint was made.
	newest uint64
	at     time.Time
	// meeting is the time of the event that is being read.
	meeting time.Time
	halted  bool // a checkpoint did not fit: nothing is signed any more
}

func (f *follower) caughtUp() bool { return f.chain.position >= f.target }

// start is what is known before the reading begins.
type start struct {
	first, last     uint64
	created         time.Time
	newest          artifact.Entry
	epoch, restored artifact.Entry
	checkpoint      artifact.Entry
	logs            []Log
	known           []Known
}

// follow reads the ledger until something breaks.
func (n *Notary) follow(ctx context.Context) error {
	s, err := n.look(ctx)
	if err != nil {
		return err
	}
	f, after, err := n.open(ctx, s)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.follower = f
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.follower = nil
		n.mu.Unlock()
	}()
	return n.cfg.Ledger.Events(ctx, after, func(ctx context.Context, entries []artifact.Entry) error {
		save := n.take(f, entries)
		if save {
			return n.save(ctx, f)
		}
		return nil
	})
}

// take reads a batch, and says whether there is something to store.
func (n *Notary) take(f *follower, entries []artifact.Entry) (save bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range entries {
		if e.Event.Kind != artifact.Checkpointed {
			f.newest = e.Seq
		}
		f.meeting = e.Event.Time
		f.chain.add(e)
	}
	return f.saver != nil && (f.caughtUp() || len(f.saver.waiting) >= saveBatch)
}

// save stores what was verified. That it fails stops nothing: what waits is stored later, or read again.
func (n *Notary) save(ctx context.Context, f *follower) error {
	err := f.saver.save(ctx)
	if err == nil || errors.Is(err, ErrOtherLog) || ctx.Err() != nil {
		return err
	}
	n.metrics.failures.WithLabelValues(placeDatabase).Inc()
	n.logger.Warn().Err(err).Msg("leaves of the Merkle log could not be stored, trying again")
	if len(f.saver.waiting) > maxAhead {
		return fmt.Errorf("storing the leaves of the Merkle log: %w", err) // Begin again, when the database is back.
	}
	return nil
}

// look asks everybody for the newest checkpoints. The second place that cannot be read is told and passed over.
func (n *Notary) look(ctx context.Context) (start, error) {
	var s start
	var err error
	if s.first, s.last, s.created, err = n.cfg.Ledger.LedgerState(ctx); err != nil {
		return start{}, fmt.Errorf("looking at the ledger: %w", err)
	}
	for kind, entry := range map[artifact.Kind]*artifact.Entry{
		"": &s.newest, artifact.EpochOpened: &s.epoch, artifact.Restored: &s.restored, artifact.Checkpointed: &s.checkpoint,
	} {
		if *entry, _, err = n.cfg.Ledger.NewestOf(ctx, kind); err != nil {
			return start{}, fmt.Errorf("looking at the ledger: %w", err)
		}
	}
	if n.cfg.Store != nil {
		if s.logs, err = n.cfg.Store.Logs(ctx); err != nil {
			return start{}, fmt.Errorf("looking at the Merkle log: %w", err)
		}
		s.known = newest(s.known, knownLogs(n.keys, s.logs))
	}
	if n.cfg.CheckpointsFile != "" {
		known, skipped, err := ReadFile(n.cfg.CheckpointsFile, n.keys)
		if err != nil || skipped > 0 {
			n.logger.Warn().Err(err).Int("lines", skipped).Msg("second place of the checkpoints could not be read as a whole")
		}
		s.known = newest(s.known, known)
	}
	n.mu.Lock()
	if last := n.summary; last.Checkpoint != "" { // What this receiver has seen itself.
		s.known = newest(s.known, []Known{{n.seen, "this receiver"}})
	}
	n.mu.Unlock()
	slices.SortFunc(s.known, compareKnown)
	return s, nil
}

// knownLogs are the checkpoints of what is stored, of those that can be verified.
func knownLogs(keys *Keys, logs []Log) []Known {
	var known []Known
	for _, l := range logs {
		r := artifact.CheckpointRecord{Epoch: l.Epoch, Size: l.Size, LastSeq: l.LastSeq, Note: l.Note, Frontier: l.Frontier}
		if _, _, err := openRecord(keys, r); err == nil {
			known = append(known, Known{r, "the database"})
		}
	}
	return known
}

// newest appends the newest of some.
func newest(to, from []Known) []Known {
	if len(from) == 0 {
		return to
	}
	return append(to, slices.MaxFunc(from, compareKnown))
}

func compareKnown(a, b Known) int {
	if c := compareSeq(a.Record.Epoch, b.Record.Epoch); c != 0 {
		return c
	}
	return compareSeq(a.Record.Size, b.Record.Size)
}

// open decides where to begin: behind what is stored, if the stream goes on from there, at the beginning of the epoch, if that is
// still there, or at the first checkpoint that is met.
func (n *Notary) open(ctx context.Context, s start) (f *follower, after uint64, err error) {
	first := max(s.first, 1)
	f = &follower{first: first, created: s.created, target: s.newest.Seq}
	f.chain = chain{keys: n.keys, covers: first, known: s.known, position: first - 1}
	f.chain.found = func(found Finding) {
		f.halted = f.halted || found.Kind != BadSignature
		n.found(found)
	}
	f.chain.verified = func(r artifact.CheckpointRecord, from *tree, leaves []Leaf) { n.verified(f, r, from, leaves) }
	f.chain.opened = func(seq uint64, reason string, r artifact.EpochRecord) {
		f.halted = false
		n.opened(f, seq, reason, r)
	}
	if n.cfg.Store != nil {
		f.saver = &saver{store: n.cfg.Store}
	}
	if s.restored.Seq > s.epoch.Seq {
		f.chain.restored = s.restored.Seq
	}
	epoch := s.epoch.Event.Epoch
	if epoch == nil || openEpoch(n.keys, s.epoch.Event.Reason, *epoch) != nil {
		return f, first - 1, nil //nolint:nilerr // the event is judged when it is met
	}
	n.mu.Lock()
	n.opened(f, s.epoch.Seq, s.epoch.Event.Reason, *epoch)
	n.mu.Unlock()
	f.chain.epoch = epoch.Epoch
	f.chain.known = slices.DeleteFunc(f.chain.known, func(k Known) bool { return k.Record.Epoch < epoch.Epoch })
	resume, found, err := n.resumable(ctx, s, f, *epoch)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case found:
		f.chain.base, f.chain.last = resume.at, resume.record
		after = resume.at.lastSeq
	case epoch.First >= first:
		f.chain.base = emptyTree(epoch.First - 1)
		after = epoch.First - 1
		if f.saver != nil {
			f.saver.begin(epoch.Epoch, f.chain.base)
		}
	default:
		return f, first - 1, nil
	}
	f.chain.covers, f.chain.position, f.newest = after+1, after, after
	return f, after, nil
}

// resumption is a checkpoint from which the reading can go on.
type resumption struct {
	record artifact.CheckpointRecord
	at     *tree
}

// resumable finds a checkpoint from which the stream goes on: that of what is stored, if the stream has one of as many events.
func (n *Notary) resumable(ctx context.Context, s start, f *follower, epoch artifact.EpochRecord) (resumption, bool, error) {
	if s.checkpoint.Event.Checkpoint == nil {
		return resumption{}, false, nil
	}
	newest := *s.checkpoint.Event.Checkpoint
	_, at, err := openRecord(n.keys, newest)
	if err != nil || newest.Epoch != epoch.Epoch || newest.LastSeq+1 < f.first || newest.Size == 0 {
		return resumption{}, false, nil //nolint:nilerr // the event is judged when it is met
	}
	f.at = s.checkpoint.Event.Time
	if f.saver == nil {
		return resumption{newest, at}, true, nil
	}
	for _, l := range s.logs {
		r := artifact.CheckpointRecord{Epoch: l.Epoch, Size: l.Size, LastSeq: l.LastSeq, Note: l.Note, Frontier: l.Frontier}
		_, at, err := openRecord(n.keys, r)
		if err != nil || l.Epoch != epoch.Epoch || l.Size > newest.Size || l.Size == 0 || l.LastSeq+1 < f.first {
			continue
		}
		if err := f.saver.resume(ctx, l); err != nil {
			return resumption{}, false, fmt.Errorf("reading the Merkle log: %w", err)
		}
		return resumption{r, at}, true, nil
	}
	return resumption{}, false, nil
}

// verified is told a checkpoint that fits. It is called with mu held.
func (n *Notary) verified(f *follower, r artifact.CheckpointRecord, from *tree, leaves []Leaf) {
	n.seen = r
	s := &n.summary
	s.Origin, s.Epoch, s.Size, s.LastSeq, s.Checkpoint = Origin(n.cfg.Key.Name(), r.Epoch), r.Epoch, r.Size, r.LastSeq, r.Note
	f.at, s.At = f.meeting, f.meeting
	n.metrics.checkpoint.Set(float64(f.meeting.Unix()))
	n.metrics.size.Set(float64(r.Size))
	n.metrics.epoch.Set(float64(r.Epoch))
	if f.saver != nil && from == nil {
		f.saver.begin(r.Epoch, f.chain.base)
	} else if f.saver != nil {
		f.saver.take(r, from, leaves)
	}
	if !f.caughtUp() {
		return
	}
	for _, o := range n.outboxes {
		o.put(r)
	}
}

// opened is told an epoch. It is called with mu held.
func (n *Notary) opened(f *follower, seq uint64, reason string, r artifact.EpochRecord) {
	if f.saver != nil && f.chain.base != nil {
		f.saver.begin(r.Epoch, f.chain.base)
	}
	for _, e := range n.summary.Epochs {
		if e.Epoch == r.Epoch {
			return
		}
	}
	n.summary.Epoch = r.Epoch
	n.summary.Epochs = append(n.summary.Epochs, Epoch{r.Epoch, seq, r.First, reason, r.Stream, r.Note})
}
