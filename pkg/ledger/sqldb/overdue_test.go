package sqldb_test

import (
	"slices"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/overdue"
)

// TestOverdue: what was received, is pending and was quiet since a sequence, page by page.
func TestOverdue(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		store := d.open(t)
		var events []artifact.Event
		add := func(n int, kinds ...artifact.Kind) artifact.Ref {
			ref := ledgertest.Ref("demo/app", n)
			for _, kind := range kinds {
				e := ledgertest.Event(kind, ref)
				e.Reason = "timeout"
				events = append(events, e)
			}
			return ref
		}
		want := []artifact.Ref{add(1, artifact.Received), add(2, artifact.Received, artifact.Received), add(3, artifact.Failed, artifact.Received)}
		add(4, artifact.Queued) // no push: its index asks for it
		add(5, artifact.Received, artifact.Signed)
		add(6, artifact.Received, artifact.Failed)
		want = append(want, add(7, artifact.Received))
		upTo := uint64(len(events))
		add(8, artifact.Received)
		add(1, artifact.Received) // once more: it is not quiet
		want = want[1:]
		ledgertest.Apply(t, store, ledgertest.Begin(t, store), ledgertest.Entries(events...)...)
		for _, limit := range []int{1, 2, len(want), 100} {
			var got []artifact.Ref
			place := overdue.Place{}
			for pages := 0; ; pages++ {
				refs, next, err := store.Overdue(t.Context(), upTo, place, limit)
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, refs...); next.IsZero() {
					break
				}
				if place = next; len(refs) != limit || pages > 10 {
					t.Fatalf("limit %d: a page of %d, and another", limit, len(refs))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("limit %d: got %v, want %v", limit, got, want)
			}
		}
		behind, next, err := store.Overdue(t.Context(), uint64(len(events))+1, overdue.Place{}, 100)
		if err != nil || len(behind) > 0 || !next.IsZero() {
			t.Errorf("the view is behind: got %v, %v, %v; want nothing", behind, next, err)
		}
	})
}
