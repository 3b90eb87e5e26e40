package sqldb

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// addCount changes a count by a number, and gives what it is then.
func addCount(table string, key ...string) string {
	names := strings.Join(key, ", ")
	return "INSERT INTO " + table + " (" + names + ", n) VALUES (?" + strings.Repeat(", ?", len(key)) + ") " +
		"ON CONFLICT (" + names + ") DO UPDATE SET n = " + table + ".n + excluded.n RETURNING n"
}

// dropCount removes a count that has become 0.
func dropCount(table string, key ...string) string {
	return "DELETE FROM " + table + " WHERE " + strings.Join(key, " = ? AND ") + " = ?"
}

// The keys of the counts.
type (
	projectKey struct {
		project string
		state   ledger.State
		class   string
	}
	dayKey struct {
		project string
		day     ledger.Day
		state   ledger.State
		class   string
	}
	signTimeKey struct {
		project string
		day     ledger.Day
		bucket  int
	}
)

// counts collects how the counts change in a batch.
type counts struct {
	projects  map[projectKey]int64
	days      map[dayKey]int64
	signTimes map[signTimeKey]int64
	// dropped are the calls that remove what has become 0.
	dropped []call
}

func newCounts() counts {
	return counts{projects: make(map[projectKey]int64), days: make(map[dayKey]int64), signTimes: make(map[signTimeKey]int64)}
}

// change takes out what a row has said before, and puts in what it says now.
func (c *counts) change(u *unit) {
	if u.before != nil {
		c.count(u.before, -1)
	}
	c.count(contributionOf(u.state, &u.record), 1)
}

func (c *counts) count(of *contribution, n int64) {
	c.days[of.day] += n
	c.projects[projectKey{of.day.project, of.day.state, of.day.class}] += n
	if of.signed {
		c.signTimes[of.signTime] += n
	}
}

// adds gives the calls that change the counts, always in the same order.
func (c *counts) adds() []call {
	var calls []call
	add := func(statement, drop statement, n int64, key ...any) {
		if n == 0 {
			return
		}
		calls = append(calls, call{statement: statement, args: append(slices.Clone(key), n), row: func(row scanner) error {
			var left int64
			if err := row.Scan(&left); err != nil {
				return err
			}
			if left == 0 {
				c.dropped = append(c.dropped, call{statement: drop, args: key})
			}
			return nil
		}})
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.projects), func(a, b projectKey) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.state, b.state), cmp.Compare(a.class, b.class))
	}) {
		add(addProjectCount, dropProjectCount, c.projects[k], k.project, string(k.state), k.class)
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.days), func(a, b dayKey) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.day, b.day), cmp.Compare(a.state, b.state), cmp.Compare(a.class, b.class))
	}) {
		add(addDayCount, dropDayCount, c.days[k], k.project, int64(k.day), string(k.state), k.class)
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.signTimes), func(a, b signTimeKey) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.day, b.day), cmp.Compare(a.bucket, b.bucket))
	}) {
		add(addSignTime, dropSignTime, c.signTimes[k], k.project, int64(k.day), int64(k.bucket))
	}
	return calls
}

// drops gives the calls that remove what has become 0, once adds have run.
func (c *counts) drops() []call { return c.dropped }
