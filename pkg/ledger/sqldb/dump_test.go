package sqldb_test

import (
	"database/sql"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// ofUnit are the tables that hang on units.
func ofUnit() []string { return []string{"tags", "parents", "unit_keys"} }

// dump gives all rows of all tables of a view as text, without what depends on the order in which events came: the ids of units.
func dump(tb ledgertest.TB, db *sql.DB) map[string][]string {
	tb.Helper()
	all := map[string][]string{}
	for _, table := range append(ofUnit(), "units", "project_counts", "day_counts", "sign_times", "project_events", "outages") {
		query := "SELECT * FROM " + table
		if slices.Contains(ofUnit(), table) {
			query = "SELECT units.repository, units.digest, " + table + ".* FROM " + table + " JOIN units ON units.id = unit_id"
		}
		all[table] = table2text(tb, db, query)
	}
	return all
}

func table2text(tb ledgertest.TB, db *sql.DB, query string) []string {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), query)
	if err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			tb.Fatal(err)
		}
		fields := map[string]string{}
		for i, name := range columns {
			// The column evidence is an aid of SQLite's.
			if name != "id" && name != "unit_id" && name != "evidence" {
				fields[name] = fmt.Sprintf("%v", *values[i].(*any)) //nolint:forcetypeassert,errcheck // as made above
			}
		}
		var line strings.Builder
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			fmt.Fprintf(&line, "%s=%q ", name, fields[name])
		}
		lines = append(lines, line.String())
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// sameTables compares two views, table by table.
func sameTables(tb ledgertest.TB, what string, got, want map[string][]string) {
	tb.Helper()
	for table := range want {
		for i := range max(len(got[table]), len(want[table])) {
			if i >= len(got[table]) || i >= len(want[table]) || got[table][i] != want[table][i] {
				tb.Fatalf("%s: %d rows of %s, want %d; row %d =\n%v, want\n%v", what, len(got[table]), table, len(want[table]), i,
					slices.Concat(got[table][min(i, len(got[table])):], []string{""})[0], slices.Concat(want[table][min(i, len(want[table])):], []string{""})[0])
			}
		}
	}
}

// countsAgree compares the counts with the rows that they count.
func countsAgree(tb ledgertest.TB, db *sql.DB) {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), "SELECT project, state, reason, first_seen_at, received_at, pushed_at, confirmed_pushed_at, signed_at, how FROM units")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	want := map[string]int64{}
	for rows.Next() {
		var project, state, reason, how string
		var seen int64
		var received, pushed, confirmed, signed sql.NullInt64
		if err := rows.Scan(&project, &state, &reason, &seen, &received, &pushed, &confirmed, &signed, &how); err != nil {
			tb.Fatal(err)
		}
		if state != "skipped" && state != "blocked" {
			reason = ""
		}
		want[fmt.Sprint("project ", project, " ", state, " ", reason)]++
		want[fmt.Sprint("day ", project, " ", ledger.DayOf(time.UnixMicro(seen)), " ", state, " ", reason)]++
		if how != "made" || !signed.Valid {
			continue
		}
		from := seen
		for _, at := range []sql.NullInt64{received, pushed, confirmed} {
			if at.Valid {
				from = at.Int64
			}
		}
		bucket := ledger.SignTimeBucket(time.Duration(signed.Int64-from) * time.Microsecond)
		want[fmt.Sprint("time ", project, " ", ledger.DayOf(time.UnixMicro(signed.Int64)), " ", bucket)]++
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	got := map[string]int64{}
	counted, err := db.QueryContext(tb.Context(), "SELECT 'project ' || project || ' ' || state || ' ' || class, n FROM project_counts "+
		"UNION ALL SELECT 'day ' || project || ' ' || day || ' ' || state || ' ' || class, n FROM day_counts "+
		"UNION ALL SELECT 'time ' || project || ' ' || day || ' ' || bucket, n FROM sign_times")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = counted.Close() }() // Err tells
	for counted.Next() {
		var key string
		var n int64
		if err := counted.Scan(&key, &n); err != nil {
			tb.Fatal(err)
		}
		got[key] = n
	}
	if err := counted.Err(); err != nil {
		tb.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		tb.Fatalf("counts = %v, want %v", got, want)
	}
}

// TestAnyOrderGivesTheSameTables fills views in order, at random with repetitions, and again from the beginning, in both databases, and
// compares all rows of all tables.
func TestAnyOrderGivesTheSameTables(t *testing.T) {
	lite := sqliteDatabase(t)
	stores := map[string]*sqldb.Store{"sqlite": lite.open(t)}
	raws := map[string]*sql.DB{"sqlite": lite.served(t)}
	t.Run("with postgres", func(t *testing.T) {
		server := postgresDatabase(t)
		stores["postgres"], raws["postgres"] = server.open(t), server.served(t)
		compareOrders(t, stores, raws)
	})
	delete(stores, "postgres")
	compareOrders(t, stores, raws)
}

func compareOrders(t *testing.T, stores map[string]*sqldb.Store, raws map[string]*sql.DB) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		history := ledgertest.Histories().Draw(t, "history")
		var want map[string][]string
		for _, name := range slices.Sorted(maps.Keys(stores)) {
			store := stores[name]
			basis := ledgertest.Begin(t, store)
			for _, batch := range ledgertest.Batches(t, history) {
				ledgertest.Apply(t, store, basis, batch...)
			}
			countsAgree(t, raws[name])
			if got := dump(t, raws[name]); want == nil {
				want = got
			} else {
				sameTables(t, name+", in order", got, want)
			}
			anyOrder := sqldb.AnyOrder{Store: store}
			basis = ledgertest.Begin(t, anyOrder)
			for _, batch := range ledgertest.Batches(t, ledgertest.Shuffled(t, history)) {
				ledgertest.Apply(t, anyOrder, basis, batch...)
			}
			countsAgree(t, raws[name])
			sameTables(t, name+", in any order", dump(t, raws[name]), want)
		}
	})
}
