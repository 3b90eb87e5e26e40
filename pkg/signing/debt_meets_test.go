package signing_test

import (
	"sync"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestADebtAndItsRequestAtOnce, with a key that signs differently each time: at each operation of one, the other one runs.
func TestADebtAndItsRequestAtOnce(t *testing.T) {
	random := newRandomKeys(t)
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
		for _, transparency := range []policy.Transparency{policy.TransparencyRequired, policy.TransparencyDeferred} {
			for at := 1; ; at++ {
				w, ref := logWorld(t, format, transparency, policy.RekorV1)
				s, _ := random.parts(t, w).service(t, w)
				request, n, met := w.waiting[ref], 0, false
				twin, _ := random.parts(t, w).service(t, w)
				w.before = func(string) {
					if n++; n != at {
						return
					}
					met, w.before = true, nil
					d := &delivery{w: w, request: request, attempts: 2, firstSeen: time.Now()}
					twin.Handle(t.Context(), d)
					if debt, owed := w.debts[ref]; owed {
						twin.Pay(t.Context(), &delivery{w: w, request: debt, attempts: 1, firstSeen: time.Now()})
					}
				}
				w.once(t, s, ref, 1)
				if w.before = nil; !met {
					if at < 12 {
						t.Errorf("%s %s: only %d operations were seen", format, transparency, at-1)
					}
					break
				}
				p := random.parts(t, w)
				v := w.rest(t, p, ref)
				wantNothingOwed(t, w, v, ref, formatsOf(format, transparency, policy.RekorV1))
				if t.Failed() {
					t.Fatalf("%s %s at operation %d: %v", format, transparency, at, w.operations)
				}
			}
		}
	}
}

// TestFourSignersAndALog: a digest in both lanes, each delivered twice, and its debt twice, to signers whose key signs
// differently each time, all at once. There is one signature in each format, with one entry.
func TestFourSignersAndALog(t *testing.T) {
	random := newRandomKeys(t)
	for round := range 20 {
		transparency := []policy.Transparency{policy.TransparencyRequired, policy.TransparencyDeferred}[round%2]
		w, ref := logWorld(t, policy.FormatBoth, transparency, policy.RekorV1)
		w.addAuthority()
		w.change(func(p *policy.Policy) { p.Terms.Timestamp = policy.TimestampRequired })
		request := w.waiting[ref]
		var signers sync.WaitGroup
		for n, lane := range []artifact.Lane{artifact.Live, artifact.Live, artifact.Bulk, artifact.Bulk, artifact.Debt, artifact.Debt} {
			s, _ := random.parts(t, w).service(t, w)
			r := request
			r.Lane = lane
			d := &delivery{w: w, request: r, attempts: uint64(n + 1), firstSeen: time.Now()}
			if lane == artifact.Debt {
				signers.Go(func() { s.Pay(t.Context(), d) })
			} else {
				signers.Go(func() { s.Handle(t.Context(), d) })
			}
		}
		signers.Wait()
		p := random.parts(t, w)
		v := w.rest(t, p, ref)
		wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, transparency, policy.RekorV1))
		if t.Failed() {
			t.Fatalf("round %d, %s", round, transparency)
		}
	}
}
