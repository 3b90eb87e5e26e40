package signing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestASignedImageStaysSignedWhileObserved: the mode was changed, and a further tag of a signed image is pushed.
func TestASignedImageStaysSignedWhileObserved(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle} {
		t.Run(string(format), func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, format, "demo")
			s, k := watchedService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.attempt(t, s, ref, 1)
			signed := w.events(artifact.Signed, ref)
			calls := k.signed
			w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
			w.receive(t, ref, "again")
			w.attempt(t, s, ref, 1)
			wantState(t, w, ref, ledger.Signed)
			if e := w.events(artifact.Signed, ref); len(e) != 2 || e[1].How != artifact.Found || e[1].Signatures[0] != signed[0].Signatures[0] {
				t.Errorf("signed events %+v, want a second one that has found the signature", e)
			}
			if len(w.events(artifact.Skipped, ref)) != 0 || k.signed != calls {
				t.Error("it was said that it would be signed, or the key was used")
			}
		})
	}
}

// TestObservingThatCannotBeTold is repeated: nothing is said of an image at which nobody could look.
func TestObservingThatCannotBeTold(t *testing.T) {
	w := newWorld(t, "demo")
	w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	reads := 0
	w.fail = func(_ int, name string) mode {
		if name == "get manifest" {
			reads++
		}
		if reads == 2 && name == "get manifest" {
			return fails
		}
		return works
	}
	if d := w.attempt(t, s, ref, 1); d.ended != "retry" || len(w.events(artifact.Skipped, ref)) != 0 {
		t.Errorf("the delivery ended %q with %+v, want it given back", d.ended, w.events(artifact.Skipped, ref))
	}
}

// TestASignatureBehindTheObservation is made by another signer, whose policy says sign, after this one has looked.
func TestASignatureBehindTheObservation(t *testing.T) {
	w := newWorld(t, "demo")
	s, _ := newService(t, w)
	twin, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	request := w.waiting[ref]
	w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
	w.before = func(name string) {
		if name == "record "+string(artifact.Skipped) {
			w.before = nil
			w.change(func(p *policy.Policy) { p.Mode = policy.ModeSign })
			twin.Handle(t.Context(), &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()})
		}
	}
	s.Handle(t.Context(), &delivery{w: w, request: request, attempts: 1, firstSeen: time.Now()})
	if e := w.events(artifact.Skipped, ref); len(e) != 1 || e[0].AsOf == 0 {
		t.Fatalf("skipped events %+v, want one that says as of when", e)
	}
	wantState(t, w, ref, ledger.Signed)
}

// TestAPushIsNotSwallowedByARequestWithACut: a sweep's request for an old image waits while somebody pushes the image again, or
// an index that names it. Their requests are refused as duplicates.
func TestAPushIsNotSwallowedByARequestWithACut(t *testing.T) {
	from := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name   string
		kind   artifact.Kind
		at     time.Time
		signed bool
	}{
		{"pushed since", artifact.Received, from.Add(time.Minute), true},
		{"pushed at that time", artifact.Received, from, true},
		{"pushed before", artifact.Received, from.Add(-time.Minute), false},
		{"named by an index", artifact.Queued, from.Add(-time.Minute), true},
		{"nothing came in", "", from, false},
	} {
		for _, tags := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, tags matter %t", tt.name, tags), func(t *testing.T) {
				w := newWorld(t, "demo")
				s, _ := newService(t, w)
				ref := w.push(t, "demo/app", ociImage, image)
				w.tags[ref] = []string{"v1"}
				w.ledger = nil
				if tt.kind != "" {
					e := artifact.Event{ID: "x", Kind: tt.kind, Ref: ref, Time: tt.at, Origin: artifact.OriginWebhook, CorrelationID: "c"}
					if tt.kind == artifact.Queued {
						e.Parent = ref.Digest()
					}
					if _, err := w.Record(t.Context(), e); err != nil {
						t.Fatal(err)
					}
				}
				w.change(func(p *policy.Policy) {
					p.From = from
					if tags {
						p.Tags.Include = []string{"v*"}
					}
				})
				pushed := from.Add(-24 * time.Hour)
				w.waiting[ref] = artifact.Request{
					Ref: ref, Lane: artifact.Bulk, Origin: artifact.OriginSweep, CorrelationID: "sweep", PushedAt: &pushed,
				}
				w.attempt(t, s, ref, 1)
				want, reason := artifact.Skipped, policy.NotBackfilled
				if tt.signed {
					want, reason = artifact.Signed, policy.Reason("")
				}
				wantEnd(t, w, ref, want, reason)
			})
		}
	}
}

// TestTheActiveKeysBundleIsTheEvidence where a retired key's is there too: the report must not say that none but that key has
// signed. No more than some are read for it.
func TestTheActiveKeysBundleIsTheEvidence(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatBundle)
	old := w.verify(t, all.parts(t, w).verifier, ref).Signatures
	w.change(resign)
	s, _ := all.parts(t, w).service(t, w)
	w.waiting[ref] = artifact.Request{Ref: ref, Lane: artifact.Bulk, Origin: artifact.OriginSweep, CorrelationID: "sweep"}
	w.attempt(t, s, ref, 1)
	w.change(func(p *policy.Policy) { p.Terms.ActiveKeyOnly = false })
	for range 20 { // referrers come in any order
		got := w.verify(t, all.parts(t, w).verifier, ref).Signatures
		if by := signers(all, got)[artifact.Bundle]; len(old) != 1 || len(got) != 1 || by[0] != "k" {
			t.Fatalf("evidence by %v, %d before, want by the active key alone", by, len(old))
		}
	}
}

// TestARetiredKeysBundleAmongMany: the active key's is looked for beside it, and not without end.
func TestARetiredKeysBundleAmongMany(t *testing.T) {
	all := newManyKeys(t)
	w, ref := rotatedWorld(t, all, policy.FormatBundle)
	v := all.parts(t, w).verifier
	w.verify(t, v, ref) // the bundle is known from here on
	w.foreignBundles(ref, 300)
	w.operations = nil
	if verdict := w.verify(t, v, ref); !verdict.Signed() || len(w.operations) > 1+10*2 {
		t.Errorf("signed %t after %d requests, want it signed after 21 at most", verdict.Signed(), len(w.operations))
	}
}
