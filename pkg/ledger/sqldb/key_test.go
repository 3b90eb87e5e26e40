package sqldb_test

import (
	"strings"
	"testing"
)

// TestRowsAreFoundByTheirKey asks databases that have no row, and know of none, how they find one: that plan is kept while the tables
// fill, and one that goes through a whole repository for each event takes longer and longer.
func TestRowsAreFoundByTheirKey(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		store := d.open(t)
		told, err := store.ExplainKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(told) != 3 {
			t.Errorf("%d questions were explained, want 3", len(told))
		}
		for question, lines := range told {
			text := strings.Join(lines, "\n")
			if !strings.Contains(text, "units_digest") && !strings.Contains(text, "units_unit") {
				t.Errorf("%s finds a row by\n%s\nwant by its digest", question, text)
			}
		}
	})
}
