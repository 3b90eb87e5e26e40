package reconcile_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/reconcile"
)

// TestAnImageThatIsSignedMeanwhile is in a page of the listing that is older than what the ledger says of it.
func TestAnImageThatIsSignedMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy func(*policy.Policy)
		signed bool
	}{
		{"restore alert", func(p *policy.Policy) { p.Restore = policy.RestoreAlert }, true},
		{"restore sign", nil, true},
		{"observed", func(p *policy.Policy) { p.Mode = policy.ModeObserve }, true},
		{"out of scope", func(p *policy.Policy) { p.Repositories.Exclude = []string{"**"} }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			if tt.policy != nil {
				w.policy(tt.policy)
			}
			ref := w.add(t, "app", nil)
			w.onKnown = func() { // the page was read; the signer is done now
				w.onKnown = nil
				w.change(ref, func(l *artifact.Listed) { l.Signatures = []string{w.by(activeKey, "app")} })
				w.tellSigned(t, ref, activeKey, "app")
			}
			sum, events := w.sweep(t, w.reconciler(t))
			if sum.Removed != 0 || len(w.waiting) != 0 || known(t, w, ref).State != "signed" {
				t.Errorf("%+v, %v, %d requests, known as %+v, want it signed and nothing removed", sum, kinds(events), len(w.waiting), known(t, w, ref))
			}
		})
	}
}

// TestASignatureBehindTheLook is made after the sweep has seen that there is none, and before it says so.
func TestASignatureBehindTheLook(t *testing.T) {
	for _, mode := range []policy.Mode{policy.ModeSign, policy.ModeObserve} {
		w := newWorld()
		w.policy(func(p *policy.Policy) { p.Mode = mode })
		ref := w.add(t, "app", nil)
		w.tellSigned(t, ref, activeKey, "app")
		w.onArtifact = func() {
			w.onArtifact = nil
			w.change(ref, func(l *artifact.Listed) { l.Signatures = []string{w.by(activeKey, "again")} })
			w.tellSigned(t, ref, activeKey, "again")
		}
		sum, events := w.sweep(t, w.reconciler(t))
		if sum.Removed != 1 || known(t, w, ref).State != "signed" {
			t.Errorf("mode %s: %+v, %v, known as %+v, want one removed, and it signed again", mode, sum, kinds(events), known(t, w, ref))
		}
	}
}

// TestAnImageThatIsDeletedMeanwhile is no matter of signatures.
func TestAnImageThatIsDeletedMeanwhile(t *testing.T) {
	w := newWorld()
	w.add(t, "there", nil)
	ref := w.add(t, "app", nil)
	w.tellSigned(t, ref, activeKey, "app")
	w.onKnown = func() { w.population = w.population[:1] }
	sum, events := w.sweep(t, w.reconciler(t))
	if sum.Population != 1 || sum.Gone != 1 || sum.Removed != 0 || !slices.Equal(kinds(events), []string{"gone "}) {
		t.Errorf("%+v and %v, want one image, and one gone", sum, kinds(events))
	}
}

// TestAnImageThatCannotBeLookedAtAfresh keeps what is known of it.
func TestAnImageThatCannotBeLookedAtAfresh(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) { p.Restore = policy.RestoreAlert })
	ref := w.add(t, "app", nil)
	w.tellSigned(t, ref, activeKey, "app")
	w.artifactErr = fault.New(fault.Transient, fault.Unavailable, errors.New("502"))
	if _, events := w.sweep(t, w.reconciler(t)); len(events) != 0 || known(t, w, ref).State != "signed" {
		t.Errorf("%v, known as %+v, want it signed", kinds(events), known(t, w, ref))
	}
}

// TestASignatureThatCountsNoMore is still there, but its key was revoked: the report must not say signed until the signer has
// come to it, and it is signed anew whatever the policy says about signatures that have vanished.
func TestASignatureThatCountsNoMore(t *testing.T) {
	w := newWorld()
	w.policy(func(p *policy.Policy) { p.Restore = policy.RestoreAlert })
	ref := w.signedBy(t, "revoked", "app")
	w.tellSigned(t, ref, "revoked", "app")
	r := w.reconciler(t)
	sum, events := w.sweep(t, r)
	if !slices.Equal(kinds(events), []string{"removed "}) || sum.Removed != 0 || sum.Requested != 1 || known(t, w, ref).State != "unsigned" {
		t.Errorf("%v, %+v, known as %+v, want it unsigned and asked for, and no signature missing", kinds(events), sum, known(t, w, ref))
	}
	if _, events := w.sweep(t, r); len(events) != 0 {
		t.Errorf("a further sweep wrote %v, want nothing", kinds(events))
	}
}

// TestAPushDuringTheSearchForWhatIsGone: Harbor has said 404; the image was pushed and signed before that is recorded.
func TestAPushDuringTheSearchForWhatIsGone(t *testing.T) {
	w := newWorld()
	w.add(t, "there", nil)
	ref := refOf(t, "app")
	w.tellSigned(t, ref, activeKey, "app")
	w.onArtifact = func() { w.onArtifact = nil; w.tellSigned(t, ref, activeKey, "again") }
	if sum, _ := w.sweep(t, w.reconciler(t)); sum.Gone != 1 || known(t, w, ref).State != "signed" {
		t.Errorf("%+v, known as %+v, want it signed", sum, known(t, w, ref))
	}
}

// TestOnlyASignerTellsAnAccessory: what Harbor lists as an artifact is asked for, whatever its tags, and whoever pushed it.
func TestOnlyASignerTellsAnAccessory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tags   []string
		said   policy.Reason // by the ledger; empty for nothing
		wanted bool
	}{
		{"tagged like an attestation", []string{accessoryTag()}, "", true},
		{"the signer's account has pushed it", []string{"v1"}, policy.OwnPush, true},
		{"a signer has read it", []string{"v1"}, policy.IsAccessory, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			ref := w.add(t, "app", func(l *artifact.Listed) { l.Tags = tt.tags })
			if tt.said != "" {
				w.tell(t, artifact.Event{Kind: artifact.Skipped, Ref: ref, Reason: string(tt.said)})
			}
			sum, events := w.sweep(t, w.reconciler(t))
			if _, asked := w.waiting[ref]; asked != tt.wanted || len(events) != 0 {
				t.Errorf("asked for %t, %+v, events %v, want asked for %t", asked, sum, kinds(events), tt.wanted)
			}
			c, err := w.ledger.Coverage(t.Context(), nil)
			if want := tt.said == policy.OwnPush; err != nil || (c["demo"].Population == 1) != want {
				t.Errorf("coverage %+v, %v, want the image in the population: %t", c["demo"], err, want)
			}
		})
	}
}

// TestProjectsThatWereNeverListed: nobody would come back to their pushes.
func TestProjectsThatWereNeverListed(t *testing.T) {
	for _, tt := range []struct {
		kind  fault.Kind
		holds bool
	}{{fault.Transient, true}, {fault.Permanent, false}} {
		w := newWorld()
		r := w.reconciler(t, func(c *reconcile.Config) {
			c.Harbor = unlisted{w, fault.New(tt.kind, fault.Unavailable, errors.New("502"))}
		})
		if err := r.Tick(t.Context(), reconcile.Recent, "", time.Now().UnixNano()/int64(time.Minute)+1); err != nil {
			t.Fatal(err)
		}
		if got := w.watermark(t).IsZero(); got != tt.holds {
			t.Errorf("%s: no watermark %t, want %t", tt.kind, got, tt.holds)
		}
	}
}

// unlisted is a Harbor whose projects cannot be listed.
type unlisted struct {
	*world
	err error
}

func (u unlisted) AllProjects(context.Context) ([]artifact.Project, error) { return nil, u.err }
