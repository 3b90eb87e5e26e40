package ledgertest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// CoverageReport answers a query by looking at each record for each number. It shares nothing with what sums up the counts that a
// store keeps but the rule of one row, and the bounds of the buckets.
func (m *Memory) CoverageReport(ctx context.Context, q ledger.CoverageQuery) (ledger.CoverageReport, error) {
	f, err := q.Filter(time.Now())
	if err != nil {
		return ledger.CoverageReport{}, err
	}
	m.mu.Lock()
	names := f.Projects
	if names == nil {
		names = m.names()
	}
	m.mu.Unlock()
	counted, err := m.Coverage(ctx, names)
	if err != nil {
		return ledger.CoverageReport{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.recordsOf(names)
	r := ledger.CoverageReport{
		AsOf: m.position.Seq, Since: date(f.From), Until: date(f.To - 1), Projects: []ledger.Covered{}, ProjectsTotal: len(names), Keys: m.keys(),
	}
	for _, name := range names {
		own := m.recordsOf([]string{name})
		p := ledger.Covered{Project: name, Coverage: counted[name], Exceptions: exceptions(own), TimeToSign: timeToSign(own, f.From, f.To)}
		if sweep := p.LastSweep; sweep != nil {
			left := sweep.HarborCount + sweep.Pushed - sweep.Deleted - sweep.Population
			p.Unaccounted = &left
		}
		if f.Single {
			p.Days = days(own, f.From, f.To)
		}
		r.Projects = append(r.Projects, p)
	}
	slices.SortStableFunc(r.Projects, func(a, b ledger.Covered) int { return cmp.Compare(sum(b.Exceptions), sum(a.Exceptions)) })
	r.Total = ledger.Covered{Coverage: standing(all), Exceptions: exceptions(all), TimeToSign: timeToSign(all, f.From, f.To), Days: days(all, f.From, f.To)}
	return r, nil
}

// recordsOf must be called with mu held.
func (m *Memory) recordsOf(projects []string) (records []*ledger.Record) {
	for ref, record := range m.records {
		if slices.Contains(projects, ref.Project()) {
			records = append(records, record)
		}
	}
	return records
}

func date(day ledger.Day) string { return day.Start().Format(time.DateOnly) }

// number counts the records of which something holds.
func number(records []*ledger.Record, holds func(*ledger.Record) bool) (n int) {
	for _, record := range records {
		if holds(record) {
			n++
		}
	}
	return n
}

func in(states ...ledger.State) func(*ledger.Record) bool {
	return func(r *ledger.Record) bool { return r.Listed() && slices.Contains(states, r.State()) }
}

func standing(records []*ledger.Record) ledger.Coverage {
	c := ledger.Coverage{
		Population: number(records, (*ledger.Record).Listed), Signed: number(records, in(ledger.Signed)), Pending: number(records, in(ledger.Pending)),
		Failed: number(records, in(ledger.Failed, ledger.Dead)), Excluded: number(records, in(ledger.Skipped)),
		Blocked: number(records, in(ledger.Blocked)), Unsigned: number(records, in(ledger.Unsigned)),
		LogDebt: number(records, func(r *ledger.Record) bool { return r.LogState() == ledger.LogOwed }),
	}
	for _, record := range records {
		if at := record.FirstSeenAt; in(ledger.MissingStates()...)(record) && (c.OldestUnsignedAt == nil || at.Before(*c.OldestUnsignedAt)) {
			c.OldestUnsignedAt = &at
		}
		if at := record.LogOwedSince(); !at.IsZero() && (c.OldestLogDebtAt == nil || at.Before(*c.OldestLogDebtAt)) {
			c.OldestLogDebtAt = &at
		}
	}
	return c
}

func exceptions(records []*ledger.Record) ledger.Exceptions {
	return ledger.Exceptions{
		Unsigned: number(records, in(ledger.Unsigned)), Failed: number(records, in(ledger.Failed)), Dead: number(records, in(ledger.Dead)),
		Exempt:  number(records, func(r *ledger.Record) bool { return r.State() == ledger.Skipped && r.Reason == string(policy.Exempt) }),
		Blocked: number(records, in(ledger.Blocked)),
	}
}

func sum(e ledger.Exceptions) int { return e.Unsigned + e.Failed + e.Dead + e.Exempt + e.Blocked }

// days looks at each day of the period.
func days(records []*ledger.Record, from, to ledger.Day) (all []ledger.DayCoverage) {
	for day := from; day < to; day++ {
		var seen []*ledger.Record
		for _, record := range records {
			if ledger.DayOf(record.FirstSeenAt) == day {
				seen = append(seen, record)
			}
		}
		c := standing(seen)
		d := ledger.DayCoverage{
			Day: date(day), Exceptions: exceptions(seen), Population: c.Population, Signed: c.Signed, Pending: c.Pending, Excluded: c.Excluded,
			TimeToSign: timeToSign(records, day, day+1),
		}
		if d.Population > 0 || d.TimeToSign != nil {
			all = append(all, d)
		}
	}
	return all
}

// timeToSign sorts all times of the signatures of a period, and picks.
func timeToSign(records []*ledger.Record, from, to ledger.Day) *ledger.Percentiles {
	var times []float64
	for _, record := range records {
		took, made := record.SignTime()
		if day := ledger.DayOf(record.SignedAt); made && from <= day && day < to {
			_, end := ledger.SignTimeBounds(ledger.SignTimeBucket(took))
			times = append(times, end.Seconds())
		}
	}
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	// The smallest time that no less than so many percent do not exceed.
	at := func(percent int) float64 {
		n := 1
		for 100*n < percent*len(times) {
			n++
		}
		return times[n-1]
	}
	return &ledger.Percentiles{Count: len(times), P50: at(50), P90: at(90), P99: at(99)}
}

// keys must be called with mu held.
func (m *Memory) keys() []ledger.KeyDates {
	keys := []ledger.KeyDates{}
	for _, seq := range slices.Sorted(maps.Keys(m.events)) {
		e := m.events[seq]
		if e.Key == nil {
			continue
		}
		same := func(k ledger.KeyDates) bool { return k.ID == e.Key.ID && k.Use == e.Key.Use }
		k := ledger.KeyDates{ID: e.Key.ID, Use: e.Key.Use}
		at := slices.IndexFunc(keys, same)
		if at < 0 {
			at, keys = len(keys), append(keys, k)
		} else {
			k = keys[at]
		}
		k.Name, k.State = e.Key.Name, e.Key.State
		switch e.Kind {
		case artifact.KeyAdded: // once more: what became of it before is over
			k.AddedAt, k.RetiredAt, k.RevokedAt = &e.At, nil, nil
		case artifact.KeyRetired:
			k.RetiredAt = &e.At
		case artifact.KeyRevoked:
			k.RevokedAt = &e.At
		default:
		}
		keys[at] = k
	}
	return keys
}
