package sqldb_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// TestDamageIsFoundInTheBackground: a large file is used before it is checked, and filled again when the check finds damage.
func TestDamageIsFoundInTheBackground(t *testing.T) {
	stream, last := filled(t, 20)
	path := filepath.Join(t.TempDir(), "ledger.db")
	before := open(t, path)
	projecting(t, stream, before)
	reached(t, before, last)
	want := dump(t, raw(t, path))
	var page int64
	if err := raw(t, path).QueryRowContext(t.Context(), "SELECT rootpage FROM sqlite_schema WHERE name = 'units_digest'").Scan(&page); err != nil {
		t.Fatal(err)
	}
	exec(t, raw(t, path), "PRAGMA wal_checkpoint(TRUNCATE)")
	copied := filepath.Join(t.TempDir(), "ledger.db")
	content, err := os.ReadFile(path) //nolint:gosec // a file of the test
	if err == nil {
		err = os.WriteFile(copied, content, 0o600) //nolint:gosec // another
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := overwrite(copied, (page-1)*4096, bytes.Repeat([]byte{0xa5}, 4096)); err != nil {
		t.Fatal(err)
	}

	store, err := sqldb.Open(t.Context(), sqldb.Config{Path: copied}.CheckedLater())
	if err != nil {
		t.Fatalf("Open() = %v, want what is checked later", err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	projecting(t, stream, store)
	until(t, "the damaged file is set aside", func() bool {
		if _, err := store.Position(t.Context()); err != nil {
			t.Logf("Position: %v", err)
		}
		aside, err := filepath.Glob(copied + ".damaged-*[0-9]")
		return err == nil && len(aside) == 1
	})
	reached(t, store, last)
	sameTables(t, "filled again", dump(t, raw(t, copied)), want)
}

// TestClosingEndsTheCheck does not wait for it, and what is whole stays.
func TestClosingEndsTheCheck(t *testing.T) {
	stream, last := filled(t, 20)
	path := filepath.Join(t.TempDir(), "ledger.db")
	for range 5 {
		store, err := sqldb.Open(t.Context(), sqldb.Config{Path: path}.CheckedLater())
		if err != nil {
			t.Fatal(err)
		}
		t.Run("filled", func(t *testing.T) {
			projecting(t, stream, store)
			reached(t, store, last)
		})
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if aside, err := filepath.Glob(path + ".damaged-*"); err != nil || len(aside) > 0 {
		t.Errorf("set aside: %v, %v; want nothing", aside, err)
	}
}
