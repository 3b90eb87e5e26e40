package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// TestAnAskedForSweepThatFailsIsMadeUp: the project was swept within the interval, so that it is not due.
func TestAnAskedForSweepThatFailsIsMadeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ref := w.add(t, "app", nil)
		r := w.reconciler(t)
		w.sweep(t, r)
		clear(w.waiting)
		time.Sleep(time.Second)
		w.policy(func(p *policy.Policy) { p.Revision = "2" })
		w.listErr["demo"] = fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
		asked := reconcile.AdHoc(time.Now())
		attempts := 1
		for r.Tick(t.Context(), reconcile.Full, "demo", asked) != nil {
			if attempts++; attempts > 50 {
				t.Fatal("the tick comes back for ever")
			}
		}
		delete(w.listErr, "demo")
		time.Sleep(time.Hour)
		slot := time.Now().UnixNano() / int64(time.Hour)
		if slot%24 == 0 {
			slot++
		}
		w.tick(t, w.reconciler(t), slot)
		if _, found := w.waiting[ref]; !found {
			t.Error("the next part of the interval does not make up for it")
		}
		time.Sleep(time.Hour)
		clear(w.requests)
		if err := r.Tick(t.Context(), reconcile.Full, "demo", slot+1); err != nil || slot%24 != 23 && w.requests["page"] != 0 {
			t.Errorf("the part after that: %v and %v, want nothing done", err, w.requests)
		}
	})
}

// TestDeadLettersOfASweepThatIsAskedFor: a scheduled sweep has just begun, which leaves them alone.
func TestDeadLettersOfASweepThatIsAskedFor(t *testing.T) {
	for _, during := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			ref := w.add(t, "dead", nil)
			w.dead[ref] = time.Now()
			asked := reconcile.AdHoc(time.Now())
			time.Sleep(time.Second)
			r, other := w.reconciler(t), w.reconciler(t)
			ask := func() {
				if err := other.Tick(t.Context(), reconcile.Full, "demo", asked); err != nil {
					t.Errorf("Tick: %v", err)
				}
			}
			if during {
				w.onPage = func(int) error { w.onPage = nil; ask(); return nil }
			}
			w.tick(t, r, time.Now().UnixNano()/int64(time.Hour)-1)
			if !during {
				ask()
			}
			for _, slot := range w.proposed("demo") {
				w.tick(t, r, slot)
			}
			if _, found := w.waiting[ref]; !found {
				t.Errorf("asked for during the other one: %t: the dead letter is not tried", during)
			}
		})
	}
}

// limited keeps states as the queue does, of 256 KiB at most, and lists like Harbor: the edge of a page is a whole second.
type limited struct {
	*world
	refused int
}

func (l *limited) SaveState(ctx context.Context, kind, key string, value []byte, expect uint64) (uint64, error) {
	if len(value) > 256<<10 {
		l.refused++
		return 0, fault.Newf(fault.Permanent, fault.TooLarge, "%d bytes, at most %d", len(value), 256<<10)
	}
	return l.world.SaveState(ctx, kind, key, value, expect)
}

func (l *limited) Population(ctx context.Context, project string, from artifact.Cursor, each func(context.Context, artifact.Page) error) error {
	rows := l.rows(project)
	edge := slices.Clone(from.Edge)
	rows = slices.DeleteFunc(rows, func(row artifact.Listed) bool {
		return row.PushedAt.Before(from.PushedAt) || row.PushedAt.Equal(from.PushedAt) && slices.Contains(from.Edge, row.Ref)
	})
	at := from.PushedAt
	for page := range slices.Chunk(rows, l.pageSize) {
		if l.onPage != nil {
			if err := l.onPage(0); err != nil {
				return err
			}
		}
		for _, row := range page {
			if !row.PushedAt.Equal(at) {
				at, edge = row.PushedAt, nil
			}
			edge = append(edge, row.Ref)
		}
		next := artifact.Cursor{PushedAt: at, Edge: slices.Clone(edge)}
		if err := each(ctx, artifact.Page{Manifests: page, Next: next}); err != nil {
			return err
		}
	}
	return nil
}

// TestASecondOfVeryMany is more than a state can name. Another worker goes on in the middle of it, or the same one.
func TestASecondOfVeryMany(t *testing.T) {
	const before, within = 50, 3000
	for _, another := range []bool{false, true} {
		w := newWorld()
		w.pageSize = 100
		for i := range before + within {
			ref, err := artifact.NewRef("demo/"+strings.Repeat("x", 200), artifact.DigestOf(fmt.Append(nil, i)))
			if err != nil {
				t.Fatal(err)
			}
			w.population = append(w.population, artifact.Listed{Ref: ref, Tags: []string{"v1"}, PushedAt: epoch().Add(time.Duration(min(i, before)) * time.Second)})
		}
		l := &limited{world: w}
		with := func(c *reconcile.Config) { c.Harbor, c.State = l, l }
		r := w.reconciler(t, with)
		pages := 0
		w.onPage = func(int) error {
			if pages++; pages == 25 {
				return fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
			}
			return nil
		}
		if err := r.Tick(t.Context(), reconcile.Full, "demo", -9); err == nil {
			t.Fatal("the first attempt was not interrupted")
		}
		if another {
			r = w.reconciler(t, with)
		}
		sum, _ := w.tick(t, r, -9)
		if len(w.waiting) != before+within || sum.Population != before+within || l.refused != 0 {
			t.Errorf("another worker goes on %t: %d asked for, population %d, %d states refused, want all of %d, and none",
				another, len(w.waiting), sum.Population, l.refused, before+within)
		}
	}
}

// TestVeryManyProjectsThatAreBehind are more than a state can name: then recent sweeps look back in all of them.
func TestVeryManyProjectsThatAreBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := &limited{world: w}
		r := w.reconciler(t, func(c *reconcile.Config) { c.State = l })
		w.minute(t, r)
		first := w.watermark(t)
		broken := fault.New(fault.Permanent, fault.Malformed, errors.New("cannot be read"))
		for i := range 2000 {
			name := fmt.Sprintf("team%0230d", i)
			w.policies[name] = policy.Policy{Project: name, Mode: policy.ModeSign, Manager: policy.ByAPI, Revision: "1"}
			w.feed = append(w.feed, artifact.Pushed{Ref: refIn(t, name), Tag: "v1", By: "ci", At: time.Now()})
			w.policyErr[name] = broken
		}
		for range 5 {
			w.minute(t, r)
		}
		if at := w.watermark(t); l.refused != 0 || at.Before(first.Add(-5*time.Minute)) || at.After(first.Add(time.Minute)) {
			t.Errorf("%d states refused, watermark %s, want none, and that of before, %s", l.refused, at, first)
		}
		clear(w.policyErr)
		w.minute(t, r)
		if len(w.waiting) != 2000 {
			t.Errorf("%d asked for when the policies can be read again, want 2000", len(w.waiting))
		}
	})
}

func refIn(tb testing.TB, project string) artifact.Ref {
	tb.Helper()
	ref, err := artifact.NewRef(project+"/app", artifact.DigestOf([]byte(project)))
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}
