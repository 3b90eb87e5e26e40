package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// TestAProjectIsSweptOnceInAnInterval does all ticks of four days that three replicas propose, and counts the sweeps.
func TestAProjectIsSweptOnceInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(t, "m", nil)
		for i := range 20 {
			name := fmt.Sprint("team", i)
			w.projects[name], w.policies[name] = int64(100+i), policy.Policy{Project: name, Mode: policy.ModeSign, Revision: "1"}
		}
		w.projects["other"] = 9
		names := slices.Sorted(maps.Keys(w.projects))
		ctx, cancel := context.WithCancel(t.Context())
		var replicas sync.WaitGroup
		for range 3 {
			r := w.reconciler(t)
			replicas.Go(func() {
				if err := r.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		r := w.reconciler(t)
		did := map[string]int{}
		hours := map[string][]time.Time{}
		for range 96 {
			time.Sleep(time.Hour)
			synctest.Wait()
			before := len(w.events)
			for _, name := range names {
				ticks := w.proposed(name)
				for ; did[name] < len(ticks); did[name]++ {
					if err := r.Tick(ctx, "full", name, ticks[did[name]]); err != nil {
						t.Errorf("Tick: %v", err)
					}
				}
			}
			for _, e := range w.events[before:] {
				if e.Kind == artifact.Swept {
					hours[e.Project] = append(hours[e.Project], e.Time)
				}
			}
		}
		cancel()
		replicas.Wait()
		if len(hours["other"]) != 0 || len(w.proposed("other")) != 0 {
			t.Error("a project that is not enabled is swept")
		}
		spread := map[int]bool{}
		for i := range 20 {
			times := hours[fmt.Sprint("team", i)]
			// One at the beginning, which makes up for what was never done, and one a day at a time of its own.
			if len(times) < 4 || len(times) > 5 {
				t.Errorf("team%d was swept %d times in four days, want one more than four at most", i, len(times))
			}
			for k := 2; k < len(times); k++ {
				if d := times[k].Sub(times[k-1]); d < 23*time.Hour || d > 25*time.Hour {
					t.Errorf("team%d was swept %s after the last time, want a day", i, d)
				}
			}
			if len(times) > 1 {
				spread[times[1].Hour()] = true
			}
		}
		if len(spread) < 8 {
			t.Errorf("20 projects are swept in %d hours of the day, want them spread", len(spread))
		}
	})
}

func TestAFailedSweepIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		plain := w.add(t, "plain", nil)
		ctx, cancel := context.WithCancel(t.Context())
		r := w.reconciler(t)
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		w.mu.Lock()
		w.listErr["demo"] = fault.New(fault.Permanent, fault.Denied, errors.New("403"))
		w.mu.Unlock()
		for hour := range 4 {
			if hour == 2 {
				w.mu.Lock()
				delete(w.listErr, "demo")
				w.mu.Unlock()
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			all := w.proposed("demo")
			if err := r.Tick(ctx, "full", "demo", all[len(all)-1]); err != nil {
				t.Errorf("Tick: %v, want the others not held up", err)
			}
			if _, asked := w.waiting[plain]; asked != (hour >= 2) {
				t.Errorf("hour %d: asked %t, want it with the first slot after the right came back", hour, asked)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := w.requests["page"]; n != 3 {
			t.Errorf("%d pages were listed, want 3: after the success nothing is due", n)
		}
	})
}

func TestTicksThatAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(t, "m", nil)
		r := w.reconciler(t)
		w.sweep(t, r)
		asked := reconcile.AdHoc(time.Now().Add(-time.Minute))
		for _, tt := range []struct {
			name    string
			prepare func()
			project string
			slot    int64
			want    bool
		}{
			{"too late", nil, "demo", 24 * 100, false},
			{"asked for before the last sweep", nil, "demo", asked, false},
			{"asked for after it", func() { time.Sleep(time.Minute) }, "demo", reconcile.AdHoc(time.Now().Add(time.Second)), true},
			{"the same one again", nil, "demo", reconcile.AdHoc(time.Now().Add(time.Second)), false},
			{"asked for before, under an older policy", func() { w.policy(func(p *policy.Policy) { p.Revision = "2" }) }, "demo", asked, true},
			{"not enabled", nil, "other", -7, false},
			{"off", func() { w.policy(func(p *policy.Policy) { p.Mode = policy.ModeOff }) }, "demo", -8, false},
			{"suspended", func() { w.policy(func(p *policy.Policy) { p.Mode, p.SuspendedFor = policy.ModeSign, 8 }) }, "demo", -9, false},
		} {
			if tt.prepare != nil {
				tt.prepare()
			}
			before := len(w.events)
			if err := r.Tick(t.Context(), "full", tt.project, tt.slot); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got := len(w.events) > before; got != tt.want {
				t.Errorf("%s: swept %t, want %t", tt.name, got, tt.want)
			}
		}
	})
}

// TestASecondWorker meets a sweep that is in work.
func TestASecondWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 6 {
			w.add(t, fmt.Sprint("m", i), nil)
		}
		first, second := w.reconciler(t), w.reconciler(t)
		at, goOn := make(chan struct{}), make(chan struct{})
		w.onPage = func(number int) error {
			if number == 2 {
				close(at)
				<-goOn
			}
			return nil
		}
		slot := reconcile.AdHoc(time.Now())
		ended := make(chan error)
		go func() { ended <- first.Tick(t.Context(), "full", "demo", slot) }()
		<-at
		if err := second.Tick(t.Context(), "full", "demo", slot); fault.Of(err).RetryAfter < 2*time.Minute {
			t.Errorf("the same tick: %v, want it to come again when the first worker must be gone", err)
		}
		time.Sleep(time.Second)
		later := reconcile.AdHoc(time.Now())
		if err := second.Tick(t.Context(), "full", "demo", later); err != nil {
			t.Errorf("a later one: %v, want it left to the end of the first", err)
		}
		if len(w.events) != 0 {
			t.Errorf("the second worker wrote %v", kinds(w.events))
		}
		time.Sleep(time.Second)
		close(goOn)
		if err := <-ended; err != nil {
			t.Errorf("the first worker: %v", err)
		}
		if len(w.events) != 1 || w.events[0].Sweep.Population != 6 {
			t.Errorf("%v, want one summary of 6", kinds(w.events))
		}
		if ticks := w.proposed("demo"); len(ticks) != 1 || ticks[0] > later {
			t.Errorf("ticks %v, want one more for what was asked for meanwhile", ticks)
		}
	})
}

// TestACrashAtEachPage lets the first worker vanish at each page, and another one go on.
func TestACrashAtEachPage(t *testing.T) {
	const manifests, pages = 60, 30
	for _, tagged := range []bool{false, true} {
		for crash := 1; crash <= pages; crash++ {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if tagged { // decisions depend on indexes that were seen
					w.policy(func(p *policy.Policy) { p.Tags.Include, p.Untagged = []string{"v*"}, policy.UntaggedExclude })
				}
				for i := range manifests {
					switch i % 4 {
					case 0:
						w.add(t, fmt.Sprint(i), func(l *artifact.Listed) { l.Tags = nil })
					case 1:
						w.add(t, fmt.Sprint(i), func(l *artifact.Listed) { l.Children = []string{refOf(t, fmt.Sprint(i-1)).Digest()} })
					default:
						w.signedBy(t, activeKey, fmt.Sprint(i))
					}
				}
				vanished := errors.New("the process is gone")
				w.onPage = func(number int) error {
					if number == crash {
						w.queueErr = vanished // nothing more of it comes anywhere
						return vanished
					}
					return nil
				}
				_ = w.reconciler(t).Tick(t.Context(), "full", "demo", -1)
				w.onPage, w.queueErr = nil, nil
				clear(w.requests)
				other := w.reconciler(t)
				for range 2 {
					err := other.Tick(t.Context(), "full", "demo", -1)
					if err == nil {
						break
					}
					time.Sleep(fault.Of(err).RetryAfter)
				}
				if len(w.waiting) != manifests/2 {
					t.Errorf("crash at page %d, tagged %t: %d are asked for, want %d", crash, tagged, len(w.waiting), manifests/2)
				}
				last := w.events[len(w.events)-1]
				if last.Kind != artifact.Swept || last.Sweep.Population != manifests || last.Sweep.HarborCount != manifests ||
					last.Sweep.Signed != manifests/2 {
					t.Errorf("crash at page %d, tagged %t: the last event is %s %+v, want a summary of all", crash, tagged, last.Kind, last.Sweep)
				}
				if most := pages - (crash-1)/10*10; !tagged && w.requests["page"] > most {
					t.Errorf("crash at page %d: %d pages were listed again, want %d at most", crash, w.requests["page"], most)
				}
				if whole := tagged || crash <= 10; whole != (last.Sweep.Digest == digestOf(w)) || !whole && last.Sweep.Digest != "" {
					t.Errorf("crash at page %d, tagged %t: digest %q, want one only if all was seen", crash, tagged, last.Sweep.Digest)
				}
			})
		}
	}
}

// TestAnOvertakenWorkerStops: it was silent for so long that another one went on.
func TestAnOvertakenWorkerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.pageSize = 1
		for i := range 30 {
			w.add(t, fmt.Sprint(i), nil)
		}
		first, second := w.reconciler(t), w.reconciler(t)
		w.onPage = func(number int) error {
			if number == 5 {
				w.onPage = nil
				time.Sleep(4 * time.Minute) // a machine that slept
				if err := second.Tick(t.Context(), "full", "demo", -1); err != nil {
					t.Errorf("the second worker: %v", err)
				}
			}
			return nil
		}
		if err := first.Tick(t.Context(), "full", "demo", -1); err != nil {
			t.Errorf("the first worker: %v", err)
		}
		if got := kinds(w.events); !slices.Equal(got, []string{"swept "}) {
			t.Errorf("events %v, want one summary", got)
		}
		if w.requests["page"] > 30+6 {
			t.Errorf("%d pages were listed, want the first worker to stop at the next", w.requests["page"])
		}
	})
}

// TestWhatIsAskedForMeanwhileOutlivesACrash: another sweep was asked for, then the worker in work vanished.
func TestWhatIsAskedForMeanwhileOutlivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.pageSize = 1
		for i := range 30 {
			w.add(t, fmt.Sprint(i), nil)
		}
		second := w.reconciler(t)
		w.onPage = func(number int) error {
			switch number {
			case 2:
				time.Sleep(time.Second)
				if err := second.Tick(t.Context(), "full", "demo", reconcile.AdHoc(time.Now())); err != nil {
					t.Errorf("the second worker: %v", err)
				}
			case 15:
				w.queueErr = errors.New("the process is gone")
				return w.queueErr
			}
			return nil
		}
		_ = w.reconciler(t).Tick(t.Context(), "full", "demo", -1)
		w.onPage, w.queueErr = nil, nil
		time.Sleep(4 * time.Minute)
		w.tick(t, second, -1)
		if got := len(w.proposed("demo")); got != 1 {
			t.Errorf("%d further sweeps are proposed, want the one that was asked for", got)
		}
	})
}

func TestAStateOfANewerProgramIsReplaced(t *testing.T) {
	w := newWorld()
	w.add(t, "m", nil)
	for _, value := range []string{`{"v":99,"unfinished":true}`, `nonsense`} {
		w.saved["full demo"] = saved{value: []byte(value), revision: 3}
		w.saved["recent "] = saved{value: []byte(value), revision: 3}
		w.sweep(t, w.reconciler(t))
		if err := w.reconciler(t).Tick(t.Context(), "recent", "", time.Now().Unix()/60); err != nil {
			t.Errorf("recent: %v", err)
		}
		for _, name := range []string{"full demo", "recent "} {
			var state struct{ V int }
			if err := json.Unmarshal(w.saved[name].value, &state); err != nil || state.V != 1 {
				t.Errorf("state %s: %v, version %d, want 1", name, err, state.V)
			}
		}
	}
}

func TestAnUnknownTickIsDropped(t *testing.T) {
	if err := newWorld().reconciler(t).Tick(t.Context(), "drift", "demo", 1); err != nil {
		t.Errorf("Tick: %v", err)
	}
}

func TestPoliciesThatCannotBeRead(t *testing.T) {
	w := newWorld()
	r := w.reconciler(t)
	w.policyErr["demo"] = policy.ErrNotLoaded
	if err := r.Tick(t.Context(), "full", "demo", -1); fault.Of(err).RetryAfter <= 0 {
		t.Errorf("not loaded: %v, want the tick again", err)
	}
	w.policyErr["demo"] = errors.New("of a newer version")
	if err := r.Tick(t.Context(), "full", "demo", -1); err != nil || len(w.events) != 0 {
		t.Errorf("unreadable: %v and %d events, want nothing done and nobody held up", err, len(w.events))
	}
}
