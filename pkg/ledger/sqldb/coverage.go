package sqldb

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// CoverageReport answers a query from the counts that are kept beside the rows: what it costs depends on the number of projects and of
// days, not on that of the digests.
func (s *Store) CoverageReport(ctx context.Context, q ledger.CoverageQuery) (ledger.CoverageReport, error) {
	f, err := q.Filter(time.Now())
	if err != nil {
		return ledger.CoverageReport{}, err
	}
	var report ledger.CoverageReport
	err = s.reading(ctx, "reading the coverage", func(tx *sql.Tx) error {
		names := f.Projects
		if names == nil {
			if names, err = s.projectNames(ctx, tx); err != nil {
				return err
			}
		}
		sums := ledger.NewCoverageSums(f, names)
		for part := range slices.Chunk(names, chunk) {
			if err := s.coverPart(ctx, tx, f, part, sums); err != nil {
				return err
			}
		}
		report = sums.Report()
		if report.Keys, err = s.keys(ctx, tx); err != nil {
			return err
		}
		return s.each(ctx, tx, "SELECT seq FROM view_position", nil, func(rows *sql.Rows) error { return rows.Scan(&report.AsOf) })
	})
	if err != nil {
		return ledger.CoverageReport{}, err
	}
	return report, nil
}

// Keys gives the keys that the ledger knows, with their dates.
func (s *Store) Keys(ctx context.Context) (keys []ledger.KeyDates, err error) {
	err = s.reading(ctx, "reading the keys", func(tx *sql.Tx) error {
		keys, err = s.keys(ctx, tx)
		return err
	})
	return keys, err
}

func (s *Store) keys(ctx context.Context, tx *sql.Tx) ([]ledger.KeyDates, error) {
	var events []ledger.ProjectEvent
	query := "SELECT " + eventColumns + " FROM project_events WHERE kind IN (?, ?, ?) ORDER BY seq"
	args := []any{artifact.KeyAdded, artifact.KeyRetired, artifact.KeyRevoked}
	err := s.each(ctx, tx, query, args, func(rows *sql.Rows) error {
		event, err := scanEvent(rows)
		events = append(events, event)
		return err
	})
	return ledger.KeyInventory(events), err
}

// coverPart adds some of the projects to the sums.
func (s *Store) coverPart(ctx context.Context, tx *sql.Tx, f ledger.CoverageFilter, projects []string, sums *ledger.CoverageSums) error {
	covered, err := s.cover(ctx, tx, projects)
	if err != nil {
		return err
	}
	for name, c := range covered {
		sums.Project(name, *c)
	}
	among := " project IN (" + marks(len(projects)) + ")"
	query := "SELECT project, state, class, n FROM project_counts WHERE" + among
	err = s.each(ctx, tx, query, values(projects), func(rows *sql.Rows) error {
		var project, class string
		var state ledger.State
		var n int
		err := rows.Scan(&project, &state, &class, &n)
		sums.Count(project, state, class, n)
		return err
	})
	if err != nil {
		return err
	}
	days := append(values(projects), int64(f.From), int64(f.To))
	query = "SELECT day, state, class, CAST(SUM(n) AS BIGINT) FROM day_counts WHERE" + among + " AND day >= ? AND day < ? GROUP BY day, state, class"
	err = s.each(ctx, tx, query, days, func(rows *sql.Rows) error {
		var day int64
		var class string
		var state ledger.State
		var n int
		err := rows.Scan(&day, &state, &class, &n)
		sums.CountDay(ledger.Day(day), state, class, n)
		return err
	})
	if err != nil {
		return err
	}
	// Summed up here: of many projects and days, there are far more rows than the answer has numbers.
	among = " FROM sign_times WHERE" + among + " AND day >= ? AND day < ? GROUP BY "
	query = "SELECT project, bucket, CAST(SUM(n) AS BIGINT)" + among + "project, bucket"
	err = s.each(ctx, tx, query, days, func(rows *sql.Rows) error {
		var project string
		var bucket, n int
		err := rows.Scan(&project, &bucket, &n)
		sums.SignTime(project, bucket, n)
		return err
	})
	if err != nil {
		return err
	}
	query = "SELECT day, bucket, CAST(SUM(n) AS BIGINT)" + among + "day, bucket"
	return s.each(ctx, tx, query, days, func(rows *sql.Rows) error {
		var day int64
		var bucket, n int
		err := rows.Scan(&day, &bucket, &n)
		sums.SignTimeDay(ledger.Day(day), bucket, n)
		return err
	})
}

// cover gives the counts of some projects.
func (s *Store) cover(ctx context.Context, tx *sql.Tx, projects []string) (map[string]*ledger.Coverage, error) {
	covered := make(map[string]*ledger.Coverage, len(projects))
	for _, name := range projects {
		covered[name] = &ledger.Coverage{}
	}
	if err := s.count(ctx, tx, projects, covered); err != nil {
		return nil, err
	}
	if err := s.countDebts(ctx, tx, projects, covered); err != nil {
		return nil, err
	}
	return covered, s.lastSweeps(ctx, tx, projects, covered)
}

// count adds how many digests each project has in each state. When the oldest of those without a signature was first seen is one step
// into an index for each state.
func (s *Store) count(ctx context.Context, tx *sql.Tx, projects []string, into map[string]*ledger.Coverage) error {
	accessories := ledger.AccessoryReasons()
	args := []any{ledger.Skipped}
	for _, reason := range accessories {
		args = append(args, string(reason))
	}
	query := "SELECT project, state, CAST(SUM(n) AS BIGINT), (SELECT MIN(u.first_seen_at) FROM units u WHERE u.project = c.project AND u.state = c.state " +
		"AND c.state IN (" + marks(len(ledger.MissingStates())) + ")) FROM project_counts c " +
		"WHERE NOT (state = ? AND class IN (" + marks(len(accessories)) + ")) AND project IN (" + marks(len(projects)) + ") GROUP BY project, state"
	var missing []any
	for _, state := range ledger.MissingStates() {
		missing = append(missing, string(state))
	}
	return s.each(ctx, tx, query, slices.Concat(missing, args, values(projects)), func(rows *sql.Rows) error {
		var name string
		var state ledger.State
		var n int
		var oldest micros
		err := rows.Scan(&name, &state, &n, &oldest)
		if err != nil {
			return err
		}
		into[name].Count(state, n, time.Time(oldest))
		return nil
	})
}
