package signing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

func farAway() time.Time { return time.Now().Add(1000 * time.Hour) }

func pause(p *policy.Policy) {
	p.Pause = &policy.Pause{Paused: true, By: "ann", Reason: "key ceremony", At: time.Now()}
}

func resume(p *policy.Policy) { p.Pause = nil }

// wantPostponed checks that the delivery waits for the pause to end, and that nothing else happened.
func wantPostponed(t *testing.T, w *world, d *delivery, k *watchedKeys) {
	t.Helper()
	if d.ended != "retry" || d.delay < 15*time.Second || d.delay > 30*time.Second {
		t.Errorf("the delivery ended %q with delay %s, want retry with 15 to 30 s", d.ended, d.delay)
	}
	if len(w.ledger) != 1 || len(w.dead) > 0 {
		t.Errorf("the ledger has %+v and %d dead letters, want the push alone", w.ledger, len(w.dead))
	}
	wantUntouched(t, w, k)
}

// TestAPauseLetsRequestsWait, however often they were tried and however old they are, and costs Harbor nothing.
func TestAPauseLetsRequestsWait(t *testing.T) {
	delays := map[time.Duration]bool{}
	for _, mode := range []policy.Mode{policy.ModeSign, policy.ModeObserve} {
		for _, attempts := range []uint64{1, 2, 10, 5000} {
			for _, age := range []time.Duration{0, 25 * time.Hour, 1000 * time.Hour} {
				w := newWorld(t, "demo")
				w.projectID = 7
				w.change(func(p *policy.Policy) {
					filtered(p)
					pause(p)
					p.Mode, p.ProjectID = mode, 7
				})
				s, k := watchedService(t, w)
				ref := w.push(t, "demo/app", ociImage, image)
				r := w.waiting[ref]
				if attempts%2 == 0 {
					r.ReceivedSeq = 0 // a sweep asked
				}
				d := &delivery{w: w, request: r, attempts: attempts, firstSeen: time.Now().Add(-age)}
				s.Handle(t.Context(), d)
				wantPostponed(t, w, d, k)
				if got := strings.Join(w.operations, ", "); got != "nak" {
					t.Errorf("operations %s, want nak alone", got)
				}
				delays[d.delay] = true
			}
		}
	}
	if len(delays) < 10 {
		t.Errorf("only %d different delays of 24: all would come back together", len(delays))
	}
}

// TestAPauseIsCounted as what it is, once for each time that a request has to wait.
func TestAPauseIsCounted(t *testing.T) {
	w := newWorld(t, "demo")
	w.change(pause)
	metrics := prometheus.NewRegistry()
	s, _ := newService(t, w, func(c *signing.Config) { c.Registerer = metrics })
	ref := w.push(t, "demo/app", ociImage, image)
	for n := range 3 {
		w.attempt(t, s, ref, uint64(n+1))
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "harborseal_signing_failures_total" {
				for _, label := range m.GetLabel() {
					got = append(got, label.GetValue())
				}
				got = append(got, fmt.Sprint(m.GetCounter().GetValue()))
			}
		}
	}
	if want := "transient failed paused 3"; strings.Join(got, " ") != want {
		t.Errorf("failures: %s, want %s", got, want)
	}
}

// TestAPauseHoldsNothingElse: what would not be signed anyway ends.
func TestAPauseHoldsNothingElse(t *testing.T) {
	w := newWorld(t, "demo")
	w.change(func(p *policy.Policy) {
		pause(p)
		p.Mode = policy.ModeOff
	})
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	wantEnd(t, w, ref, artifact.Skipped, policy.NotEnabled)
}

// TestALongPauseIsAskedAboutSeldom: whatever waits comes back less and less often, and within five minutes of the end.
func TestALongPauseIsAskedAboutSeldom(t *testing.T) {
	for lasted, want := range map[time.Duration][2]time.Duration{
		0: {15 * time.Second, 30 * time.Second}, 4 * time.Minute: {time.Minute, 2 * time.Minute}, 24 * time.Hour: {150 * time.Second, 5 * time.Minute},
	} {
		w := newWorld(t, "demo")
		w.change(func(p *policy.Policy) {
			p.Pause = &policy.Pause{Paused: true, By: "ann", At: time.Now().Add(-lasted)}
		})
		s, _ := newService(t, w)
		d := &delivery{w: w, request: w.waiting[w.push(t, "demo/app", ociImage, image)], attempts: 1, firstSeen: time.Now()}
		s.Handle(t.Context(), d)
		if d.ended != "retry" || d.delay < want[0] || d.delay > want[1]+time.Second {
			t.Errorf("paused for %s: ended %q with delay %s, want retry with %s to %s", lasted, d.ended, d.delay, want[0], want[1])
		}
	}
}

// TestAPausedRequestAgesFromTheResume: it has waited without a fault, and is not given up for that.
func TestAPausedRequestAgesFromTheResume(t *testing.T) {
	for _, tt := range []struct {
		resumed time.Duration // ago
		want    string
	}{{time.Hour, "retry"}, {25 * time.Hour, "buried"}, {1000 * time.Hour, "buried"}} {
		w := newWorld(t, "demo")
		w.change(func(p *policy.Policy) { p.ResumedAt = time.Now().Add(-tt.resumed) })
		s, _ := newService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		w.fail = failing("get manifest")
		d := &delivery{w: w, request: w.waiting[ref], attempts: 5000, firstSeen: time.Now().Add(-100 * time.Hour)}
		s.Handle(t.Context(), d)
		if d.ended != tt.want {
			t.Errorf("resumed %s ago: the delivery ended %q, want %q", tt.resumed, d.ended, tt.want)
		}
	}
}

// TestAPauseStopsWhatIsInWork: whatever was read before, the key does not sign. Resumed, the digest is signed once.
func TestAPauseStopsWhatIsInWork(t *testing.T) {
	for step := 1; step <= 3; step++ {
		w := newWorld(t)
		w.bundles = true
		w.enable(t, policy.FormatBoth, "demo")
		s, k := watchedService(t, w)
		ref := w.push(t, "demo/app", ociImage, image)
		n := 0
		w.before = func(string) {
			if n++; n == step {
				w.change(pause)
			}
		}
		d := w.attempt(t, s, ref, 1)
		t.Run("at "+w.operations[step-1], func(t *testing.T) {
			if len(w.operations) != 4 { // three reads, and the end
				t.Fatalf("operations %q, want the three reads before the key signs", w.operations)
			}
			wantPostponed(t, w, d, k)
			w.change(resume)
			w.attempt(t, s, ref, 2)
			wantSigned(t, w, ref, artifact.Made)
			wantOneOfEach(t, w, ref, policy.FormatBoth)
		})
	}
}

// TestAPolicyThatChangesDuringTheWork: right before the key signs it is looked at again.
func TestAPolicyThatChangesDuringTheWork(t *testing.T) {
	type changed struct {
		kind   artifact.Kind
		reason policy.Reason
		change func(w *world, ref artifact.Ref)
	}
	of := func(change func(p *policy.Policy, ref artifact.Ref)) func(*world, artifact.Ref) {
		return func(w *world, ref artifact.Ref) {
			w.change(func(p *policy.Policy) {
				p.Revision = "api-2"
				change(p, ref)
			})
		}
	}
	for name, tt := range map[string]changed{
		"blocked": {artifact.Blocked, policy.Blocked, of(func(p *policy.Policy, ref artifact.Ref) {
			p.Blocks = []policy.Block{{Digest: ref.Digest(), By: "ann", Reason: "it phones home"}}
		})},
		"suspended": {artifact.Skipped, policy.Suspended, of(func(p *policy.Policy, _ artifact.Ref) { p.SuspendedFor = 8 })},
		"another project": {artifact.Skipped, policy.Suspended, func(w *world, ref artifact.Ref) {
			of(func(*policy.Policy, artifact.Ref) {})(w, ref)
			w.projectID = 8
		}},
		"off":     {artifact.Skipped, policy.NotEnabled, of(func(p *policy.Policy, _ artifact.Ref) { p.Mode = policy.ModeOff })},
		"observe": {artifact.Skipped, policy.Observed, of(func(p *policy.Policy, _ artifact.Ref) { p.Mode = policy.ModeObserve })},
		"tags":    {artifact.Skipped, policy.NoTag, of(func(p *policy.Policy, _ artifact.Ref) { filtered(p) })},
	} {
		for _, at := range []string{"get manifest", "list referrers"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				w := newWorld(t)
				w.bundles, w.projectID = true, 7
				w.enable(t, policy.FormatBoth, "demo")
				w.change(func(p *policy.Policy) { p.ProjectID = 7 })
				s, k := watchedService(t, w)
				ref := w.push(t, "demo/app", ociImage, image)
				w.before = func(name string) {
					if name == at {
						w.before = nil
						tt.change(w, ref)
					}
				}
				w.attempt(t, s, ref, 1)
				e := wantEnd(t, w, ref, tt.kind, tt.reason)
				if e.PolicyRevision != "api-2" || e.MediaType != ociImage {
					t.Errorf("the event names the policy %q and the type %q, want api-2, which decided, and %s", e.PolicyRevision, e.MediaType, ociImage)
				}
				wantUntouched(t, w, k)
			})
		}
	}
}

// TestABlockBetweenTwoFormats: one signature is there, the key makes no other one.
func TestABlockBetweenTwoFormats(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBoth, "demo")
	s, k := watchedService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.before = func(name string) {
		if name == "put manifest" { // that of the first format
			w.before = nil
			w.change(func(p *policy.Policy) {
				p.Blocks = []policy.Block{{Digest: ref.Digest(), By: "ann", Reason: "it phones home"}}
			})
		}
	}
	w.attempt(t, s, ref, 1)
	wantEnd(t, w, ref, artifact.Blocked, policy.Blocked)
	if k.signed != 1 || w.bundlesOf(t, ref) != 0 {
		t.Errorf("the key signed %d times, and there are %d bundles; want one signature under the tag alone", k.signed, w.bundlesOf(t, ref))
	}
}

// TestAPolicyThatCannotBeReadAgain: without it the key does not sign.
func TestAPolicyThatCannotBeReadAgain(t *testing.T) {
	w := newWorld(t, "demo")
	s, k := watchedService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.before = func(string) { w.policyErr = errInjected }
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
		t.Errorf("the delivery ended %q, want retry", d.ended)
	}
	wantUntouched(t, w, k)
	w.before, w.policyErr = nil, nil
	w.attempt(t, s, ref, 2)
	wantSigned(t, w, ref, artifact.Made)
}

// TestAProjectThatIsDeletedDuringTheWork is gone, and the key does not sign.
func TestAProjectThatIsDeletedDuringTheWork(t *testing.T) {
	w := newWorld(t, "demo")
	w.projectID = 7
	w.change(func(p *policy.Policy) { p.ProjectID = 7 })
	s, k := watchedService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.before = func(name string) {
		if name == "get manifest" {
			w.exists = false
		}
	}
	w.attempt(t, s, ref, 1)
	wantEnd(t, w, ref, artifact.Vanished, "")
	wantUntouched(t, w, k)
}

// TestTheFirstFailureAfterAPause is the first: it is recorded, and repeated soon, however often the request has met the pause.
func TestTheFirstFailureAfterAPause(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.change(pause)
	w.attempt(t, s, ref, 299)
	w.attempt(t, s, ref, 300)
	w.change(resume)
	w.fail = failing("put manifest")
	if d := w.attempt(t, s, ref, 301); d.ended != "retry" || d.delay > time.Second || len(w.events(artifact.Failed, ref)) != 1 {
		t.Errorf("the delivery ended %q with delay %s and %+v, want it repeated within a second, and recorded",
			d.ended, d.delay, w.events(artifact.Failed, ref))
	}
	if d := w.attempt(t, s, ref, 303); d.delay < time.Second || len(w.events(artifact.Failed, ref)) != 1 {
		t.Errorf("the third failure: delay %s and %d events, want a longer one, and no second event", d.delay, len(w.events(artifact.Failed, ref)))
	}
}
