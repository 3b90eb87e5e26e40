package signing_test

import (
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestARequestThatOvertakesItsPolicy: the change that it was made for reaches the signer after it. Nobody would come back to what
// was skipped by the policy of before.
func TestARequestThatOvertakesItsPolicy(t *testing.T) {
	for name, before := range map[string]func(p *policy.Policy, ref artifact.Ref){
		"not enabled yet":  func(p *policy.Policy, _ artifact.Ref) { p.Mode = policy.ModeOff },
		"only observed":    func(p *policy.Policy, _ artifact.Ref) { p.Mode = policy.ModeObserve },
		"suspended":        func(p *policy.Policy, _ artifact.Ref) { p.SuspendedFor = 9 },
		"still blocked":    func(p *policy.Policy, ref artifact.Ref) { p.Blocks = []policy.Block{{Digest: ref.Digest()}} },
		"out of its scope": func(p *policy.Policy, _ artifact.Ref) { p.Repositories.Include = []string{"other"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "demo")
			now := w.policies["demo"]
			ref := w.push(t, "demo/app", ociImage, image)
			w.change(func(p *policy.Policy) { before(p, ref) })
			w.unseen = func(p *policy.Policy) { *p = now }
			s, _ := newService(t, w)
			w.attempt(t, s, ref, 1)
			wantEnd(t, w, ref, artifact.Signed, "")
		})
	}
}

// TestAProjectThatWasEnabledAgainJustNow: the id that the adapter remembers is still that of the one before.
func TestAProjectThatWasEnabledAgainJustNow(t *testing.T) {
	w := newWorld(t, "demo")
	w.projectID, w.madeAnew = 7, 8
	w.change(func(p *policy.Policy) { p.ProjectID = 8 })
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	wantEnd(t, w, ref, artifact.Signed, "")

	w = newWorld(t, "demo")
	w.projectID, w.madeAnew = 7, 9
	w.change(func(p *policy.Policy) { p.ProjectID = 8 })
	s, _ = newService(t, w)
	ref = w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	wantEnd(t, w, ref, artifact.Skipped, policy.Suspended)
}
