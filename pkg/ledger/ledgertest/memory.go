// Package ledgertest holds what tests of the ledger share: a model of the view in memory, a stream of events, and the
// suite that every view must pass.
//
// The model is written to be obviously right, not to be fast: it keeps all rows in a map and looks at each for a query.
package ledgertest

import (
	"context"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// Memory is a view in memory. The zero value is empty and ready. It is safe for concurrent use and forgets everything at
// the end of the program.
type Memory struct {
	mu       sync.Mutex
	position ledger.Position                 // guarded by mu
	records  map[artifact.Ref]*ledger.Record // guarded by mu
	events   map[uint64]ledger.ProjectEvent  // guarded by mu: by sequence
	outages  []ledger.Outage                 // guarded by mu: each once
}

// Position gives how far the view has come.
func (m *Memory) Position(ctx context.Context) (ledger.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.position, ctx.Err()
}

// Reset empties the view, provided that it stands where the caller saw it.
func (m *Memory) Reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ledger.Position{}, err
	}
	if !m.position.Equal(seen) {
		return ledger.Position{}, ledger.ErrOtherBasis
	}
	m.records, m.events, m.outages = nil, nil, nil
	m.position = ledger.Position{Basis: ledger.Basis{Stream: stream, Rules: rules, Generation: seen.Generation + 1}}
	return m.position, nil
}

// Apply takes entries into the rows.
func (m *Memory) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if !m.position.Basis.Equal(basis) {
		return ledger.ErrOtherBasis
	}
	if m.records == nil {
		m.records, m.events = make(map[artifact.Ref]*ledger.Record), make(map[uint64]ledger.ProjectEvent)
	}
	for _, entry := range entries {
		m.position.Seq = max(m.position.Seq, entry.Seq)
		if event, ok := ledger.ProjectEventOf(entry); ok {
			m.events[entry.Seq] = event
		}
		if outage, ok := ledger.OutageOf(entry); ok {
			m.outage(outage)
		}
		if !ledger.Projects(entry) {
			continue
		}
		record := m.records[entry.Event.Ref]
		if record == nil {
			record = &ledger.Record{Ref: entry.Event.Ref}
			m.records[entry.Event.Ref] = record
		}
		record.Apply(entry)
	}
	return nil
}
