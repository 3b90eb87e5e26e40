package canary_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/canary"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is Harbor, the queue and the verifier as a canary sees them: a push is received and signed after a while.
type world struct {
	mu       sync.Mutex
	pushed   map[string]artifact.Listed // by digest; guarded by mu
	removed  []string                   // guarded by mu
	blobs    map[string]bool            // guarded by mu
	proposed []string                   // guarded by mu
	policy   policy.Policy
	// The delays after a push; negative for never.
	receivedAfter, signedAfter, loggedAfter, paidAfter time.Duration
	pushErr, removeErr                                 error
	removeHangs                                        bool
}

func newWorld() *world {
	return &world{
		pushed: map[string]artifact.Listed{}, blobs: map[string]bool{},
		policy: policy.Policy{Project: "canaries", Mode: policy.ModeSign, Canary: true, Terms: policy.Terms{Key: "main", Log: "rekor"}},
	}
}

func (w *world) PushBlob(_ context.Context, _ string, b artifact.Blob) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blobs[b.Digest] = artifact.DigestOf(b.Raw) == b.Digest
	return w.pushErr
}

func (w *world) PutManifest(_ context.Context, repository, reference string, m artifact.Manifest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reference != m.Digest || artifact.DigestOf(m.Raw) != m.Digest || len(w.blobs) < 2 {
		return errors.New("not an image")
	}
	ref, err := artifact.NewRef(repository, m.Digest)
	w.pushed[m.Digest] = artifact.Listed{Ref: ref, PushedAt: time.Now()}
	return err
}

func (w *world) since(digest string, after time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, there := w.pushed[digest]
	return there && after >= 0 && time.Since(l.PushedAt) >= after
}

func (w *world) Population(ctx context.Context, _ string, _ artifact.Cursor, each func(context.Context, artifact.Page) error) error {
	w.mu.Lock()
	var page artifact.Page
	for _, l := range w.pushed {
		page.Manifests = append(page.Manifests, l)
	}
	w.mu.Unlock()
	return each(ctx, page)
}

func (w *world) RemoveArtifact(ctx context.Context, ref artifact.Ref) error {
	if w.removeHangs {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.pushed[ref.Digest()]; !there {
		return fault.Newf(fault.Gone, fault.NotFound, "not there")
	}
	if w.removeErr != nil {
		return w.removeErr
	}
	delete(w.pushed, ref.Digest())
	w.removed = append(w.removed, ref.Digest())
	return nil
}

func (w *world) LastReceived(_ context.Context, ref artifact.Ref) (uint64, artifact.Event, error) {
	if w.since(ref.Digest(), w.receivedAfter) {
		return 7, artifact.Event{}, nil
	}
	return 0, artifact.Event{}, nil
}

// Owing gives what the last of the debts is: none once the entry is there.
func (w *world) Owing(_ context.Context, ref artifact.Ref) (bool, error) {
	return !w.since(ref.Digest(), w.paidAfter), nil
}

func (w *world) Propose(_ context.Context, kind, key string, _ int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proposed = append(w.proposed, kind+"/"+key)
	return true, nil
}

func (w *world) Verify(_ context.Context, _ policy.Policy, l artifact.Listed) ([]artifact.Evidence, string, bool, error) {
	if !w.since(l.Ref.Digest(), w.signedAfter) {
		return nil, "", false, nil
	}
	e := artifact.Evidence{Format: artifact.Legacy, KeyID: "k", Digest: l.Ref.Digest()}
	if w.since(l.Ref.Digest(), w.loggedAfter) {
		e.Log = "rekor"
	}
	return []artifact.Evidence{e}, "", true, nil
}

func (w *world) Owes(_ context.Context, _ policy.Policy, evidence []artifact.Evidence) ([]artifact.Format, error) {
	if evidence[0].Log == "" {
		return []artifact.Format{artifact.Legacy}, nil
	}
	return nil, nil
}

func (w *world) Policy(context.Context, string) (policy.Policy, error) { return w.policy, nil }

func (w *world) Canaries() ([]string, error) { return []string{"canaries"}, nil }

func (w *world) canary(t *testing.T, reg prometheus.Registerer) *canary.Canary {
	t.Helper()
	c, err := canary.New(canary.Config{
		Registry: w, Harbor: w, Queue: w, Verifier: w, Policies: w, Logger: zerolog.Nop(), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func slotNow() int64 { return time.Now().UnixNano() / int64(time.Minute) }

func TestTrial(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world)
		failed string // the step; empty for a success
		left   int    // images that stay
	}{
		"signed": {change: func(*world) {}},
		"signed slowly": {change: func(w *world) {
			w.signedAfter, w.receivedAfter, w.loggedAfter = 40*time.Second, 50*time.Second, 55*time.Second
		}},
		"no signature":      {change: func(w *world) { w.signedAfter = -1 }, failed: "signature"},
		"no webhook":        {change: func(w *world) { w.receivedAfter = -1 }, failed: "webhook"},
		"a debt that stays": {change: func(w *world) { w.paidAfter = -1 }, failed: "log"},
		"no log entry":      {change: func(w *world) { w.loggedAfter = -1 }, failed: "log"},
		"cannot push":       {change: func(w *world) { w.pushErr = errors.New("quota") }, failed: "push"},
		"cannot be removed": {change: func(w *world) { w.removeErr = errors.New("denied") }, failed: "cleanup", left: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, reg := newWorld(), prometheus.NewRegistry()
				tc.change(w)
				if err := w.canary(t, reg).Tick(t.Context(), "canaries", slotNow()); err != nil {
					t.Fatalf("Tick: %v", err)
				}
				if len(w.pushed) != tc.left {
					t.Errorf("%d images are left, want %d", len(w.pushed), tc.left)
				}
				failures, err := testutil.GatherAndCount(reg, "harborseal_canary_failures_total")
				if err != nil {
					t.Fatal(err)
				}
				if want := min(len(tc.failed), 1); failures != want {
					t.Errorf("%d steps have failed, want %d", failures, want)
				}
				if tc.failed != "" && !hasFailure(t, reg, tc.failed) {
					t.Errorf("the step %s is not among the failures", tc.failed)
				}
				successes, err := testutil.GatherAndCount(reg, "harborseal_canary_last_success_timestamp_seconds")
				if err != nil {
					t.Fatal(err)
				}
				if want := tc.failed == "" || tc.failed == "cleanup"; (successes == 1) != want {
					t.Errorf("%d successes, want one: %v", successes, want)
				}
			})
		})
	}
}

func hasFailure(t *testing.T, reg *prometheus.Registry, step string) bool {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "harborseal_canary_failures_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "step" && l.GetValue() == step && m.GetCounter().GetValue() == 1 {
					return true
				}
			}
		}
	}
	return false
}

func TestProjectsThatAreNoCanaries(t *testing.T) {
	for name, change := range map[string]func(p *policy.Policy){
		"not a canary": func(p *policy.Policy) { p.Canary = false },
		"observed":     func(p *policy.Policy) { p.Mode = policy.ModeObserve },
		"paused":       func(p *policy.Policy) { p.Pause = &policy.Pause{Paused: true} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			change(&w.policy)
			if err := w.canary(t, nil).Tick(t.Context(), "canaries", slotNow()); err != nil {
				t.Fatalf("Tick: %v", err)
			}
			if len(w.removed) != 0 || len(w.blobs) != 0 {
				t.Errorf("something was pushed: %v, %v", w.removed, w.blobs)
			}
		})
	}
}

func TestSlotThatHasPassed(t *testing.T) {
	w := newWorld()
	if err := w.canary(t, nil).Tick(t.Context(), "canaries", slotNow()-5); err != nil {
		t.Fatalf("Tick: %v", err)
	}
	if len(w.blobs) != 0 {
		t.Error("a trial was made for a slot that has passed")
	}
}

func TestLeftImagesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		listed := func(repository, content string, age time.Duration) artifact.Listed {
			ref, err := artifact.NewRef(repository, artifact.DigestOf([]byte(content)))
			if err != nil {
				t.Fatal(err)
			}
			l := artifact.Listed{Ref: ref, PushedAt: time.Now().Add(-age)}
			w.pushed[ref.Digest()] = l
			return l
		}
		old := listed("canaries/"+canary.Repository, "old", time.Hour)
		young := listed("canaries/"+canary.Repository, "young", time.Minute)
		foreign := listed("canaries/app", "foreign", time.Hour)
		// One of ten slots looks.
		for time.Now().UnixNano()/int64(time.Minute)%10 != 0 {
			time.Sleep(time.Minute)
		}
		w.pushed[young.Ref.Digest()] = artifact.Listed{Ref: young.Ref, PushedAt: time.Now().Add(-time.Minute)}
		if err := w.canary(t, nil).Tick(t.Context(), "canaries", slotNow()); err != nil {
			t.Fatalf("Tick: %v", err)
		}
		if !slices.Contains(w.removed, old.Ref.Digest()) {
			t.Error("the image of an interrupted trial is left")
		}
		for _, l := range []artifact.Listed{young, foreign} {
			if slices.Contains(w.removed, l.Ref.Digest()) {
				t.Errorf("%s was removed", l.Ref)
			}
		}
	})
}

func TestInterruptedTrialCleansUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.signedAfter = -1
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		if err := w.canary(t, nil).Tick(ctx, "canaries", slotNow()); !errors.Is(err, context.Canceled) {
			t.Errorf("Tick = %v, want that it was canceled: another program makes the trial", err)
		}
		if len(w.pushed) != 0 {
			t.Error("the image is left")
		}
	})
}

func TestRunProposesEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Second)
		defer cancel()
		if err := w.canary(t, nil).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(w.proposed) < 4 || w.proposed[0] != "canary/canaries" {
			t.Errorf("proposed %v, want canary/canaries in each of three intervals and at the start", w.proposed)
		}
	})
}

// TestMetricsOfWhatIsTriedNoMore: an alert on the last success would never end.
func TestMetricsOfWhatIsTriedNoMore(t *testing.T) {
	for name, change := range map[string]func(p *policy.Policy){
		"paused":      func(p *policy.Policy) { p.Pause = &policy.Pause{Paused: true} },
		"another log": func(p *policy.Policy) { p.Terms.Log = "new" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, reg := newWorld(), prometheus.NewRegistry()
				c := w.canary(t, reg)
				if err := c.Tick(t.Context(), "canaries", slotNow()); err != nil {
					t.Fatal(err)
				}
				run := func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := c.Run(ctx); err != nil {
						t.Fatal(err)
					}
				}
				has := func() bool {
					n, err := testutil.GatherAndCount(reg, "harborseal_canary_last_success_timestamp_seconds")
					if err != nil {
						t.Fatal(err)
					}
					return n == 1
				}
				if run(); !has() {
					t.Error("the last success is not there, want it while the project is tried")
				}
				change(&w.policy)
				if run(); has() {
					t.Error("the last success is there, want nothing of a pair that is not tried")
				}
			})
		})
	}
}

// TestStoppingDoesNotWaitForHarbor longer than a moment: what is in hand of everybody is to be finished.
func TestStoppingDoesNotWaitForHarbor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.signedAfter, w.removeHangs = -1, true
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		started := time.Now()
		if err := w.canary(t, nil).Tick(ctx, "canaries", slotNow()); !errors.Is(err, context.Canceled) {
			t.Errorf("Tick = %v, want that it was canceled", err)
		}
		if took := time.Since(started); took > 10*time.Second {
			t.Errorf("it took %s to stop, want at most 5 s", took-5*time.Second)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := canary.New(canary.Config{}); err == nil {
		t.Error("New takes a configuration without anything")
	}
}
