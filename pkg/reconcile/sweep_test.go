package reconcile_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

func TestRequestsOfASweep(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) {
		p.Tags.Include = []string{"v*"}
		p.Untagged = policy.UntaggedExclude
	})
	child := w.add(t, "child", func(l *artifact.Listed) { l.Tags = nil })
	index := w.add(t, "index", func(l *artifact.Listed) { l.Children = []string{child.Digest()} })
	before := w.signedBy(t, activeKey, "before")
	w.tellSigned(t, before, activeKey, "before")
	w.change(before, func(l *artifact.Listed) { l.Tags, l.Signatures = []string{"moved"}, nil })

	w.sweep(t, w.reconciler(t))
	for ref, want := range map[artifact.Ref]artifact.Request{
		child:  {Parent: index.Digest(), Depth: 1},
		index:  {PushedAt: &w.population[1].PushedAt},
		before: {PushedAt: &w.population[2].PushedAt, SignedBefore: true},
	} {
		got, asked := w.waiting[ref]
		if !asked {
			t.Errorf("%s is not asked for", ref)
			continue
		}
		if got.Lane != artifact.Bulk || got.Origin != artifact.OriginSweep || got.Parent != want.Parent || got.Depth != want.Depth ||
			got.SignedBefore != want.SignedBefore || (got.PushedAt == nil) != (want.PushedAt == nil) ||
			want.PushedAt != nil && !got.PushedAt.Equal(*want.PushedAt) {
			t.Errorf("request %+v, want the bulk lane, the sweep's origin and %+v", got, want)
		}
	}
}

// TestWhatIsRecalled: a check is recalled while nothing has changed that it depends on, and done again where something has.
func TestWhatIsRecalled(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(w *world, ref artifact.Ref) // before the first sweep
		change func(w *world, ref artifact.Ref) // before the second
		want   int                              // checks of the second sweep
		heads  int
	}{
		{name: "nothing"},
		{
			name: "a stranger's signature beside it, looked at", before: func(w *world, ref artifact.Ref) {
				w.change(ref, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by("stranger", "x")) })
			}, heads: 1,
		},
		{
			name: "another key set", before: func(w *world, ref artifact.Ref) {
				w.change(ref, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by("stranger", "x")) })
			}, change: func(w *world, _ artifact.Ref) { w.keySet = "keys-2" }, want: 1,
		},
		{name: "another key set, and nothing else listed", change: func(w *world, _ artifact.Ref) { w.keySet = "keys-2" }},
		{
			name: "a new one beside it", change: func(w *world, ref artifact.Ref) {
				w.change(ref, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by("stranger", "x")) })
			}, want: 1,
		},
		{
			name: "the tag moved back", before: func(w *world, ref artifact.Ref) {
				w.change(ref, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by("stranger", "x")) })
			}, change: func(w *world, ref artifact.Ref) { w.tags[ref] = w.by("stranger", "x") }, want: 1, heads: 1,
		},
		{
			name: "another signature in its place", change: func(w *world, ref artifact.Ref) {
				w.change(ref, func(l *artifact.Listed) { l.Signatures = []string{w.by(retiredKey, "y")} })
			}, want: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			ref := w.signedBy(t, activeKey, "app")
			if tt.before != nil {
				tt.before(w, ref)
			}
			r := w.reconciler(t)
			if first, _ := w.sweep(t, r); first.Verified != 1 || first.Signed != 1 {
				t.Fatalf("first sweep %+v, want one signed, after a check", first)
			}
			if tt.change != nil {
				tt.change(w, ref)
			}
			clear(w.requests)
			second, _ := w.sweep(t, r)
			if second.Signed != 1 || second.Verified != tt.want || w.requests["tag"] != tt.heads || len(w.waiting) != 0 {
				t.Errorf("second sweep %+v with %d looks at the tag, want it signed, %d checks, %d looks", second, w.requests["tag"], tt.want, tt.heads)
			}
			if third, events := w.sweep(t, r); third.Verified != 0 && tt.name != "the tag moved back" || len(events) != 0 {
				t.Errorf("third sweep %+v with %v, want nothing new", third, kinds(events))
			}
		})
	}
}

func TestAVanishedSignature(t *testing.T) {
	for _, tt := range []struct {
		restore policy.Restore
		mode    policy.Mode
		asked   bool
		want    []string
	}{
		{"", policy.ModeSign, true, []string{"removed "}},
		{policy.RestoreSign, policy.ModeSign, true, []string{"removed "}},
		{policy.RestoreAlert, policy.ModeSign, false, []string{"removed "}},
		{policy.RestoreSign, policy.ModeObserve, false, []string{"removed ", "skipped observed"}},
	} {
		t.Run(string(tt.mode)+" "+string(tt.restore), func(t *testing.T) {
			w := newWorld()
			w.policy(func(p *policy.Policy) { p.Restore, p.Mode = tt.restore, tt.mode })
			ref := w.signedBy(t, activeKey, "app")
			w.tellSigned(t, ref, activeKey, "app")
			w.change(ref, func(l *artifact.Listed) { l.Signatures = []string{w.by("stranger", "app")} })
			r := w.reconciler(t)
			sum, events := w.sweep(t, r)
			if got := kinds(events); !slices.Equal(got, tt.want) || sum.Removed != 1 {
				t.Errorf("events %v, removed %d, want %v and 1", got, sum.Removed, tt.want)
			}
			if len(events) > 0 && (len(events[0].Signatures) != 1 || events[0].Signatures[0].Digest != w.by(activeKey, "app")) {
				t.Errorf("the event names %v as missing, want the signature of the active key", events[0].Signatures)
			}
			for range 2 {
				if q, asked := w.waiting[ref]; asked != tt.asked || asked && !q.SignedBefore {
					t.Errorf("asked %t as %+v, want %t, signed before", asked, q, tt.asked)
				}
				if _, events := w.sweep(t, r); len(events) != 0 {
					t.Errorf("a further sweep wrote %v, want nothing", kinds(events))
				}
			}
		})
	}
}

func TestAnExcludedImageIsNotCalledSignedForEver(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) { p.Repositories.Exclude = []string{"**"} })
	ref := w.signedBy(t, activeKey, "app")
	w.tellSigned(t, ref, activeKey, "app")
	r := w.reconciler(t)
	if _, events := w.sweep(t, r); len(events) != 0 {
		t.Errorf("events %v of a signed image out of scope, want none", kinds(events))
	}
	w.change(ref, func(l *artifact.Listed) { l.Signatures = nil })
	w.sweep(t, r)
	if k := known(t, w, ref); k.State != "skipped" || k.Reason != string(policy.OutOfScope) {
		t.Errorf("it is known as %+v, want out of scope", k)
	}
}

func TestDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ref := w.add(t, "dead", nil)
		w.dead[ref] = time.Now()
		r := w.reconciler(t)
		slot := time.Now().UnixNano()/int64(time.Hour) - 1
		if sum, _ := w.tick(t, r, slot); sum.Failed != 1 || len(w.waiting) != 0 {
			t.Errorf("a young dead letter: %+v and %d requests, want it counted and none", sum, len(w.waiting))
		}
		if _, _ = w.sweep(t, r); len(w.waiting) != 1 {
			t.Error("a sweep that somebody asked for does not try a dead letter")
		}
		clear(w.waiting)
		time.Sleep(25 * time.Hour)
		if sum, _ := w.tick(t, r, slot+26); sum.Requested != 1 {
			t.Errorf("a day later: %+v, want it asked for", sum)
		}
		// Somebody has signed it by hand.
		w.tell(t, artifact.Event{Kind: artifact.Dead, Ref: ref, Reason: "denied"})
		w.change(ref, func(l *artifact.Listed) { l.Signatures = []string{w.by(activeKey, "dead")} })
		if _, _ = w.sweep(t, r); len(w.dead) != 0 {
			t.Error("the dead letter of a signed image stays")
		}
	})
}

func TestRotation(t *testing.T) {
	w := newWorld()
	old := w.signedBy(t, retiredKey, "old")
	r := w.reconciler(t)
	w.sweep(t, r)
	if sum, _ := w.sweep(t, r); sum.Signed != 1 || sum.Retired != 1 || len(w.waiting) != 0 {
		t.Errorf("%+v, want it signed, by a retired key, and not asked for", sum)
	}
	w.policy(func(p *policy.Policy) { p.Terms.ActiveKeyOnly, p.Revision = true, "2" })
	if sum, _ := w.sweep(t, r); sum.Retired != 1 || sum.Requested != 1 || sum.Signed != 0 || sum.Verified != 0 {
		t.Errorf("%+v, want it asked for without a look", sum)
	}
	w.change(old, func(l *artifact.Listed) { l.Signatures = append(l.Signatures, w.by(activeKey, "old")) })
	w.tags[old] = w.by(activeKey, "old")
	if sum, _ := w.sweep(t, r); sum.Retired != 0 || sum.Signed != 1 {
		t.Errorf("%+v, want it signed by the active key", sum)
	}
}

func TestGone(t *testing.T) {
	w := newWorld()
	w.add(t, "there", nil)
	gone, unseen := refOf(t, "gone"), w.add(t, "unseen", nil)
	for _, ref := range []artifact.Ref{gone, unseen} {
		w.tell(t, artifact.Event{Kind: artifact.Received, Ref: ref})
	}
	w.dead[gone] = time.Now()
	r := w.reconciler(t)
	w.artifactErr = fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
	if sum, events := w.sweep(t, r); sum.Gone != 0 || len(events) != 0 {
		t.Errorf("Harbor does not say: %+v and %v, want none gone", sum, kinds(events))
	}
	w.artifactErr = nil
	if sum, events := w.sweep(t, r); sum.Gone != 1 || !slices.Equal(kinds(events), []string{"gone "}) || events[0].Ref != gone || len(w.dead) != 0 {
		t.Errorf("%+v, %v and %d dead letters, want one gone without a dead letter", sum, kinds(events), len(w.dead))
	}
	// A listing that has left something out proves nothing.
	w.population = w.population[:1]
	delete(w.waiting, unseen)
	r = w.reconciler(t, nil...)
	w.onPage = func(int) error { w.add(t, "unseen", nil); w.onPage = nil; return nil }
	if sum, _ := w.sweep(t, r); sum.Gone != 0 || sum.Population != 2 {
		t.Errorf("%+v, want none gone, and what was left out looked at", sum)
	}
	if _, asked := w.waiting[unseen]; !asked {
		t.Error("what the listing has left out is not asked for")
	}
}

// TestTheDigestOfThePopulation: references are sorted as texts, whatever the repositories are called.
func TestTheDigestOfThePopulation(t *testing.T) {
	w := newWorld()
	for i, repository := range []string{"demo/a", "demo/a/b", "demo/a-b", "demo/a.b", "demo/a_b", "demo/a0", "demo/aa", "demo/a", "demo/a/b"} {
		ref, err := artifact.NewRef(repository, artifact.DigestOf(fmt.Append(nil, i)))
		if err != nil {
			t.Fatal(err)
		}
		w.add(t, "", func(l *artifact.Listed) { l.Ref = ref })
	}
	if sum, _ := w.sweep(t, w.reconciler(t)); sum.Digest != digestOf(w) || sum.Population != 9 {
		t.Errorf("digest %s of %d, want %s of 9", sum.Digest, sum.Population, digestOf(w))
	}
}

// TestAnotherProjectUnderTheName gets nothing from the policy of the one that was there before.
func TestAnotherProjectUnderTheName(t *testing.T) {
	w := newWorld()
	w.add(t, "of another project", nil)
	w.policy(func(p *policy.Policy) { p.ProjectID = 8 })
	if err := w.reconciler(t).Tick(t.Context(), "full", "demo", -1); err != nil || len(w.waiting)+len(w.events)+w.requests["page"] != 0 {
		t.Errorf("Tick: %v, %d requests, %v, want nothing done", err, len(w.waiting), kinds(w.events))
	}
}

// TestWhatChangesDuringASweep stands in the summary beside Harbor's own count.
func TestWhatChangesDuringASweep(t *testing.T) {
	w := newWorld()
	for i := range 6 {
		w.tell(t, artifact.Event{Kind: artifact.Received, Ref: w.add(t, fmt.Sprint(i), nil)})
	}
	w.onPage = func(number int) error {
		if number == 1 {
			w.add(t, "new", func(l *artifact.Listed) { l.PushedAt = time.Now() })
			w.population = slices.Delete(w.population, 4, 5)
		}
		return nil
	}
	// The fake lists what is there when it begins: begin again after the first page.
	r := w.reconciler(t)
	w.listErr["demo"] = nil
	first := true
	w.onKnown = func() {
		if w.memoryErr = nil; first && w.requests["page"] == 2 {
			first, w.memoryErr = false, errors.New("nobody answers")
		}
	}
	if err := r.Tick(t.Context(), "full", "demo", -1); err == nil {
		t.Fatal("Tick: want a pause")
	}
	w.onPage, w.memoryErr = nil, nil
	if sum, _ := w.tick(t, r, -1); sum.HarborCount != 6 || sum.Pushed != 1 || sum.Deleted != 1 || sum.Population != 6 || sum.Gone != 1 {
		t.Errorf("%+v, want 6 counted, 1 pushed, 1 deleted, 6 seen", sum)
	}
}

func TestAnEmptyProjectIsConfirmed(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) { p.ProjectID = 7 })
	w.tell(t, artifact.Event{Kind: artifact.Received, Ref: refOf(t, "gone")})
	asked := 0
	w.onKnown = func() { asked++ }
	w.projects["demo"] = 8
	r := w.reconciler(t)
	before := len(w.events)
	if err := r.Tick(t.Context(), "full", "demo", -1); err != nil || len(w.events) != before || w.requests["page"] != 0 {
		t.Errorf("another project under the name: %v, %d events, %d pages, want nothing done", err, len(w.events)-before, w.requests["page"])
	}
	w.projects["demo"] = 7
	clear(w.requests)
	if sum, _ := w.sweep(t, r); sum.Gone != 1 || w.requests["project"] != 2 {
		t.Errorf("%+v after %d questions for the project, want it confirmed and one gone", sum, w.requests["project"])
	}
}
