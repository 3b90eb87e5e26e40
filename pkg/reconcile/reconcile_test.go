package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enabled is the policy that sweeps are given.
var enabled = policy.Policy{Enabled: true, Revision: "1"}

// world is Harbor, the registry and the queue in memory.
type world struct {
	mu         sync.Mutex
	projects   []string
	population map[string][]artifact.Listed
	signed     map[artifact.Ref]bool
	dead       map[artifact.Ref]time.Time
	waiting    map[artifact.Ref]artifact.Request
	ticks      map[string]int // proposals that were taken, by key
	seen       map[string]bool
	verified   int // how often a signature was checked
	verifyErr  error
	queueErr   error
	listErr    error
}

func (w *world) Projects(context.Context) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.projects, w.listErr
}

func (w *world) Population(ctx context.Context, project string, each func(context.Context, []artifact.Listed) error) error {
	for page := range slices.Chunk(w.population[project], 2) {
		if err := each(ctx, page); err != nil {
			return err
		}
	}
	return w.listErr
}

func (w *world) Enqueue(_ context.Context, r artifact.Request) (bool, error) {
	if w.queueErr != nil {
		return false, w.queueErr
	}
	if _, err := artifact.EncodeRequest(r); err != nil {
		return false, err
	}
	_, duplicate := w.waiting[r.Ref]
	w.waiting[r.Ref] = r
	return duplicate, nil
}

func (w *world) DeadSince(_ context.Context, ref artifact.Ref) (time.Time, bool, error) {
	since, found := w.dead[ref]
	return since, found, nil
}

func (w *world) Propose(_ context.Context, kind, key string, slot int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queueErr != nil {
		return false, w.queueErr
	}
	id := fmt.Sprintf("%s %s %d", kind, key, slot)
	if w.seen[id] {
		return false, nil
	}
	w.seen[id] = true
	w.ticks[key]++
	return true, nil
}

func (w *world) Signed(_ context.Context, p policy.Policy, l artifact.Listed) (bool, error) {
	if !p.Enabled {
		return false, errors.New("the policy is not that of the project")
	}
	w.verified++
	return w.signed[l.Ref], w.verifyErr
}

func (w *world) add(t *testing.T, name string, signatures int, tags ...string) artifact.Ref {
	t.Helper()
	ref, err := artifact.NewRef("demo/app", artifact.DigestOf([]byte(name)))
	if err != nil {
		t.Fatal(err)
	}
	l := artifact.Listed{Ref: ref, Tags: tags}
	for i := range signatures {
		l.Signatures = append(l.Signatures, artifact.DigestOf(fmt.Append(nil, name, i)))
	}
	w.population["demo"] = append(w.population["demo"], l)
	return ref
}

func newWorld() *world {
	return &world{
		population: map[string][]artifact.Listed{}, signed: map[artifact.Ref]bool{}, dead: map[artifact.Ref]time.Time{},
		waiting: map[artifact.Ref]artifact.Request{}, ticks: map[string]int{}, seen: map[string]bool{},
	}
}

func newReconciler(t *testing.T, w *world, patterns ...string) *reconcile.Reconciler {
	t.Helper()
	set, err := policy.NewSet(policy.SetConfig{Projects: patterns})
	if err != nil {
		t.Fatal(err)
	}
	r, err := reconcile.New(reconcile.Config{
		Harbor: w, Queue: w, Policies: set, Signed: w.Signed, Patterns: patterns, Interval: time.Minute, Logger: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSweepAsksForWhatIsUnsigned(t *testing.T) {
	w := newWorld()
	accessory := "sha256-" + strings.Repeat("a", 64) + ".att"
	signed := w.add(t, "signed", 1)
	w.signed[signed] = true
	plain := w.add(t, "plain", 0, "v1")
	garbage := w.add(t, "garbage", 1) // Harbor lists a signature that does not verify
	dead := w.add(t, "dead", 0)
	w.dead[dead] = time.Now().Add(-59 * time.Minute)
	mended := w.add(t, "mended", 0)
	w.dead[mended] = time.Now().Add(-61 * time.Minute)
	attestation := w.add(t, "attestation", 0, accessory)
	both := w.add(t, "both", 0, accessory, "v2") // somebody's image that has an odd tag too
	waiting := w.add(t, "waiting", 0)
	w.waiting[waiting] = artifact.Request{Ref: waiting}

	r := newReconciler(t, w, "demo")
	got, err := r.Sweep(t.Context(), "demo", enabled, "sweep-1")
	if err != nil {
		t.Fatal(err)
	}
	want := reconcile.Summary{Population: 8, Signed: 1, Requested: 4, Waiting: 1, Dead: 1, Excluded: 1}
	if got != want {
		t.Errorf("summary %+v, want %+v", got, want)
	}
	for _, ref := range []artifact.Ref{plain, garbage, both, mended} {
		if q := w.waiting[ref]; q.Lane != artifact.Bulk || q.Origin != artifact.OriginSweep || q.CorrelationID != "sweep-1" {
			t.Errorf("request %+v, want one of the sweep in the bulk lane", q)
		}
	}
	for _, ref := range []artifact.Ref{signed, dead, attestation} {
		if q, asked := w.waiting[ref]; asked {
			t.Errorf("request %+v, want none", q)
		}
	}
}

func TestWhatIsVerifiedIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.signed[w.add(t, "signed", 1)] = true
		w.add(t, "garbage", 1)
		r := newReconciler(t, w, "demo")
		sweep := func(name string, want int) {
			t.Helper()
			w.verified = 0
			if _, err := r.Sweep(t.Context(), "demo", enabled, name); err != nil {
				t.Fatal(err)
			}
			if w.verified != want {
				t.Errorf("%s: %d signatures were checked, want %d", name, w.verified, want)
			}
		}
		sweep("first", 2)
		sweep("second", 1) // the garbage alone: "no" is never remembered
		w.population["demo"][0].Signatures = []string{artifact.DigestOf([]byte("another"))}
		sweep("other signature", 2)
		time.Sleep(time.Hour)
		sweep("an hour later", 2)
	})
}

func TestWhatStaysUnsignedIsAskedForOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ref := w.add(t, "untagged attestation", 0)
		r := newReconciler(t, w, "demo")
		for _, tt := range []struct {
			name string
			wait time.Duration
			want bool
		}{{"first", 0, true}, {"five minutes later", 5 * time.Minute, false}, {"an hour later", time.Hour, true}} {
			time.Sleep(tt.wait)
			clear(w.waiting) // the signer has skipped it
			if _, err := r.Sweep(t.Context(), "demo", enabled, tt.name); err != nil {
				t.Fatal(err)
			}
			if _, asked := w.waiting[ref]; asked != tt.want {
				t.Errorf("%s: asked %t, want %t", tt.name, asked, tt.want)
			}
		}
	})
}

func TestAFullQueueEndsTheSweep(t *testing.T) {
	w := newWorld()
	w.add(t, "plain", 0)
	w.queueErr = fault.New(fault.Transient, fault.QueueFull, errors.New("full"))
	r := newReconciler(t, w, "demo")
	if _, err := r.Sweep(t.Context(), "demo", enabled, "s"); !errors.Is(err, w.queueErr) {
		t.Errorf("error %v, want %v", err, w.queueErr)
	}
	slot := time.Now().UnixNano() / int64(time.Minute)
	if err := r.Tick(t.Context(), "demo", slot); !errors.Is(err, w.queueErr) {
		t.Errorf("Tick error %v, want %v so that the tick is repeated", err, w.queueErr)
	}
	w.queueErr = fault.New(fault.Permanent, fault.Denied, errors.New("no right"))
	if err := r.Tick(t.Context(), "demo", slot); err != nil {
		t.Errorf("Tick error %v, want none: repeating is useless", err)
	}
}

func TestTicks(t *testing.T) {
	w := newWorld()
	plain := w.add(t, "plain", 0)
	current := time.Now().UnixNano() / int64(time.Minute)
	for _, tt := range []struct {
		name    string
		project string
		slot    int64

		sweptBefore bool
		want        bool
	}{
		{"current", "demo", current, false, true},
		{"just over the border", "demo", current - 1, false, true},
		{"too late, but never swept", "demo", current - 3, false, true},
		{"too late", "demo", current - 3, true, false},
		{"not enabled any more", "other", current, false, false},
	} {
		clear(w.waiting)
		r := newReconciler(t, w, "demo") // without a memory of what it asked for
		if tt.sweptBefore {
			if err := r.Tick(t.Context(), "demo", current); err != nil {
				t.Fatal(err)
			}
			clear(w.waiting)
		}
		if err := r.Tick(t.Context(), tt.project, tt.slot); err != nil {
			t.Fatal(err)
		}
		if _, asked := w.waiting[plain]; asked != tt.want {
			t.Errorf("%s: swept %t, want %t", tt.name, asked, tt.want)
		}
	}
}

// TestOneProjectDoesNotHoldUpTheOthers: a project that cannot be listed is not given back to the queue, which hands out
// one tick at a time.
func TestOneProjectDoesNotHoldUpTheOthers(t *testing.T) {
	w := newWorld()
	w.listErr = fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
	r := newReconciler(t, w, "demo")
	if err := r.Tick(t.Context(), "demo", time.Now().UnixNano()/int64(time.Minute)); err != nil {
		t.Errorf("Tick error %v, want none", err)
	}
}

func TestARemovedSignatureIsAskedForAtOnce(t *testing.T) {
	w := newWorld()
	ref := w.add(t, "app", 0)
	r := newReconciler(t, w, "demo")
	sweep := func() {
		t.Helper()
		clear(w.waiting)
		if _, err := r.Sweep(t.Context(), "demo", enabled, "s"); err != nil {
			t.Fatal(err)
		}
	}
	sweep() // asks
	w.population["demo"][0].Signatures = []string{artifact.DigestOf([]byte("signature"))}
	w.signed[ref] = true
	sweep() // sees it signed
	w.population["demo"][0].Signatures = nil
	w.signed[ref] = false
	sweep()
	if _, asked := w.waiting[ref]; !asked {
		t.Error("the removed signature is not asked for")
	}
}

func TestAFailingListOfProjectsDoesNotStopNamedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.listErr = errors.New("no right to list")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		r := newReconciler(t, w, "team-*", "shop")
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := w.ticks["shop"]; got != 1 {
			t.Errorf("shop has %d ticks, want 1", got)
		}
	})
}

// TestReplicasProposeOnce runs three replicas for ten intervals: each project is swept once in each.
func TestReplicasProposeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.projects = []string{"demo", "team-a", "team-b", "other"}
		ctx, cancel := context.WithCancel(t.Context())
		var replicas sync.WaitGroup
		for range 3 {
			r := newReconciler(t, w, "team-*", "demo")
			replicas.Go(func() {
				if err := r.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		time.Sleep(9*time.Minute + 30*time.Second)
		cancel()
		replicas.Wait()
		for _, project := range []string{"demo", "team-a", "team-b"} {
			if got := w.ticks[project]; got != 10 {
				t.Errorf("%s: %d ticks were taken, want 10", project, got)
			}
		}
		if got := w.ticks["other"]; got != 0 {
			t.Errorf("a project that is not enabled has %d ticks", got)
		}
	})
}

func TestProposingOutlivesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.listErr = errors.New("harbor is away")
		ctx, cancel := context.WithCancel(t.Context())
		r := newReconciler(t, w, "*")
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(90 * time.Second)
		w.mu.Lock()
		w.projects, w.listErr = []string{"demo"}, nil
		w.mu.Unlock()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := w.ticks["demo"]; got != 1 {
			t.Errorf("%d ticks after Harbor came back, want 1", got)
		}
	})
}
