package reconcile_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// huge is a Harbor with one project of so many manifests, which are made when they are listed.
type huge struct {
	*world
	manifests int
	peak      uint64
}

func (h *huge) Population(ctx context.Context, _ string, _ artifact.Cursor, each func(context.Context, artifact.Page) error) error {
	for i := 0; i < h.manifests; i += 100 {
		rows := make([]artifact.Listed, 100)
		for k := range rows {
			sum := sha256.Sum256(fmt.Append(nil, i+k))
			ref, err := artifact.NewRef(fmt.Sprint("demo/app", (i+k)%2000), "sha256:"+hex.EncodeToString(sum[:]))
			if err != nil {
				return err
			}
			rows[k] = artifact.Listed{Ref: ref, PushedAt: epoch().Add(time.Duration(i+k) * time.Millisecond)}
		}
		if err := each(ctx, artifact.Page{Manifests: rows, Next: artifact.Cursor{PushedAt: rows[99].PushedAt}}); err != nil {
			return err
		}
	}
	// Now all that is kept is kept.
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	h.peak = stats.HeapAlloc
	return nil
}

func (h *huge) Known(_ context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	known := make([]artifact.Known, len(refs))
	for i, ref := range refs {
		known[i] = artifact.Known{Ref: ref, State: "skipped", Reason: string(policy.NotBackfilled)}
	}
	return known, nil
}

// TestMemoryOfAMillion: what a sweep keeps of a million digests, where it has to keep the most.
func TestMemoryOfAMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("lists a million manifests")
	}
	h := &huge{world: newWorld(), manifests: 1_000_000}
	h.policy(func(p *policy.Policy) { p.From = time.Now() })
	r := h.reconciler(t, func(c *reconcile.Config) { c.Harbor, c.Memory = h, h })
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sum, _ := h.tick(t, r, -1)
	if sum.Population != h.manifests || sum.Excluded != h.manifests {
		t.Errorf("%+v, want a million, all out of scope", sum)
	}
	if kept := (h.peak - before.HeapAlloc) >> 20; kept > 100 {
		t.Errorf("a million digests keep %d MiB, want 100 at most", kept)
	} else {
		t.Logf("a million digests keep %d MiB", kept)
	}
}
