package enroll_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// ordered notes what is proposed, in order. It is the property of one goroutine.
type ordered struct {
	*world
	proposed *[]string
}

func (o ordered) Propose(ctx context.Context, kind, key string, slot int64) (bool, error) {
	*o.proposed = append(*o.proposed, key)
	return o.world.Propose(ctx, kind, key, slot)
}

// declareAll declares that everything is signed.
func declareAll(t *testing.T, s *enroll.Service) {
	t.Helper()
	declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"*"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
}

// runFor runs the rounds for some time of the bubble.
func runFor(t *testing.T, s *enroll.Service, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	time.Sleep(d)
	synctest.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestRoundsBeginElsewhere: where checks are dropped because they come too late, it must not be the same projects each time.
func TestRoundsBeginElsewhere(t *testing.T) {
	for _, projects := range []int{2, 97, 194} {
		synctest.Test(t, func(t *testing.T) {
			const rounds = 30
			w := newWorld()
			clear(w.projects)
			for i := range projects {
				name := fmt.Sprintf("p%03d", i)
				w.projects[name] = artifact.Project{ID: int64(i + 1), Name: name}
			}
			var proposed []string
			s, _ := w.receiver(t, func(c *enroll.Config) { c.Now, c.Queue = time.Now, ordered{w, &proposed} })
			declareAll(t, s)
			runFor(t, s, rounds*5*time.Minute-time.Second)
			begun := map[string]int{}
			for round := range slices.Chunk(proposed, projects) {
				begun[round[0]]++
				slices.Sort(round)
				if len(slices.Compact(round)) != projects {
					t.Fatalf("a round has %d projects, want %d", len(slices.Compact(round)), projects)
				}
			}
			if want := min(projects, rounds/2); len(begun) < want {
				t.Errorf("%d rounds of %d projects began at %v, want %d places at least", rounds, projects, begun, want)
			}
		})
	}
}

// TestALostBucketIsDeclaredAnew: the file's word counts again without a restart.
func TestALostBucketIsDeclaredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, b := w.receiver(t, func(c *enroll.Config) { c.Now = time.Now })
		declareAll(t, s)
		w.mu.Lock()
		clear(w.entries)
		w.last++
		b.Apply(book.Entry{Kind: book.Declared, Revision: w.last})
		w.mu.Unlock()
		if p, err := b.Policy(t.Context(), "demo"); err != nil || p.Enabled() {
			t.Fatalf("policy = %+v, %v; want it lost, or the test is about nothing", p, err)
		}
		runFor(t, s, 5*time.Minute)
		if p, err := b.Policy(t.Context(), "demo"); err != nil || !p.Enabled() {
			t.Errorf("policy = %+v, %v; want what the file declares", p, err)
		}
	})
}

// brokenDeclared is a bucket that takes no declared policies.
type brokenDeclared struct{ *world }

func (b brokenDeclared) GetPolicy(ctx context.Context, kind book.Kind, project string) (book.Entry, error) {
	if kind == book.Declared {
		return book.Entry{}, fault.Newf(fault.Permanent, fault.TooLarge, "too large")
	}
	return b.world.GetPolicy(ctx, kind, project)
}

// TestChecksGoOnWithoutTheFile: what cannot be declared keeps no project from being checked.
func TestChecksGoOnWithoutTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := w.receiver(t, func(c *enroll.Config) { c.Now, c.Queue = time.Now, brokenDeclared{w} })
		mustPut(t, s, all(), "")
		declared, err := policy.NewDeclared(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Declare(t.Context(), declared); err == nil {
			t.Fatal("Declare succeeded: the test is about nothing")
		}
		runFor(t, s, time.Second)
		drift := 0
		for tick := range w.ticks {
			if strings.HasPrefix(tick, enroll.DriftTick+" demo ") {
				drift++
			}
		}
		if drift != 1 {
			t.Errorf("ticks = %v, want a check of demo", w.ticks)
		}
	})
}

// TestNoAnnotationsAreKept: an empty object is another thing than none, all the way to the signers.
func TestNoAnnotationsAreKept(t *testing.T) {
	w := newWorld()
	s, b := w.receiver(t)
	request := all()
	request.Annotations = map[string]string{}
	mustPut(t, s, request, "")
	v, err := s.Get(t.Context(), "demo")
	if err != nil || v.Policy.Annotations == nil || len(v.Policy.Annotations) != 0 {
		t.Errorf("Get: %#v, %v; want no annotations", v.Policy.Annotations, err)
	}
	p, err := b.Policy(t.Context(), "demo")
	if err != nil || p.Terms.Annotations == nil || len(p.Terms.Annotations) != 0 {
		t.Errorf("policy: %#v, %v; want no annotations", p.Terms.Annotations, err)
	}
}
