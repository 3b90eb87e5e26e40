package sqldb

import (
	"context"
	"database/sql"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// AnyOrder applies entries that the position has passed, too: as if the stream were read again.
type AnyOrder struct{ *Store }

// Apply is the store's.
func (a AnyOrder) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	return a.apply(ctx, basis, entries, true)
}

// Explained is how the rows of a query are found.
type Explained struct {
	// Ordered says that the search ends with the page, Leads what leads to the rows.
	Ordered bool
	Leads   []string
	// Lines are what the database says that it does for the page and for the number of all rows.
	Search, Count []string
}

// Explain asks the database how it would answer a query.
func (s *Store) Explain(ctx context.Context, q ledger.Query) (Explained, error) {
	var told Explained
	filter, err := q.Filter()
	if err != nil {
		return told, err
	}
	err = s.reading(ctx, "explaining", func(tx *sql.Tx) error {
		p, err := s.choose(ctx, tx, filter)
		if err != nil || p.empty {
			return err
		}
		told.Ordered = p.ordered
		for _, lead := range p.leads {
			told.Leads = append(told.Leads, string(lead))
		}
		for _, explained := range []struct {
			question question
			into     *[]string
		}{{p.search(filter.Limit + 1), &told.Search}, {p.counting(), &told.Count}} {
			if *explained.into, err = s.explain(ctx, tx, explained.question.text, explained.question.args); err != nil {
				return err
			}
		}
		return nil
	})
	return told, err
}

// explain gives what the database says that it does.
func (s *Store) explain(ctx context.Context, tx *sql.Tx, query string, args []any) (lines []string, err error) {
	explain := "EXPLAIN "
	if s.dialect.name == "sqlite" {
		explain = "EXPLAIN QUERY PLAN "
	}
	err = s.each(ctx, tx, explain+query, args, func(rows *sql.Rows) error {
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		values, last := make([]any, len(columns)), ""
		for i := range values {
			values[i] = new(any)
		}
		values[len(values)-1] = &last
		if err := rows.Scan(values...); err != nil {
			return err
		}
		lines = append(lines, last)
		return nil
	})
	return lines, err
}

// ExplainKeys asks the database how it finds digests by their key: what Apply, One and Known ask.
func (s *Store) ExplainKeys(ctx context.Context) (map[string][]string, error) {
	ref, err := artifact.NewRef("demo/app", "sha256:"+strings.Repeat("0", 64))
	if err != nil {
		return nil, err
	}
	key := []any{ref.Repository(), ref.Digest()}
	search := planOf(ref).search(1)
	told := map[string][]string{}
	err = s.reading(ctx, "explaining", func(tx *sql.Tx) error {
		for name, q := range map[string]question{"Apply": {readUnit.text(""), key}, "One": search, "Known": {knownText(1), key}} {
			lines, err := s.explain(ctx, tx, q.text, q.args)
			if err != nil {
				return err
			}
			told[name] = lines
		}
		return nil
	})
	return told, err
}

// CheckedLater checks every SQLite file in the background.
func (c Config) CheckedLater() Config {
	c.checkAtOnce = 1
	return c
}
