package sqldb_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestResigned(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	position, err := store.Reset(t.Context(), ledger.Position{}, ledgertest.Epoch(), ledger.Rules)
	if err != nil {
		t.Fatal(err)
	}
	rotated := ledgertest.Epoch().Add(time.Hour)
	signed := func(repository string, n int, at time.Time, keys ...string) artifact.Event {
		e := ledgertest.Event(artifact.Signed, ledgertest.Ref(repository, n))
		e.Time, e.KeyID = at, keys[0]
		for _, key := range keys {
			e.Signatures = append(e.Signatures, artifact.Evidence{Format: artifact.Legacy, KeyID: key, Digest: "sha256:x"})
		}
		return e
	}
	early, late := ledgertest.Epoch(), rotated.Add(time.Minute)
	if err := store.Apply(t.Context(), position.Basis, ledgertest.Entries(
		signed("demo/app", 1, early, "old"), signed("demo/app", 2, early, "old"), signed("demo/app", 2, late, "new", "old"), // one is left, one is done
		signed("demo/app", 3, late, "new"),  // pushed after the change: no part of it
		signed("demo/app", 4, early, "new"), // had the new key's before
		signed("other/app", 1, early, "old"),
	)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		project    string
		keys       []string
		left, done int
	}{
		{"demo", []string{"new"}, 1, 1},
		{"demo", []string{"new", "newer"}, 1, 1},
		{"demo", []string{"new", "old"}, 0, 1},
		{"demo", nil, 0, 0},
		{"other", []string{"new"}, 1, 0},
		{"none", []string{"new"}, 0, 0},
	} {
		left, done, err := store.Resigned(t.Context(), tt.project, tt.keys, rotated)
		if err != nil || left != tt.left || done != tt.done {
			t.Errorf("%s by %v: %d left and %d done, %v; want %d and %d", tt.project, tt.keys, left, done, err, tt.left, tt.done)
		}
	}
}
