package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// What decides between the ways of a page.
const (
	// few rows are gathered and sorted whatever the order is.
	few = 1000
	// some rows are gathered where the other way is longer: to walk along an order finds a hundred of a hundredth of a million rows
	// in as many steps.
	some = 10_000
	// branches are how many projects or repositories are walked side by side.
	branches = 32
)

// plan is how the pages of a filter are found: the rows of one index that some conditions lead to, be it in the order of the answer or
// not, looked through for the other conditions.
//
// Databases do not know which values are rare, and what is asked for is rare as often as not. So it is asked before (see choose), and
// written so that no planner can choose otherwise: what is not to lead is hidden from it.
type plan struct {
	filter     ledger.Filter
	conditions map[part]condition
	// leads are the conditions that lead to the rows; none if all rows are looked through, in their order.
	leads []part
	// ordered says that these rows come in the order of the answer, so that a page ends the search. The others are sorted.
	ordered bool
	// empty says that nothing can match.
	empty bool
}

// choose decides how to find the pages of a filter.
func (s *Store) choose(ctx context.Context, tx *sql.Tx, f ledger.Filter) (*plan, error) {
	p := &plan{filter: f}
	if f.Projects != nil && f.Project != "" && !slices.Contains(f.Projects, f.Project) || f.Projects != nil && len(f.Projects) == 0 {
		p.empty = true
		return p, nil
	}
	if f.SignedOnlyBy != "" && f.State != "" && f.State != ledger.Signed {
		p.empty = true // only what is signed has such a key
		return p, nil
	}
	if s.dialect.steer != "" {
		if _, err := tx.ExecContext(ctx, s.dialect.steer); err != nil {
			return nil, err
		}
	}
	var names []string
	if f.Glob != nil {
		var err error
		if names, err = s.repositories(ctx, tx, f); err != nil {
			return nil, err
		}
		if p.empty = len(names) == 0; p.empty {
			return p, nil
		}
	}
	p.conditions = conditions(f, names)
	if _, asked := p.conditions[byDigest]; asked {
		p.leads = []part{byDigest} // few rows have one, wherever they are
		return p, nil
	}
	ways := p.ways()
	if len(ways) == 0 {
		p.ordered = true
		return p, nil
	}
	// An index that answers all and has the order: nothing has to be known.
	for _, leads := range ways {
		if p.native(leads) && len(p.without(leads)) == 0 {
			p.leads, p.ordered = leads, true
			return p, nil
		}
	}
	for _, limit := range []int{few, some} {
		for _, leads := range ways {
			n, err := s.number(ctx, tx, p.probe(leads, limit+1))
			if err != nil {
				return nil, err
			}
			if n <= int64(limit) {
				p.leads, p.ordered = leads, n > few && p.native(leads)
				return p, nil
			}
		}
	}
	// Everything is frequent: a hundred rows that have it all are near, along any order.
	p.ordered = true
	for _, leads := range ways {
		if p.native(leads) {
			p.leads = leads
			break
		}
	}
	return p, nil
}

// ways gives the conditions that an index leads to rows by, alone or together; those with fewer rows first, as far as one can tell.
func (p *plan) ways() [][]part {
	sorted, _ := timeColumn(p.filter.Sort)
	var ways [][]part
	for _, way := range [][]part{
		{byRepository},
		{byRepositories},
		{byProject, byState},
		{byFormat, byState},
		{byEvidence, byState},
		{byLogOwed},
		{byKey},
		{byOnlyKey},
		{byTag},
		{byPusher},
		{byProject},
		{byProjects},
		{byState},
		{bySource},
		{byFormat},
		{byProject, byPushed},
		{byProject, bySigned},
		{byPushed},
		{bySigned},
		{bySeen},
	} {
		if slices.ContainsFunc(way, func(lead part) bool { return p.conditions[lead].indexed == "" }) {
			continue
		}
		if slices.Contains(way, sorted) && len(way) == 2 {
			continue // the project alone leads along this order, and has the bounds with it
		}
		ways = append(ways, way)
	}
	return ways
}

// native says whether the rows that conditions lead to come in the order of the answer.
func (p *plan) native(leads []part) bool {
	sorted, _ := timeColumn(p.filter.Sort)
	single := func(of part) bool {
		// The rows of a list come one list after the other, which can be walked side by side while it is short.
		return len(p.conditions[of].args) <= branches
	}
	switch lead := leads[0]; {
	case len(leads) == 2:
		return p.filter.Sort == ledger.ByFirstSeen && leads[1] == byState && lead != byEvidence
	case lead == byProject, lead == sorted:
		return true
	case lead == byProjects:
		return single(lead)
	case p.filter.Sort != ledger.ByFirstSeen:
		return false
	case lead == byRepositories, lead == byPusher:
		return single(lead)
	case lead == byRepository, lead == byState, lead == byKey, lead == byOnlyKey, lead == byLogOwed:
		return true
	default:
		return false
	}
}

// without gives the conditions that are no leads, and not the bounds of the order along which these lead.
func (p *plan) without(leads []part) []part {
	sorted, _ := timeColumn(p.filter.Sort)
	return slices.DeleteFunc(p.asked(), func(asked part) bool {
		return slices.Contains(leads, asked) || asked == sorted && p.native(leads)
	})
}

// asked gives the conditions that there are.
func (p *plan) asked() []part {
	return slices.DeleteFunc(parts(), func(asked part) bool { return p.conditions[asked].indexed == "" })
}

// search gives the query for the ids of a page and their places, in order: at most so many.
func (p *plan) search(limit int) question {
	branches := [][]condition{p.leading()}
	if p.ordered {
		branches = p.apart()
	}
	direction := " DESC"
	if p.filter.Ascending {
		direction = ""
	}
	queries := make([]question, len(branches))
	for i, branch := range branches {
		queries[i] = p.branch(branch, direction, limit)
	}
	if len(queries) == 1 {
		return queries[0]
	}
	var q question
	for i, branch := range queries {
		if i > 0 {
			q.text += " UNION ALL "
		}
		q.text += fmt.Sprintf("SELECT id, at, seq FROM (%s) AS branch%d", branch.text, i)
		q.args = append(q.args, branch.args...)
	}
	q.text += " ORDER BY 2" + direction + ", 3" + direction + " LIMIT ?"
	q.args = append(q.args, limit)
	return q
}

// branch gives the query for the rows that some conditions lead to.
func (p *plan) branch(leading []condition, direction string, limit int) question {
	_, at := timeColumn(p.filter.Sort)
	seq := "units.first_seq"
	if p.ordered && len(p.leads) > 0 && strings.HasPrefix(p.conditions[p.leads[0]].from, "unit_keys") {
		at, seq = "unit_keys.first_seen_at", "unit_keys.first_seq"
	}
	if !p.ordered {
		at += " + 0"
	}
	where := p.where(leading, at)
	if after := p.filter.After; after.FirstSeq != 0 {
		compare := " < "
		if p.filter.Ascending {
			compare = " > "
		}
		where.add("("+at+", "+seq+")"+compare+"(?, ?)", micros(after.At), after.FirstSeq)
	}
	where.text = "SELECT units.id AS id, " + at + " AS at, " + seq + " AS seq FROM " + where.text +
		" ORDER BY " + at + direction + ", " + seq + direction + " LIMIT ?"
	where.args = append(where.args, limit)
	return where
}

// where gives tables and conditions: those that lead, and all others hidden, but for the bounds of the order that is walked along, by at.
func (p *plan) where(leading []condition, at string) question {
	q := question{text: "units"}
	for _, c := range leading {
		if c.from != "" {
			q.text = c.from
		}
	}
	q.text += " WHERE 1 = 1"
	for _, c := range leading {
		q.add(c.indexed, c.args...)
	}
	sorted, column := timeColumn(p.filter.Sort)
	for _, asked := range p.asked() {
		c := p.conditions[asked]
		switch {
		case slices.Contains(p.leads, asked):
		case asked == sorted && p.ordered:
			q.add(strings.ReplaceAll(c.indexed, column, at), c.args...)
		default:
			q.add(c.hidden, c.args...)
		}
	}
	return q
}

// leading gives the conditions that lead.
func (p *plan) leading() []condition {
	all := make([]condition, len(p.leads))
	for i, lead := range p.leads {
		all[i] = p.conditions[lead]
	}
	return all
}

// apart gives them for each value of a list apart: each value has rows in the order of the answer, and all of them together have not.
func (p *plan) apart() [][]condition {
	leading := p.leading()
	if len(leading) == 0 {
		return [][]condition{nil}
	}
	c := leading[0]
	before, after, list := strings.Cut(c.indexed, " IN ")
	if !list {
		return [][]condition{leading}
	}
	_, after, _ = strings.Cut(after, ")")
	rest := strings.Count(after, "?")
	var all [][]condition
	for _, value := range c.args[:len(c.args)-rest] {
		args := append([]any{value}, c.args[len(c.args)-rest:]...)
		one := condition{indexed: before + " = ?" + after, args: args, from: c.from}
		all = append(all, append([]condition{one}, leading[1:]...))
	}
	return all
}

// probe counts the rows that conditions lead to, up to a limit.
func (p *plan) probe(leads []part, limit int) question {
	first := p.conditions[leads[0]]
	q := question{text: first.probe, args: slices.Clone(first.args)}
	if q.text == "" {
		q = question{text: "units WHERE 1 = 1"}
		for _, lead := range leads {
			q.add(p.conditions[lead].indexed, p.conditions[lead].args...)
		}
	}
	return question{text: "SELECT COUNT(*) FROM (SELECT 1 FROM " + q.text + " LIMIT ?) AS counted", args: append(q.args, limit)}
}

// question is a query with its parameters.
type question struct {
	text string
	args []any
}

func (q *question) add(condition string, args ...any) {
	q.text += " AND " + condition
	q.args = append(q.args, args...)
}
