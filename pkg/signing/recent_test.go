package signing_test

import (
	"testing"

	"github.com/harborseal/harborseal/pkg/signing"
)

// TestAMemoryIsBounded: it keeps its size of the newest entries at least, and twice as many at most.
func TestAMemoryIsBounded(t *testing.T) {
	const size = 100
	r := signing.NewRecent[int, int](size)
	for n := range 10 * size {
		r.Put(n, -n)
		for back := range min(n+1, size) {
			if got, found := r.Get(n - back); !found || got != back-n {
				t.Fatalf("after %d entries the one that came %d before is %d (%t), want %d", n+1, back, got, found, back-n)
			}
		}
		if got := r.Len(); got > 2*size {
			t.Fatalf("after %d entries %d are kept, want at most %d", n+1, got, 2*size)
		}
	}
	if _, found := r.Get(7 * size); found {
		t.Error("the oldest are kept still")
	}
}
