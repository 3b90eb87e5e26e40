package reconcile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// minute does one recent sweep, of the next slot.
func (w *world) minute(t *testing.T, r *reconcile.Reconciler) {
	t.Helper()
	time.Sleep(time.Minute)
	if err := r.Tick(t.Context(), reconcile.Recent, "", time.Now().UnixNano()/int64(time.Minute)); err != nil {
		t.Errorf("Tick: %v", err)
	}
}

// push puts a manifest into Harbor now. fed says whether the feed tells of it.
func (w *world) push(t *testing.T, name, tag string, fed bool) artifact.Ref {
	t.Helper()
	ref := w.add(t, name, func(l *artifact.Listed) {
		l.PushedAt = time.Now()
		l.Tags = nil
		if tag != "" {
			l.Tags = []string{tag}
		}
	})
	if fed {
		w.feed = append(w.feed, artifact.Pushed{Ref: ref, Tag: tag, By: "dev", At: time.Now()})
	}
	return ref
}

func (w *world) watermark(t *testing.T) time.Time {
	t.Helper()
	var state struct{ Watermark time.Time }
	if err := json.Unmarshal(w.saved["recent "].value, &state); err != nil {
		t.Fatal(err)
	}
	return state.Watermark
}

func TestWhatTheFeedTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.projects["off"] = 8
		r := w.reconciler(t)
		w.minute(t, r)
		skip := func(reason policy.Reason) func(artifact.Ref) artifact.Event {
			return func(ref artifact.Ref) artifact.Event {
				return artifact.Event{Kind: artifact.Skipped, Ref: ref, Reason: string(reason)}
			}
		}
		kind := func(kind artifact.Kind) func(artifact.Ref) artifact.Event {
			return func(ref artifact.Ref) artifact.Event {
				return artifact.Event{Kind: kind, Ref: ref, Reason: "timeout"}
			}
		}
		asked := map[string]bool{}
		refs := map[string]artifact.Ref{}
		for name, tt := range map[string]struct {
			tag   string
			event func(artifact.Ref) artifact.Event
			want  bool
		}{
			"never heard of":            {"v1", nil, true},
			"by digest":                 {"", nil, true},
			"gone before":               {"v1", kind(artifact.Vanished), true},
			"not backfilled before":     {"v1", skip(policy.NotBackfilled), true},
			"out of scope before":       {"v1", skip(policy.TagOutOfScope), true},
			"told of by a webhook":      {"v1", kind(artifact.Received), false},
			"failing":                   {"v1", kind(artifact.Failed), false},
			"a dead letter":             {"v1", kind(artifact.Dead), false},
			"an accessory, as is known": {"", skip(policy.IsAccessory), false},
			"an attestation":            {accessoryTag(), nil, false},
			"tag out of scope":          {"dev", nil, false},
		} {
			ref := w.push(t, name, tt.tag, true)
			refs[name], asked[name] = ref, tt.want
			if tt.event != nil {
				w.tell(t, tt.event(ref))
			}
		}
		w.policy(func(p *policy.Policy) { p.Tags.Include = []string{"v*"}; p.From = time.Now().Add(-time.Hour) })
		own := w.push(t, "own signature", "", false)
		w.feed = append(w.feed, artifact.Pushed{Ref: own, By: "robot$signer", At: time.Now()})
		buried := w.push(t, "dead without a word", "v1", true)
		w.dead[buried] = time.Now()
		elsewhere, err := artifact.NewRef("off/app", artifact.DigestOf([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		w.feed = append(w.feed, artifact.Pushed{Ref: elsewhere, Tag: "v1", At: time.Now()})
		events := len(w.events)
		w.minute(t, r)
		for name, want := range asked {
			q, got := w.waiting[refs[name]]
			if got != want {
				t.Errorf("%s: asked %t, want %t", name, got, want)
			}
			if got && (q.PushedAt != nil || q.Lane != artifact.Bulk || q.Origin != artifact.OriginSweep) {
				t.Errorf("%s: request %+v, want one of now in the bulk lane", name, q)
			}
		}
		for name, ref := range map[string]artifact.Ref{"own signature": own, "dead letter": buried, "project that is off": elsewhere} {
			if q, got := w.waiting[ref]; got {
				t.Errorf("%s: request %+v, want none", name, q)
			}
		}
		for _, e := range w.events[events:] {
			if e.Kind != artifact.Confirmed {
				t.Errorf("a recent sweep wrote %s, want only that pushes are confirmed", e.Kind)
			}
		}
		// The look back does not ask again for what was asked for.
		clear(w.waiting)
		w.minute(t, r)
		if len(w.waiting) != 0 {
			t.Errorf("%d are asked for again", len(w.waiting))
		}
	})
}

// TestAnOldPushStaysCut: what was pushed before the policy's time is asked for with its time, so that the signer decides.
func TestAnOldPushStaysCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		old := w.push(t, "old", "v1", true)
		time.Sleep(time.Minute)
		w.policy(func(p *policy.Policy) { p.From = time.Now() })
		again := w.push(t, "again", "v1", true)
		r := w.reconciler(t)
		w.minute(t, r)
		if _, asked := w.waiting[old]; asked {
			t.Error("what was pushed before the policy's time is asked for")
		}
		if q, asked := w.waiting[again]; !asked || q.PushedAt != nil {
			t.Errorf("a push after it: asked %t as %+v, want a push of now", asked, q)
		}
		w.noFeed = true
		w.policy(func(p *policy.Policy) { p.From = time.Now().Add(-2 * time.Minute) })
		listed := w.push(t, "listed", "v1", false)
		w.minute(t, w.reconciler(t))
		if q := w.waiting[listed]; q.PushedAt == nil || !q.PushedAt.Equal(w.population[2].PushedAt) {
			t.Errorf("from the listing: %+v, want the time of the push", q)
		}
	})
}

// TestARecentPushWhoseSignatureWasRemoved is left alone where the policy says that it is.
func TestARecentPushWhoseSignatureWasRemoved(t *testing.T) {
	for restore, want := range map[policy.Restore]bool{policy.RestoreSign: true, policy.RestoreAlert: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.policy(func(p *policy.Policy) { p.Restore = restore })
			ref := w.push(t, "app", "v1", true)
			w.tellSigned(t, ref, activeKey, "app")
			w.tell(t, artifact.Event{Kind: artifact.Removed, Ref: ref})
			w.minute(t, w.reconciler(t))
			if _, asked := w.waiting[ref]; asked != want {
				t.Errorf("restore %s: asked %t, want %t", restore, asked, want)
			}
		})
	}
}

// TestRequestsOfAnIncrementalMinute: in proportion to the pushes with the feed, to the projects without it.
func TestRequestsOfAnIncrementalMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 300 {
			name := fmt.Sprint("team", i)
			w.projects[name], w.policies[name] = int64(100+i), policy.Policy{Project: name, Mode: policy.ModeSign, Revision: "1"}
		}
		r := w.reconciler(t)
		w.minute(t, r)
		clear(w.requests)
		for range 60 {
			w.minute(t, r)
		}
		if w.requests["feed"] != 60 || w.requests["since"] != 301 || w.requests["system"] != 60 {
			t.Errorf("an hour with the feed: %v, want one question each minute, and each project's check once", w.requests)
		}
		w.noFeed = true
		clear(w.requests)
		w.minute(t, r)
		if w.requests["since"] != 301 {
			t.Errorf("a minute without the feed: %v, want one listing for each of 301 projects", w.requests)
		}
	})
}

func TestTheWatermark(t *testing.T) {
	broken := fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
	for _, tt := range []struct {
		name  string
		fail  func(w *world)
		mend  func(w *world)
		holds bool
	}{
		{"the ledger does not answer", func(w *world) { w.memoryErr = broken }, func(w *world) { w.memoryErr = nil }, true},
		{"the feed fails", func(w *world) { w.feedErr = broken }, func(w *world) { w.feedErr = nil }, true},
		{"Harbor is away", func(w *world) { w.harborErr = broken }, func(w *world) { w.harborErr = nil }, true},
		{"a project cannot be listed", func(w *world) { w.noFeed = true; w.listErr["demo"] = broken }, func(w *world) { delete(w.listErr, "demo") }, false},
		{"a policy cannot be read", func(w *world) { w.policyErr["demo"] = broken }, func(w *world) { delete(w.policyErr, "demo") }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.reconciler(t)
				w.minute(t, r)
				first := w.watermark(t)
				tt.fail(w)
				ref := w.push(t, "push", "v1", true)
				for range 10 {
					w.minute(t, r)
				}
				if got := w.watermark(t).Equal(first); got != tt.holds {
					t.Errorf("the watermark stands still: %t, want %t", got, tt.holds)
				}
				if len(w.waiting) != 0 {
					t.Fatal("it is asked for already")
				}
				tt.mend(w)
				w.minute(t, w.reconciler(t)) // any worker
				if _, asked := w.waiting[ref]; !asked {
					t.Error("the push is lost")
				}
				if w.watermark(t).Equal(first) {
					t.Error("the watermark stands still")
				}
			})
		})
	}
}

// TestAFeedThatIsSilent: it was switched off, which it does not say, and webhooks are lost at the same time.
func TestAFeedThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		registry := prometheus.NewPedanticRegistry()
		r := w.reconciler(t, func(c *reconcile.Config) { c.Registerer = registry })
		for range 10 {
			w.minute(t, r)
		}
		lost := w.push(t, "lost", "v1", false)
		minutes := 0
		for ; len(w.waiting) == 0 && minutes < 120; minutes++ {
			w.minute(t, r)
		}
		if _, asked := w.waiting[lost]; !asked || minutes > 60 {
			t.Errorf("asked %t after %d minutes, want it within an hour", asked, minutes)
		}
		next := w.push(t, "next", "v1", false)
		w.minute(t, r)
		if _, asked := w.waiting[next]; !asked {
			t.Error("the next one is not found in the minute after")
		}
		for range 60 {
			w.minute(t, r)
		}
		clear(w.requests)
		w.minute(t, r)
		if w.requests["feed"] != 1 {
			t.Errorf("an hour later: %v, want the feed tried again", w.requests)
		}
		if n, err := testutil.GatherAndCount(registry); err != nil || n < 8 {
			t.Errorf("%d metrics, error %v, want at least 8", n, err)
		}
	})
}

// TestAPushThatStaysPending came into the ledger and never into the queue.
func TestAPushThatStaysPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reconciler(t)
		w.minute(t, r)
		ref := w.push(t, "stuck", "v1", true)
		w.tell(t, artifact.Event{Kind: artifact.Received, Ref: ref})
		for minutes := range 80 {
			w.minute(t, r)
			if _, asked := w.waiting[ref]; asked && minutes < 14 {
				t.Fatalf("asked for after %d minutes, while it may be in work", minutes)
			}
		}
		if _, asked := w.waiting[ref]; !asked {
			t.Error("it is not asked for within 80 minutes")
		}
		if w.requests["feed"] != 81 {
			t.Errorf("the feed was asked %d times, want 81: it has told of the push", w.requests["feed"])
		}
	})
}

func TestRecentTicksThatAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reconciler(t)
		w.minute(t, r)
		now := time.Now().UnixNano() / int64(time.Minute)
		clear(w.requests)
		for _, slot := range []int64{now - 5, now} {
			if err := w.reconciler(t).Tick(t.Context(), reconcile.Recent, "", slot); err != nil || len(w.requests) != 0 {
				t.Errorf("slot %d after that of now was done: %v and %v, want nothing done", slot-now, err, w.requests)
			}
		}
	})
}

// TestManyProjectsThatCannotBeListed are an outage: it is not waited for each of them.
func TestManyProjectsThatCannotBeListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.noFeed = true
		for i := range 100 {
			name := fmt.Sprint("team", i)
			w.projects[name], w.policies[name] = int64(100+i), policy.Policy{Project: name, Mode: policy.ModeSign}
			w.listErr[name] = fault.New(fault.Transient, fault.Timeout, errors.New("no answer"))
		}
		w.minute(t, w.reconciler(t))
		if w.requests["since"] > 12 || !w.watermark(t).IsZero() {
			t.Errorf("%d projects were asked for, watermark %s, want 12 at most and none", w.requests["since"], w.watermark(t))
		}
	})
}
