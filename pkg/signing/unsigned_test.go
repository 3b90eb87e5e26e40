package signing_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// failing lets each operation of one name fail.
func failing(at string) func(int, string) mode {
	return func(_ int, name string) mode {
		if name == at {
			return fails
		}
		return works
	}
}

// TestHalfOfWhatIsAskedForIsUnsigned: the policy asks for both formats now, one is there, and the other one fails.
func TestHalfOfWhatIsAskedForIsUnsigned(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatLegacy, "demo")
	s, _ := newService(t, w)
	ref := w.push(t, "demo/app", ociImage, image)
	w.attempt(t, s, ref, 1)
	w.enable(t, policy.FormatBoth, "demo")
	w.receive(t, ref, "again")
	w.fail = failing("put manifest")
	w.attempt(t, s, ref, 1)
	if e := w.events(artifact.Failed, ref); len(e) != 1 || !e[0].Unsigned || e[0].AsOf == 0 {
		t.Errorf("failed events: %+v, want one that says unsigned and as of when", e)
	}
	wantState(t, w, ref, ledger.Failed)
	w.fail = nil
	w.attempt(t, s, ref, 2)
	wantState(t, w, ref, ledger.Signed)
}

// TestALateFailureDoesNotUndoASignature: an attempt has looked and waits for the queue. Meanwhile the request is delivered
// again, signed and recorded. What the first attempt then says of its look is old.
func TestALateFailureDoesNotUndoASignature(t *testing.T) {
	for _, tt := range []struct {
		name     string
		attempts uint64
		same     bool // one signer makes both attempts
	}{{"failed", 1, false}, {"given up", 10, false}, {"failed in the same signer", 1, true}} {
		for _, at := range []string{"keep", "push blob", "put manifest"} {
			t.Run(tt.name+" at "+at, func(t *testing.T) {
				w := newWorld(t, "demo")
				s, _ := newService(t, w)
				twin := s
				if !tt.same {
					twin, _ = newService(t, w)
				}
				ref := w.push(t, "demo/app", ociImage, image)
				request := w.waiting[ref]
				w.before = func(name string) {
					if name == at {
						w.before = nil
						twin.Handle(t.Context(), &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()})
						w.fail = failing(at)
					}
				}
				s.Handle(t.Context(), &delivery{w: w, request: request, attempts: tt.attempts, firstSeen: time.Now().Add(-25 * time.Hour)})
				last := w.ledger[len(w.ledger)-1]
				if (last.Kind != artifact.Failed && last.Kind != artifact.Dead) || !last.Unsigned {
					t.Fatalf("the last event is %+v, want a failure that says unsigned", last)
				}
				wantState(t, w, ref, ledger.Signed)
			})
		}
	}
}

// TestARemovedSignatureIsReported: it was signed, somebody removed that, and signing again fails.
func TestARemovedSignatureIsReported(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for _, origin := range []artifact.Origin{artifact.OriginWebhook, artifact.OriginSweep} {
			w := newWorld(t, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.attempt(t, s, ref, 1)
			delete(w.manifests, "demo/app "+sigTag(ref.Digest()))
			if origin == artifact.OriginWebhook {
				w.receive(t, ref, "again")
			} else {
				w.waiting[ref] = artifact.Request{Ref: ref, Lane: artifact.Bulk, Origin: origin, CorrelationID: "sweep"}
			}
			if restarted {
				s, _ = newService(t, w)
			}
			w.fail = failing("put manifest")
			w.attempt(t, s, ref, 1)
			wantState(t, w, ref, ledger.Failed)
		}
	}
}

// TestARequestTellsOfTheLedger: another signer signs, somebody removes that, and all within the second in which the ledger is
// not asked again. That the request is of a later push is enough.
func TestARequestTellsOfTheLedger(t *testing.T) {
	for name, forget := range map[string]bool{"it names the push": false, "it names none": true} {
		w := newWorld(t, "demo")
		now := time.Now()
		s, _ := newService(t, w, func(c *signing.Config) { c.Now = func() time.Time { return now } })
		ref := w.push(t, "demo/app", ociImage, image)
		other := w.push(t, "demo/app", ociImage, `{"schemaVersion":2,"n":1}`)
		w.attempt(t, s, other, 1) // asks the ledger
		twin, _ := newService(t, w)
		w.attempt(t, twin, ref, 1)
		delete(w.manifests, "demo/app "+sigTag(ref.Digest()))
		w.receive(t, ref, "again")
		if forget {
			r := w.waiting[ref]
			r.ReceivedSeq = 0
			w.waiting[ref] = r
		}
		w.fail = failing("put manifest")
		w.attempt(t, s, ref, 1)
		t.Run(name, func(t *testing.T) { wantState(t, w, ref, ledger.Failed) })
	}
}

// askedQueue counts how often the ledger is asked how far it is, and fails if it has to.
type askedQueue struct {
	*world
	asked  int
	err    error
	before func() // called before an answer; nil for nothing
}

func (q *askedQueue) LedgerSeq(ctx context.Context) (uint64, error) {
	q.asked++
	if q.before != nil {
		q.before()
	}
	if q.err != nil {
		return 0, q.err
	}
	return q.world.LedgerSeq(ctx)
}

// TestTheLedgerIsAskedOnceASecond, however much is signed, and nobody waits for an answer that does not come.
func TestTheLedgerIsAskedOnceASecond(t *testing.T) {
	w := newWorld(t, "demo")
	now := time.Now()
	for name, err := range map[string]error{"answers": nil, "fails": errInjected} {
		q := &askedQueue{world: w, err: err}
		s, _ := newService(t, w, func(c *signing.Config) {
			c.Queue, c.Now = q, func() time.Time { return now }
		})
		for n := range 10 {
			now = now.Add(300 * time.Millisecond)
			ref := w.push(t, "demo/app", ociImage, fmt.Sprintf(`{"schemaVersion":2,"n":"%s %d"}`, name, n))
			if d := w.attempt(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("%s: the delivery ended %q, want done", name, d.ended)
			}
		}
		if q.asked != 3 { // at 0.3, 1.5 and 2.7 s
			t.Errorf("%s: asked %d times in 2.7 s, want 3", name, q.asked)
		}
	}
}

// TestTheLedgerIsAskedBeforeTheLook: what is signed between the two is seen by the look. The other way round an attempt would
// say that it found none as of a moment in which there was one.
func TestTheLedgerIsAskedBeforeTheLook(t *testing.T) {
	w := newWorld(t, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	request := w.waiting[ref]
	twin, _ := newService(t, w)
	q := &askedQueue{world: w, before: func() {
		twin.Handle(t.Context(), &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()})
		w.fail = failing("put manifest")
	}}
	s, _ := newService(t, w, func(c *signing.Config) { c.Queue = q })
	s.Handle(t.Context(), &delivery{w: w, request: request, attempts: 1, firstSeen: time.Now()})
	wantState(t, w, ref, ledger.Signed)
}

// TestARepetitionIsOneFact: what was made in one attempt, and found by the next because the queue never heard of the
// end, is recorded once, in whatever order the formats came.
func TestARepetitionIsOneFact(t *testing.T) {
	for _, before := range []policy.Format{policy.FormatLegacy, policy.FormatBundle} {
		t.Run(string(before)+" first", func(t *testing.T) {
			w := newWorld(t)
			w.bundles = true
			w.enable(t, before, "demo")
			s, _ := newService(t, w)
			ref := w.push(t, "demo/app", ociImage, image)
			w.attempt(t, s, ref, 1)
			w.ledger = w.ledger[:1]
			w.enable(t, policy.FormatBoth, "demo")
			w.receive(t, ref, "again")
			for n := range 2 {
				w.fail = failing("ack")
				w.attempt(t, s, ref, uint64(n)+1)
				s, _ = newService(t, w)
			}
			wantSigned(t, w, ref, artifact.Made)
			want := []artifact.Format{artifact.Legacy, artifact.Bundle}
			if got := formats(w.events(artifact.Signed, ref)[0]); !slices.Equal(got, want) {
				t.Errorf("formats %v, want %v", got, want)
			}
		})
	}
}

// TestANewSignatureIsANewFact: the same request that ends with other signatures is not the same record.
func TestANewSignatureIsANewFact(t *testing.T) {
	w := newWorld(t)
	w.bundles = true
	random := newRandomKeys(t)
	w.enable(t, policy.FormatBundle, "demo")
	ref := w.push(t, "demo/app", ociImage, image)
	for n := range 2 {
		w.fail = failing("ack")
		s, _ := random.service(t, w)
		w.attempt(t, s, ref, uint64(n)+1)
		if got := len(w.events(artifact.Signed, ref)); got != n+1 {
			t.Fatalf("%d signed events after attempt %d, want %d", got, n+1, n+1)
		}
		clear(w.kept)
		for name := range w.manifests { // somebody deletes the accessory
			if name != "demo/app "+ref.Digest() {
				delete(w.manifests, name)
			}
		}
	}
}
