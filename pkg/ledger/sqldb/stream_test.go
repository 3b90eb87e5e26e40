package sqldb_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestOneAndEach(t *testing.T) { onBoth(t, testOneAndEach) }

func testOneAndEach(t *testing.T, d database) {
	t.Helper()
	store := d.open(t)
	position, err := store.Reset(t.Context(), ledger.Position{}, ledgertest.Epoch(), ledger.Rules)
	if err != nil {
		t.Fatal(err)
	}
	var events []artifact.Event
	for n := range 1234 {
		e := ledgertest.Event(artifact.Received, ledgertest.Ref("demo/app", n))
		e.Tag = "v1"
		events = append(events, e)
	}
	if err := store.Apply(t.Context(), position.Basis, ledgertest.Entries(events...)); err != nil {
		t.Fatal(err)
	}

	want := ledgertest.All(t, store, ledger.Query{})
	var got []ledger.Row
	// What is written meanwhile is not in the snapshot.
	at, err := store.Each(t.Context(), ledger.Query{Limit: 1}, func(row ledger.Row) error {
		if len(got) == 0 {
			late := ledgertest.Event(artifact.Vanished, ledgertest.Ref("demo/app", 0))
			if err := store.Apply(t.Context(), position.Basis, []artifact.Entry{{Seq: 2000, Event: late}}); err != nil {
				t.Errorf("Apply beside Each: %v", err)
			}
		}
		got = append(got, row)
		return nil
	})
	if err != nil || at.Seq != 1234 || !at.Basis.Equal(position.Basis) {
		t.Errorf("Each = %+v, %v; want the position of the snapshot, 1234", at, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Each gave %d rows, want the %d of the pages", len(got), len(want))
	}

	enough := errors.New("enough")
	count := 0
	if _, err := store.Each(t.Context(), ledger.Query{}, func(ledger.Row) error { count++; return enough }); !errors.Is(err, enough) || count != 1 {
		t.Errorf("Each that is stopped = %v after %d rows, want %v after 1", err, count, enough)
	}

	if row, found, err := store.One(t.Context(), ledgertest.Ref("demo/app", 7)); err != nil || !found || row.Digest != ledgertest.Ref("demo/app", 7).Digest() || len(row.Tags) != 1 {
		t.Errorf("One = %+v, %t, %v; want the row with its tag", row, found, err)
	}
	if row, found, err := store.One(t.Context(), ledgertest.Ref("demo/app", 9999)); err != nil || found || row.Digest != "" {
		t.Errorf("One of what nobody knows = %+v, %t, %v; want none", row, found, err)
	}
}
