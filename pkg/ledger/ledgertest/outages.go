package ledgertest

import (
	"cmp"
	"context"
	"slices"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// outage must be called with mu held.
func (m *Memory) outage(o ledger.Outage) {
	if i := slices.IndexFunc(m.outages, o.Same); i >= 0 {
		m.outages[i] = m.outages[i].Merge(o)
		return
	}
	m.outages = append(m.outages, o)
}

// Outages answers a query.
func (m *Memory) Outages(ctx context.Context, q ledger.OutageQuery) (ledger.OutagePage, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.OutagePage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	page := ledger.OutagePage{Items: []ledger.Outage{}}
	newest := slices.SortedFunc(slices.Values(m.outages), func(a, b ledger.Outage) int { return cmp.Compare(b.Seq, a.Seq) })
	for _, o := range newest {
		if !f.Matches(o) || f.Before != 0 && o.Seq >= f.Before {
			continue
		}
		if len(page.Items) == f.Limit {
			page.NextCursor = f.Cursor(page.Items[f.Limit-1].Seq)
			break
		}
		page.Items = append(page.Items, o)
	}
	return page, ctx.Err()
}

// Totals sums up what the rows of all projects say.
func (m *Memory) Totals(ctx context.Context) (ledger.Totals, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	totals := ledger.Totals{}
	for _, record := range m.records {
		if record.Listed() {
			totals.Count(record.State(), record.FirstSeenAt)
		}
		if record.LogState() == ledger.LogOwed {
			totals.Owe(1, record.LogOwedSince())
		}
	}
	return totals, ctx.Err()
}
