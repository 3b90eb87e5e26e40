package sqldb

import (
	"context"
	"database/sql"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
)

const (
	outageColumns = "dependency, program, instance, started_at, seq, last_seq, detected_at, ended_at, cause, detail, waiting, deferred"
	outageKey     = "dependency, program, instance, started_at"

	selectOutage = "SELECT " + outageColumns + " FROM outages WHERE dependency = ? AND program = ? AND instance = ? AND started_at = ?"
	// What is written was merged with what was there: it takes its place.
	upsertOutage = "INSERT INTO outages (" + outageColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (" + outageKey + ") DO UPDATE SET " +
		"seq = excluded.seq, last_seq = excluded.last_seq, detected_at = excluded.detected_at, ended_at = excluded.ended_at, " +
		"cause = excluded.cause, detail = excluded.detail, waiting = excluded.waiting, deferred = excluded.deferred"
)

// scanOutage reads outageColumns.
func scanOutage(row scanner) (ledger.Outage, error) {
	var o ledger.Outage
	var ended micros
	err := row.Scan(&o.Dependency, &o.Program, &o.Instance, (*micros)(&o.StartedAt), &o.Seq, &o.LastSeq,
		(*micros)(&o.DetectedAt), &ended, &o.Cause, &o.Detail, &o.Waiting, &o.Deferred)
	if at := time.Time(ended); !at.IsZero() {
		o.EndedAt = &at
	}
	return o, err
}

// Outages answers a query with one page.
func (s *Store) Outages(ctx context.Context, q ledger.OutageQuery) (ledger.OutagePage, error) {
	f, err := q.Filter()
	if err != nil {
		return ledger.OutagePage{}, err
	}
	query, args := "SELECT "+outageColumns+" FROM outages WHERE 1 = 1", []any{}
	add := func(condition string, value any) { query, args = query+" AND "+condition, append(args, value) }
	if f.Dependency != "" {
		add("dependency = ?", f.Dependency)
	}
	if !f.Since.IsZero() {
		add("(ended_at IS NULL OR ended_at >= ?)", micros(f.Since))
	}
	if !f.Until.IsZero() {
		add("started_at < ?", micros(f.Until))
	}
	if f.Before != 0 {
		add("seq < ?", f.Before)
	}
	page := ledger.OutagePage{Items: []ledger.Outage{}}
	err = s.reading(ctx, "reading outages", func(tx *sql.Tx) error {
		return s.each(ctx, tx, query+" ORDER BY seq DESC LIMIT ?", append(args, f.Limit+1), func(rows *sql.Rows) error {
			o, err := scanOutage(rows)
			page.Items = append(page.Items, o)
			return err
		})
	})
	if err != nil {
		return ledger.OutagePage{}, err
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		page.NextCursor = f.Cursor(page.Items[f.Limit-1].Seq)
	}
	return page, nil
}
