package reconcile_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestASweepAsksForExactlyWhatIsUnsigned draws a project, its signatures, what the ledger says of them and a policy. Each
// unsigned digest in scope is asked for and nothing else, and a second sweep of the same world writes nothing but its summary.
func TestASweepAsksForExactlyWhatIsUnsigned(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		w.pageSize = rapid.IntRange(1, 7).Draw(rt, "page size")
		drawPolicy(rt, w)
		drawPopulation(t, rt, w)
		r := w.reconciler(t)
		want := wanted(t, w)
		clear(w.waiting)
		if err := r.Tick(t.Context(), "full", "demo", -time.Now().UnixNano()); err != nil {
			rt.Fatalf("Tick: %v", err)
		}
		for ref := range w.waiting {
			if reason, found := want[ref]; found && reason == "" {
				continue
			}
			rt.Errorf("%s is asked for, want not: %s", describe(t, w, ref), want[ref])
		}
		for ref, reason := range want {
			if _, asked := w.waiting[ref]; reason == "" && !asked {
				rt.Errorf("%s is not asked for", describe(t, w, ref))
			}
		}
		sweep := w.events[len(w.events)-1].Sweep
		if sum := sweep.Signed + sweep.Requested + sweep.Pending + sweep.Failed + sweep.Excluded + sweep.Blocked + sweep.Unsigned; sum != len(w.population) ||
			sweep.Population != sum || sweep.HarborCount != sum {
			rt.Errorf("the parts of %+v are %d, want the population of %d", *sweep, sum, len(w.population))
		}
		if got, want := sweep.Digest, digestOf(w); got != want {
			rt.Errorf("digest %s, want %s", got, want)
		}
		for _, e := range w.events {
			if e.Kind == artifact.Vanished && e.Origin == artifact.OriginSweep && slices.ContainsFunc(w.population, func(l artifact.Listed) bool { return l.Ref == e.Ref }) {
				rt.Errorf("%s is recorded as gone, and is there", e.Ref)
			}
		}
		before, verified := len(w.events), w.verified
		if err := r.Tick(t.Context(), "full", "demo", -time.Now().UnixNano()); err != nil {
			rt.Fatalf("Tick: %v", err)
		}
		if got := w.events[before:]; len(got) != 1 {
			rt.Errorf("the second sweep wrote %v, want its summary alone", kinds(got))
		}
		again := w.events[len(w.events)-1].Sweep
		if again.Requested != 0 || again.Digest != sweep.Digest || again.Removed != 0 || again.Gone != 0 {
			rt.Errorf("the second sweep found %+v, want nothing new after %+v", *again, *sweep)
		}
		carrying := len(slices.DeleteFunc(slices.Clone(w.population), func(l artifact.Listed) bool { return len(l.Signatures) == 0 }))
		if most := carrying - again.Signed; w.verified-verified > most {
			rt.Errorf("the second sweep verified %d, want at most the %d that carry something and are not signed", w.verified-verified, most)
		}
	})
}

func drawPolicy(rt *rapid.T, w *world) {
	w.policy(func(p *policy.Policy) {
		p.Mode = rapid.SampledFrom([]policy.Mode{policy.ModeSign, policy.ModeSign, policy.ModeObserve}).Draw(rt, "mode")
		if rapid.Bool().Draw(rt, "by tag") {
			p.Tags = policy.Globs{Include: []string{"v*"}, Exclude: []string{"*-dirty"}}
			p.Untagged = rapid.SampledFrom([]policy.Untagged{policy.UntaggedInclude, policy.UntaggedExclude}).Draw(rt, "untagged")
		}
		if rapid.Bool().Draw(rt, "backfill") {
			p.From = epoch().Add(10 * time.Millisecond)
		}
		p.Restore = rapid.SampledFrom([]policy.Restore{"", policy.RestoreSign, policy.RestoreAlert}).Draw(rt, "restore")
		p.Terms.ActiveKeyOnly = rapid.Bool().Draw(rt, "active key only")
		if rapid.Bool().Draw(rt, "by id") {
			p.ProjectID = 7
		}
	})
}

func drawPopulation(t *testing.T, rt *rapid.T, w *world) {
	t.Helper()
	n := rapid.IntRange(0, 25).Draw(rt, "manifests")
	for i := range n {
		name := fmt.Sprint("m", i)
		ref := w.add(t, name, func(l *artifact.Listed) {
			l.Tags = rapid.SampledFrom([][]string{nil, {"v1"}, {"dev"}, {"v1", "v2-dirty"}, {accessoryTag()}, {accessoryTag(), "v3"}}).Draw(rt, "tags of "+name)
			for range rapid.IntRange(0, 3).Draw(rt, "children of "+name) {
				l.Children = append(l.Children, refOf(t, fmt.Sprint("m", rapid.IntRange(0, n-1).Draw(rt, "child"))).Digest())
			}
			for _, key := range []string{activeKey, retiredKey, "stranger"} {
				if rapid.IntRange(0, 2).Draw(rt, key+" of "+name) == 0 {
					l.Signatures = append(l.Signatures, w.by(key, name))
				}
			}
		})
		drawLedger(t, rt, w, ref, name)
		if rapid.IntRange(0, 9).Draw(rt, "bars of "+name) == 0 {
			w.policy(func(p *policy.Policy) {
				p.Blocks = append(p.Blocks, policy.Block{Digest: ref.Digest(), By: "a", Reason: "b"})
			})
		} else if rapid.IntRange(0, 9).Draw(rt, "exempts "+name) == 0 {
			w.policy(func(p *policy.Policy) {
				p.Exemptions = append(p.Exemptions, policy.Exemption{
					Digest: ref.Digest(), Approver: "a", Reason: "b", Expires: time.Now().Add(time.Hour),
				})
			})
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(rt, "gone") {
		w.tell(t, artifact.Event{Kind: artifact.Received, Ref: refOf(t, fmt.Sprint("gone", i))})
	}
}

func drawLedger(t *testing.T, rt *rapid.T, w *world, ref artifact.Ref, name string) {
	t.Helper()
	skip := func(reason policy.Reason) artifact.Event {
		return artifact.Event{Kind: artifact.Skipped, Ref: ref, Reason: string(reason)}
	}
	for range rapid.IntRange(0, 3).Draw(rt, "events of "+name) {
		switch e := rapid.IntRange(0, 9).Draw(rt, "event of "+name); e {
		case 0, 1:
			w.tellSigned(t, ref, []string{activeKey, retiredKey}[e], name)
		case 2, 3, 4, 5:
			reasons := []policy.Reason{policy.Observed, policy.NoTag, policy.NotBackfilled, policy.TagOutOfScope}
			w.tell(t, skip(reasons[e-2]))
		case 6:
			w.tell(t, skip(policy.IsAccessory))
		default:
			kind := []artifact.Kind{artifact.Received, artifact.Failed, artifact.Vanished}[e-7]
			w.tell(t, artifact.Event{Kind: kind, Ref: ref, Reason: "timeout"})
		}
	}
}

// wanted gives why each manifest is not asked for; nothing for one that is. It says in other words what the sweep does.
func wanted(t *testing.T, w *world) map[artifact.Ref]string {
	t.Helper()
	p := w.policies["demo"]
	why := map[artifact.Ref]policy.Reason{}
	child := map[string]bool{}
	for range 30 { // deeper than indexes can stand in each other here
		for _, l := range w.population {
			k := known(t, w, l.Ref)
			s := policy.Subject{
				Ref: l.Ref, Tags: l.Tags, PushedAt: l.PushedAt, Now: time.Now(), Signed: len(k.Signatures) > 0,
				Accessory: k.State == "skipped" && k.Reason == "accessory",
			}
			d := policy.Decide(p, s)
			if !d.Sign && d.Reason != policy.Observed && child[l.Ref.Digest()] {
				s.Child, s.PushedAt = true, time.Time{}
				d = policy.Decide(p, s)
			}
			why[l.Ref] = d.Reason
			if d.Sign || d.Reason == policy.Observed {
				for _, digest := range l.Children {
					child[digest] = true
				}
			}
		}
	}
	want := map[artifact.Ref]string{}
	for _, l := range w.population {
		k := known(t, w, l.Ref)
		lost := slices.ContainsFunc(k.Signatures, func(e artifact.Evidence) bool { return !slices.Contains(l.Signatures, e.Digest) })
		switch {
		case why[l.Ref] != "":
			want[l.Ref] = string(why[l.Ref])
		case slices.ContainsFunc(l.Signatures, func(digest string) bool { return w.counts(p, w.keys[digest]) }):
			want[l.Ref] = "it is signed"
		case p.Restore == policy.RestoreAlert && lost && (k.State == "signed" || k.State == "unsigned"):
			want[l.Ref] = "its signature has vanished"
		default:
			want[l.Ref] = ""
		}
	}
	return want
}

func known(t *testing.T, w *world, ref artifact.Ref) artifact.Known {
	t.Helper()
	k, err := w.ledger.Known(t.Context(), []artifact.Ref{ref})
	if err != nil {
		t.Fatal(err)
	}
	return k[0]
}

func describe(t *testing.T, w *world, ref artifact.Ref) string {
	t.Helper()
	i := slices.IndexFunc(w.population, func(l artifact.Listed) bool { return l.Ref == ref })
	return fmt.Sprintf("%+v, known as %+v,", w.population[i], known(t, w, ref))
}

func digestOf(w *world) string {
	refs := map[string]bool{}
	for _, l := range w.population {
		refs[l.Ref.String()+"\n"] = true
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(maps.Keys(refs)), "")))
	return hex.EncodeToString(sum[:])
}

func accessoryTag() string { return "sha256-" + strings.Repeat("a", 64) + ".att" }
