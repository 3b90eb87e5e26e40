package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// Limits of a glob.
const (
	maxMatches = 1000
	// maxLooked is how many names are looked at.
	maxLooked = 20_000
)

// selectRepositories goes from one name to the next one in the index, and so past the digests of each. No name has a character
// behind z.
const selectRepositories = `
	WITH RECURSIVE names (name) AS (
		SELECT MIN(repository) FROM units WHERE repository >= ? AND repository < ?
		UNION ALL
		SELECT (SELECT MIN(repository) FROM units WHERE repository > names.name AND repository < ?) FROM names WHERE names.name IS NOT NULL
	) SELECT name FROM names WHERE name IS NOT NULL LIMIT ?`

// repositories gives the names that a glob matches, among those that may be seen.
func (s *Store) repositories(ctx context.Context, tx *sql.Tx, f ledger.Filter) ([]string, error) {
	var names []string
	looked := 0
	from, to := f.Glob.Prefix(), f.Glob.Prefix()+"{"
	err := s.each(ctx, tx, selectRepositories, []any{from, to, to, maxLooked + 1}, func(rows *sql.Rows) error {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		looked++
		project, _, _ := strings.Cut(name, "/")
		if f.Glob.Matches(name) && (f.Projects == nil || slices.Contains(f.Projects, project)) {
			names = append(names, name)
		}
		if looked > maxLooked || len(names) > maxMatches {
			return &ledger.InvalidQueryError{Field: "repository", Want: fmt.Sprintf(
				"the glob matches more than %d repositories, or has to be compared with more than %d: begin it with the name of a project, or narrow it down",
				maxMatches, maxLooked)}
		}
		return nil
	})
	return names, err
}
