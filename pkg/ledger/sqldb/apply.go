package sqldb

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Apply brings rows, counts and position forward in one transaction. Rows are read, changed by the ledger's rules and written
// back; that this is safe beside other writers is because the position is locked first. Entries that the position has passed
// are in the rows already, by the hand of another receiver: they are passed over.
func (s *Store) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	return s.apply(ctx, basis, entries, false)
}

func (s *Store) apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry, passed bool) error {
	if len(entries) == 0 {
		return nil
	}
	v, err := s.acquire()
	if err != nil {
		return s.fail(ctx, "applying events", err)
	}
	defer s.release(v)
	if err := v.apply(ctx, basis, entries, passed); err != nil {
		return s.fail(ctx, "applying events", err)
	}
	return nil
}

// apply is Apply; passed entries too if it says so.
func (v *view) apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry, passed bool) error {
	return v.batched(ctx, func(s session) error {
		var position ledger.Position
		err := s.run(ctx, []call{{statement: lockPosition, row: func(row scanner) (err error) {
			position, err = scanPosition(row)
			return err
		}}})
		if err != nil {
			return err
		}
		if !position.Basis.Equal(basis) {
			return ledger.ErrOtherBasis
		}
		b := newBatch()
		for _, entry := range entries {
			if entry.Seq > position.Seq || passed {
				b.add(entry)
			}
		}
		return b.write(ctx, s)
	})
}

// batch collects what the entries of one transaction change, so that a digest is read and written once, and all is asked for at once.
type batch struct {
	last    uint64
	entries []artifact.Entry // those that change units
	units   map[artifact.Ref]*unit
	order   []*unit
	events  []ledger.ProjectEvent
	outages map[outageID]ledger.Outage
	counts  counts
}

// outageID is what makes an outage the same one.
type outageID struct {
	dependency, program, instance string
	startedAt                     int64
}

func newBatch() *batch {
	return &batch{units: make(map[artifact.Ref]*unit), outages: make(map[outageID]ledger.Outage), counts: newCounts()}
}

func (b *batch) add(entry artifact.Entry) {
	b.last = max(b.last, entry.Seq)
	if event, ok := ledger.ProjectEventOf(entry); ok {
		b.events = append(b.events, event)
	}
	if outage, ok := ledger.OutageOf(entry); ok {
		b.outage(outage)
	}
	if !ledger.Projects(entry) {
		return
	}
	b.entries = append(b.entries, entry)
	if ref := entry.Event.Ref; b.units[ref] == nil {
		u := newUnit(ref)
		b.units[ref] = u
		b.order = append(b.order, u)
	}
}

// outage brings together what is said of one outage.
func (b *batch) outage(o ledger.Outage) {
	key := outageID{o.Dependency, o.Program, o.Instance, o.StartedAt.UnixMicro()}
	if known, ok := b.outages[key]; ok {
		o = known.Merge(o)
	}
	b.outages[key] = o
}

// write reads what is there, and writes what becomes of it.
func (b *batch) write(ctx context.Context, s session) error {
	if b.last == 0 {
		return nil
	}
	if err := s.run(ctx, b.reads()); err != nil {
		return err
	}
	for _, u := range b.order {
		u.begin()
	}
	for _, entry := range b.entries {
		b.units[entry.Event.Ref].record.Apply(entry)
	}
	var calls []call
	for _, u := range b.order {
		calls = append(calls, u.write())
	}
	if err := s.run(ctx, calls); err != nil {
		return err
	}
	calls = b.beside()
	calls = append(calls, call{statement: updatePosition, args: []any{b.last, b.last}})
	if err := s.run(ctx, calls); err != nil {
		return err
	}
	return s.run(ctx, b.counts.drops())
}

// reads gives the calls that read what the batch changes.
func (b *batch) reads() []call {
	var calls []call
	for _, u := range b.order {
		calls = append(calls, call{statement: readUnit, args: []any{u.repository, u.digest}, row: u.scan})
	}
	for key := range b.outages {
		calls = append(calls, call{
			statement: readOutage, args: []any{key.dependency, key.program, key.instance, key.startedAt},
			row: func(row scanner) error {
				o, err := scanOutage(row)
				if err == nil {
					b.outage(o)
				}
				return err
			},
		})
	}
	return calls
}

// beside gives the calls that write everything but the units themselves, whose ids are known by now.
func (b *batch) beside() []call {
	var removed, added, names []call
	for _, u := range b.order {
		removed, added = u.keys(removed, added)
		names = u.names(names, upsertTag, u.record.Tags)
		names = u.names(names, upsertParent, u.record.Parents)
		b.counts.change(u)
	}
	calls := slices.Concat(removed, added, names, b.counts.adds())
	for _, e := range b.events {
		calls = append(calls, call{statement: insertEvent, args: []any{
			e.Seq, e.Project, string(e.Kind), micros(e.At), e.Actor, string(e.Origin), e.Reason, e.Detail, dataOf(e),
		}})
	}
	for _, o := range b.outages {
		var ended micros
		if o.EndedAt != nil {
			ended = micros(*o.EndedAt)
		}
		calls = append(calls, call{statement: writeOutage, args: []any{
			o.Dependency, o.Program, o.Instance, micros(o.StartedAt), o.Seq, o.LastSeq, micros(o.DetectedAt), ended, o.Cause, o.Detail, o.Waiting, o.Deferred,
		}})
	}
	return calls
}

// begin keeps what the row said before the batch.
func (u *unit) begin() {
	if u.id == 0 {
		return
	}
	u.before = contributionOf(u.state, &u.record)
	u.keysBefore, u.placeBefore = keysOf(&u.record), ledger.Place{At: u.record.FirstSeenAt, FirstSeq: u.record.FirstSeq}
}

// write gives the call that writes the row. An id that was not known is known afterwards.
func (u *unit) write() call {
	if u.id != 0 {
		return call{statement: updateUnit, args: append(u.values(), u.id)}
	}
	return call{statement: insertUnit, args: u.values(), row: func(row scanner) error { return row.Scan(&u.id) }}
}

// keys appends the calls that bring the keys of the unit up to date. Those that remove come first in a batch: a place is unique.
func (u *unit) keys(removed, added []call) (_, _ []call) {
	now, place := keysOf(&u.record), ledger.Place{At: u.record.FirstSeenAt, FirstSeq: u.record.FirstSeq}
	same := place == u.placeBefore
	for _, key := range u.keysBefore {
		if !same || !slices.Contains(now, key) {
			removed = append(removed, call{statement: deleteKey, args: []any{key, micros(u.placeBefore.At), u.placeBefore.FirstSeq}})
		}
	}
	for _, key := range now {
		if !same || !slices.Contains(u.keysBefore, key) {
			added = append(added, call{statement: insertKey, args: []any{key, micros(place.At), place.FirstSeq, u.id}})
		}
	}
	return removed, added
}

// keysOf gives the ids of the keys of the signatures that count, each once.
func keysOf(r *ledger.Record) []string {
	var keys []string
	for _, s := range r.Evidence() {
		if s.KeyID != "" && !slices.Contains(keys, s.KeyID) {
			keys = append(keys, s.KeyID)
		}
	}
	return keys
}

func (u *unit) names(calls []call, upsert statement, names map[string]ledger.Seen) []call {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		seen := names[name]
		calls = append(calls, call{statement: upsert, args: []any{
			u.id, name, seen.FirstSeq, micros(seen.FirstAt), seen.LastSeq, micros(seen.LastAt),
		}})
	}
	return calls
}

// contribution is what a row adds to the counts.
type contribution struct {
	day      dayKey
	signed   bool
	signTime signTimeKey
}

func contributionOf(state ledger.State, r *ledger.Record) *contribution {
	c := &contribution{day: dayKey{
		project: r.Ref.Project(), day: ledger.DayOf(r.FirstSeenAt), state: state, class: ledger.ClassOf(state, r.Reason),
	}}
	var took time.Duration
	if took, c.signed = r.SignTime(); c.signed {
		c.signTime = signTimeKey{project: r.Ref.Project(), day: ledger.DayOf(r.SignedAt), bucket: ledger.SignTimeBucket(took)}
	}
	return c
}
