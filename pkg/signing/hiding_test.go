package signing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// terms are what changes between two attempts.
type terms struct {
	format       policy.Format
	transparency policy.Transparency
}

func allTerms() []terms {
	var all []terms
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
		for _, transparency := range []policy.Transparency{policy.TransparencyOff, policy.TransparencyRequired, policy.TransparencyDeferred} {
			all = append(all, terms{format, transparency})
		}
	}
	return all
}

// TestNothingIsHidden: whatever a policy asked for before, whatever it asks for now, and wherever an attempt dies in between, no
// unlogged bundle alone stands beside a logged legacy signature at any moment, and no signature is made twice.
func TestNothingIsHidden(t *testing.T) {
	for _, from := range allTerms() {
		for _, to := range allTerms() {
			for _, paid := range []bool{true, false} {
				if from.transparency != policy.TransparencyDeferred && !paid {
					continue
				}
				t.Run(fmt.Sprintf("%s to %s, paid %t", from, to, paid), func(t *testing.T) {
					t.Parallel()
					step := 1
					for changesSafely(t, from, to, paid, step) {
						step++
					}
				})
			}
		}
	}
}

// changesSafely lets the attempt behind a change die right behind a step, and says whether there is one.
func changesSafely(t *testing.T, from, to terms, paid bool, step int) (reached bool) {
	t.Helper()
	w, ref := logWorld(t, from.format, from.transparency, policy.RekorV1)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	if len(w.debts) > 0 && paid {
		w.pay(t, s, ref, 1)
	}
	before := w.bytes()
	w.change(func(p *policy.Policy) { p.Terms.Format, p.Terms.Transparency = to.format, to.transparency })
	w.receive(t, ref, "again")
	w.fail = func(n int, _ string) mode {
		reached = reached || n == step
		switch {
		case n < step:
			return works
		case n == step:
			return failsButPersists
		default:
			return fails
		}
	}
	s, _ = newService(t, w)
	w.once(t, s, ref, 1)
	w.fail = nil
	p := newParts(t, w)
	v := w.rest(t, p, ref)
	if verdict := w.verify(t, v, ref); !verdict.Signed() || len(verdict.Owed) > 0 {
		t.Errorf("%+v, want signed and nothing owed", verdict)
	}
	for format, all := range w.bytes() {
		if len(all) != 1 || before[format] != nil && !slices.Equal(all, before[format]) {
			t.Errorf("%s: the signatures %v, and before %v: want one", format, all, before[format])
		}
	}
	wantPaid(t, w, ref)
	for _, violation := range w.violations {
		t.Error(violation)
	}
	if t.Failed() {
		t.Fatalf("failed at step %d: %v", step, w.operations)
	}
	return reached
}

// bytes gives the different signatures in each format.
func (w *world) bytes() map[artifact.Format][]string {
	all := map[artifact.Format][]string{}
	for _, c := range w.carriers("demo/app") {
		if !slices.Contains(all[c.format], c.bytes) {
			all[c.format] = append(all[c.format], c.bytes)
		}
	}
	return all
}

// TestABundleBesideALoggedSignatureIsLogged, though the policy asks for no log any more: by the log that it names, or else by
// that of the signature. If there is none left, there is no bundle.
func TestABundleBesideALoggedSignatureIsLogged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world)
		ended  string
		log    string
	}{
		{"the same log", func(*world) {}, "done", "rekor"},
		{"another log", func(w *world) {
			w.addLog("second", policy.RekorV2)
			w.change(func(p *policy.Policy) { p.Terms.Log = "second" })
		}, "done", "second"},
		{"none named", func(w *world) { w.change(func(p *policy.Policy) { p.Terms.Log = "" }) }, "done", "rekor"},
		{"none left", func(w *world) { w.logs.logs["rekor"].inactive = true }, "buried", ""},
	} {
		for _, format := range []policy.Format{policy.FormatBundle, policy.FormatBoth} {
			t.Run(tt.name+", "+string(format), func(t *testing.T) {
				w, ref := logWorld(t, policy.FormatLegacy, policy.TransparencyRequired, policy.RekorV1)
				s, _ := newService(t, w)
				w.attempt(t, s, ref, 1)
				w.change(func(p *policy.Policy) { p.Terms.Format, p.Terms.Transparency = format, policy.TransparencyOff })
				tt.change(w)
				w.receive(t, ref, "again")
				s, v := newService(t, w)
				if d := w.attempt(t, s, ref, 1); d.ended != tt.ended {
					t.Fatalf("the delivery ended %q, want %s", d.ended, tt.ended)
				}
				for _, violation := range w.violations {
					t.Error(violation)
				}
				if tt.ended == "buried" {
					if e := w.dead[ref]; e.Reason != string(fault.Unverifiable) || !strings.Contains(e.Detail, "activate a log") {
						t.Errorf("the dead letter says %q, want %s and what to do", e.Detail, fault.Unverifiable)
					}
					return
				}
				for _, e := range w.verify(t, v, ref).Signatures {
					if e.Format == artifact.Bundle && e.Log != tt.log {
						t.Errorf("%+v, want an entry of %q", e, tt.log)
					}
				}
			})
		}
	}
}

// TestAnUnloggedBundleThatCannotBeLogged keeps the legacy signature from being logged, which it would hide.
func TestAnUnloggedBundleThatCannotBeLogged(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
		w, ref := logWorld(t, policy.FormatBoth, policy.TransparencyOff, policy.RekorV1)
		s, _ := newService(t, w)
		w.attempt(t, s, ref, 1)
		w.change(func(p *policy.Policy) { p.Terms.Format, p.Terms.Transparency = format, policy.TransparencyRequired })
		w.receive(t, ref, "again")
		refused := false
		w.before = func(name string) {
			if name == "log" && !refused {
				refused = true
				w.fail, w.failWith = failing("log"), fault.New(fault.Permanent, fault.Rejected, errInjected)
			} else if refused {
				w.fail = nil
			}
		}
		s, _ = newService(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
			t.Errorf("%s: the delivery ended %q, want buried", format, d.ended)
		}
		for _, c := range w.carriers("demo/app") {
			if c.logged {
				t.Errorf("%s: %+v, want nothing logged", format, c)
			}
		}
	}
}
