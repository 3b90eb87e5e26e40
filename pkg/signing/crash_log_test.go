package signing_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// crashCase is one row of the crash table: what a policy asks for, and which key signs.
type crashCase struct {
	kind         policy.LogType
	format       policy.Format
	transparency policy.Transparency
	timestamp    policy.Timestamp
	random       bool
}

func (c crashCase) String() string {
	key := "deterministic"
	if c.random {
		key = "random"
	}
	return fmt.Sprintf("%s, %s, %s, timestamp %s, %s key", c.kind, c.format, c.transparency, c.timestamp, key)
}

// crashCases are all that a policy may ask for of logs; timestamps and keys vary along.
func crashCases() []crashCase {
	var all []crashCase
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
			for _, transparency := range []policy.Transparency{policy.TransparencyOff, policy.TransparencyRequired, policy.TransparencyDeferred} {
				if kind == policy.RekorV2 && (transparency == policy.TransparencyOff || format == policy.FormatLegacy) {
					continue
				}
				for _, random := range []bool{false, true} {
					timestamp := policy.TimestampOptional
					if random {
						timestamp = policy.TimestampOff
					}
					all = append(all, crashCase{kind, format, transparency, timestamp, random})
				}
				all = append(all, crashCase{kind, format, transparency, policy.TimestampRequired, false})
			}
		}
	}
	return all
}

// world gives one digest of such a project, and its push.
func (c crashCase) world(t *testing.T) (*world, artifact.Ref) {
	t.Helper()
	w, ref := logWorld(t, c.format, c.transparency, c.kind)
	w.addAuthority()
	w.change(func(p *policy.Policy) { p.Terms.Timestamp = c.timestamp })
	return w, ref
}

// once does what the queue has to give: the request first, then the debt.
func (w *world) once(t *testing.T, s *signing.Service, ref artifact.Ref, attempts uint64) {
	t.Helper()
	if request, waits := w.waiting[ref]; waits {
		s.Handle(t.Context(), &delivery{w: w, request: request, attempts: attempts, firstSeen: time.Now()})
	}
	if debt, waits := w.debts[ref]; waits {
		s.Pay(t.Context(), &delivery{w: w, request: debt, attempts: attempts, firstSeen: time.Now()})
	}
}

// rest lets a new signer do what is left, until nothing is, and a sweep look at it.
func (w *world) rest(t *testing.T, p parts, ref artifact.Ref) *signing.Verifier {
	t.Helper()
	s, v := p.service(t, w)
	review, err := signing.NewReview(p.verifier, p.merger)
	if err != nil {
		t.Fatal(err)
	}
	for attempt := uint64(2); attempt < 6; attempt++ {
		w.once(t, s, ref, attempt)
		w.settle()
		_, _, signed, err := review.Verify(t.Context(), w.policies["demo"], w.listed(t, ref))
		if err != nil || !signed {
			t.Fatalf("a sweep sees signed = %t, %v", signed, err)
		}
		if len(w.waiting)+len(w.debts) == 0 {
			return v
		}
	}
	t.Fatalf("there is no end: %d requests and %d debts wait", len(w.waiting), len(w.debts))
	return nil
}

// TestEveryStepMayFailWithALog is the crash table of transparency: at each operation of the request and of its debt the
// signer dies, and a new one goes on.
func TestEveryStepMayFailWithALog(t *testing.T) {
	random := newRandomKeys(t)
	for _, c := range crashCases() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			steps := 0
			for _, how := range []mode{fails, failsButPersists, persistsLate} {
				for step := 1; ; step++ {
					w, ref := c.world(t)
					newParts := newParts
					if c.random {
						newParts = random.parts
					}
					reached := false
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
					s, _ := newParts(t, w).service(t, w)
					w.once(t, s, ref, 1)
					w.fail = nil
					if !reached {
						steps = step - 1
						break
					}
					name := fmt.Sprintf("step %d (%s), %s", step, w.operations[step-1], []string{"works", "without effect", "persisted", "persisted late"}[how])
					p := newParts(t, w)
					v := w.rest(t, p, ref)
					wantNothingOwed(t, w, v, ref, formatsOf(c.format, c.transparency, c.kind))
					wantState(t, w, ref, ledger.Signed)
					if c.timestamp == policy.TimestampRequired && slices.ContainsFunc(w.carriers("demo/app"), func(c carried) bool { return !c.stamped }) {
						t.Errorf("%+v, want timestamps", w.carriers("demo/app"))
					}
					if t.Failed() {
						t.Fatalf("failed at %s; then: %v", name, w.operations)
					}
				}
			}
			if least := map[policy.Transparency]int{policy.TransparencyOff: 9, policy.TransparencyRequired: 11, policy.TransparencyDeferred: 20}[c.transparency]; steps < least {
				t.Errorf("only %d operations were seen, want %d at least", steps, least)
			}
		})
	}
}
