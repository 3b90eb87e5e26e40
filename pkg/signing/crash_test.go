package signing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// TestEveryStepMayFail is the crash table: at each operation the signer dies (the operation had no effect; or it had and
// nobody learned of it; or it has one when the next signer is done), a new signer gets the request again, and in the end all
// is as if nothing had happened. A key that signs differently each time shows that the same signature is attached again.
func TestEveryStepMayFail(t *testing.T) {
	random := newRandomKeys(t)
	for _, tt := range []struct {
		format policy.Format
		steps  int // at least
		parts  func(t *testing.T, w *world) parts
	}{
		{policy.FormatLegacy, 9, newParts},
		{policy.FormatBoth, 14, random.parts},
	} {
		for _, how := range []mode{fails, failsButPersists, persistsLate} {
			for step := 1; ; step++ {
				w := newWorld(t)
				w.bundles = true
				w.enable(t, tt.format, "demo")
				ref := w.push(t, "demo/app", ociImage, image)
				name, reached := w.dieAt(t, tt.parts(t, w), ref, step, how)
				if !reached {
					if step <= tt.steps {
						t.Fatalf("%s: only %d operations were seen", tt.format, step-1)
					}
					break
				}
				t.Run(fmt.Sprintf("%s, %s", tt.format, name), func(t *testing.T) {
					s, v := tt.parts(t, w).service(t, w) // restarted
					if _, waits := w.waiting[ref]; waits {
						if d := w.attempt(t, s, ref, 2); d.ended != "done" {
							t.Fatalf("the second delivery ended %q, want done", d.ended)
						}
					}
					w.settle()
					wantSignedBy(t, w, v, ref, "")
					wantOneOfEach(t, w, ref, tt.format)
					wantState(t, w, ref, ledger.Signed)
				})
			}
		}
	}
}

// dieAt makes the first attempt: from the failing step on nothing works.
func (w *world) dieAt(t *testing.T, p parts, ref artifact.Ref, step int, how mode) (name string, reached bool) {
	t.Helper()
	w.fail = func(n int, _ string) mode {
		switch {
		case n < step:
			return works
		case n == step:
			reached = true
			return how
		default:
			return fails
		}
	}
	s, _ := p.service(t, w)
	w.attempt(t, s, ref, 1)
	w.fail = nil
	if reached {
		name = fmt.Sprintf("step %d (%s), %s", step, w.operations[step-1], []string{"works", "without effect", "persisted", "persisted late"}[how])
	}
	return name, reached
}

// wantOneOfEach checks that nobody signed twice: one layer under the tag, one bundle.
func wantOneOfEach(t *testing.T, w *world, ref artifact.Ref, format policy.Format) {
	t.Helper()
	var tag struct{ Layers []json.RawMessage }
	if err := json.Unmarshal(w.manifests[ref.Repository()+" "+sigTag(ref.Digest())].Raw, &tag); err != nil || len(tag.Layers) != 1 {
		t.Errorf("%d signatures under the tag (%v), want 1", len(tag.Layers), err)
	}
	listed, err := w.Referrers(t.Context(), ref.Repository(), ref.Digest())
	want := 1
	if format == policy.FormatBoth {
		want = 2
	}
	if err != nil || len(listed) != want {
		t.Errorf("%d manifests of signatures (%v), want %d", len(listed), err, want)
	}
}

// TestWhatIsRecordedIsNotGivenUp: however old a request is, and whatever the queue answers, its digest is signed and the
// ledger says so.
func TestWhatIsRecordedIsNotGivenUp(t *testing.T) {
	permanent := fault.New(fault.Permanent, fault.Rejected, errInjected)
	for _, at := range []string{"clear dead", "ack"} {
		for _, err := range []error{nil, permanent} {
			t.Run(fmt.Sprintf("%s, permanent: %t", at, err != nil), func(t *testing.T) {
				w := newWorld(t, "demo")
				s, _ := newService(t, w)
				ref := w.push(t, "demo/app", ociImage, image)
				w.fail = failing(at)
				w.failWith = err
				d := &delivery{w: w, request: w.waiting[ref], attempts: 10, firstSeen: time.Now().Add(-25 * time.Hour)}
				s.Handle(t.Context(), d)
				if d.ended != "retry" || len(w.dead) > 0 || len(w.events(artifact.Dead, ref)) > 0 {
					t.Fatalf("the delivery ended %q with %+v, want a retry and no dead letter", d.ended, w.dead)
				}
				wantSigned(t, w, ref, artifact.Made)
				wantState(t, w, ref, ledger.Signed)
			})
		}
	}
}

// TestAStoppedSignerDecidesNothing: what fails because the program ends is neither recorded nor given up, however old, and is
// no failure.
func TestAStoppedSignerDecidesNothing(t *testing.T) {
	for _, age := range []time.Duration{0, 25 * time.Hour} {
		w := newWorld(t, "demo")
		metrics := prometheus.NewRegistry()
		s, _ := newService(t, w, func(c *signing.Config) { c.Registerer = metrics })
		ref := w.push(t, "demo/app", ociImage, image)
		ctx, cancel := context.WithCancel(t.Context())
		w.before = func(name string) {
			if name == "put manifest" {
				cancel()
			}
		}
		d := &delivery{w: w, request: w.waiting[ref], attempts: 16, firstSeen: time.Now().Add(-age)}
		s.Handle(ctx, d)
		if d.ended != "" || len(w.ledger) != 1 {
			t.Errorf("age %s: the delivery ended %q with %+v in the ledger, want neither", age, d.ended, w.ledger[1:])
		}
		if got := count(t, metrics, "harborseal_signing_failures_total", ""); got != 0 {
			t.Errorf("age %s: %d failures were counted, want none", age, got)
		}
	}
}
