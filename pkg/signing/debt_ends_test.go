package signing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// owing gives a world whose digest is signed and owes entries in all its formats.
func owing(t *testing.T, format policy.Format) (*world, artifact.Ref) {
	t.Helper()
	w, ref := logWorld(t, format, policy.TransparencyDeferred, policy.RekorV1)
	s, _ := newService(t, w)
	if d := w.attempt(t, s, ref, 1); d.ended != "done" || len(w.debts) != 1 {
		t.Fatalf("the delivery ended %q with %d debts, want done with 1", d.ended, len(w.debts))
	}
	w.operations = nil
	return w, ref
}

// TestADebtThatEndsOtherwise: what the policy asks for no more, what is gone, and what cannot be.
func TestADebtThatEndsOtherwise(t *testing.T) {
	remove := func(w *world, ref artifact.Ref) { delete(w.manifests, ref.Repository()+" "+ref.Digest()) }
	for _, tt := range []struct {
		name   string
		change func(w *world, ref artifact.Ref)
		reason string
	}{
		{"log off", func(w *world, _ artifact.Ref) {
			w.change(func(p *policy.Policy) { p.Terms.Transparency = policy.TransparencyOff })
		}, signing.DebtOff},
		{"a log of which the format can carry nothing", func(w *world, _ artifact.Ref) {
			w.change(func(p *policy.Policy) { p.Terms.Transparency = "" })
		}, signing.DebtOff},
		{"project disabled", func(w *world, _ artifact.Ref) { delete(w.policies, "demo") }, string(policy.NotEnabled)},
		{"observed only", func(w *world, _ artifact.Ref) {
			w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
		}, string(policy.Observed)},
		{"blocked", func(w *world, ref artifact.Ref) {
			w.change(func(p *policy.Policy) { p.Blocks = []policy.Block{{Digest: ref.Digest(), By: "ann", Reason: "bad"}} })
		}, string(policy.Blocked)},
		{"gone", remove, signing.DebtGone},
		{"project gone", func(w *world, _ artifact.Ref) {
			w.exists, w.failWith = false, fault.New(fault.Permanent, fault.Denied, errInjected)
			w.fail = failing("get manifest")
		}, signing.DebtGone},
		{"gone meanwhile", func(w *world, ref artifact.Ref) {
			w.change(filtered)
			w.before = func(name string) {
				if name == "log" {
					remove(w, ref)
				}
			}
		}, ""},
	} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBoth} {
			t.Run(tt.name+", "+string(format), func(t *testing.T) {
				w, ref := owing(t, format)
				tt.change(w, ref)
				s, _ := newService(t, w)
				if d := w.pay(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("the debt ended %q, want done", d.ended)
				}
				paid := w.events(artifact.LogPaid, ref)
				if len(paid) != 1 || paid[0].Reason != tt.reason || len(w.debts) > 0 {
					t.Errorf("log_debt_paid events %+v and %d debts, want one that says %q, and none", paid, len(w.debts), tt.reason)
				}
				if entries := len(w.logs.logs["rekor"].entries); (entries == 0) != (tt.reason != "") {
					t.Errorf("%d entries were made", entries)
				}
				wantPaid(t, w, ref)
			})
		}
	}
}

// TestADebtBehindALockedTag: what Harbor refuses for good ends the debt, and a logged bundle stands in where one can.
func TestADebtBehindALockedTag(t *testing.T) {
	for _, tt := range []struct {
		name     string
		format   policy.Format
		bundles  bool
		rulesErr error
		want     int // bundles
	}{
		{"legacy, bundles can be", policy.FormatLegacy, true, nil, 1},
		{"legacy, bundles can be, rules unknown", policy.FormatLegacy, true, errInjected, 1},
		{"legacy alone", policy.FormatLegacy, false, nil, 0},
		{"both", policy.FormatBoth, true, nil, 1},
		{"both, rules unknown", policy.FormatBoth, true, errInjected, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, ref := owing(t, tt.format)
			w.locked, w.bundles, w.rulesErr = []string{"rule 7"}, tt.bundles, tt.rulesErr
			s, _ := newService(t, w)
			if d := w.pay(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("the debt ended %q, want done", d.ended)
			}
			paid := w.events(artifact.LogPaid, ref)
			if len(paid) != 1 || paid[0].Reason != signing.DebtLocked || len(w.debts) > 0 || paid[0].Detail == "" {
				t.Fatalf("log_debt_paid events %+v and %d debts, want one that says %s and why", paid, len(w.debts), signing.DebtLocked)
			}
			logged := 0
			for _, c := range w.carriers("demo/app") {
				if c.format == artifact.Bundle && c.logged {
					logged++
				}
			}
			if logged != tt.want || w.bundlesOf(t, ref) != tt.want {
				t.Errorf("%d bundles, %d of them logged, want %d", w.bundlesOf(t, ref), logged, tt.want)
			}
			// What remains is enough for the sweeps, and where a bundle stands in, nothing is owed.
			review, err := signing.NewReview(newParts(t, w).verifier, newParts(t, w).merger)
			if err != nil {
				t.Fatal(err)
			}
			ok, _, err := review.Sufficient(t.Context(), w.policies["demo"], paid[0].Signatures)
			if !ok || err != nil {
				t.Errorf("Sufficient(%+v) = %t, %v, want true", paid[0].Signatures, ok, err)
			}
			owed, err := review.Owes(t.Context(), w.policies["demo"], paid[0].Signatures)
			if len(owed) > 0 != (tt.want == 0) || err != nil {
				t.Errorf("Owes(%+v) = %v, %v", paid[0].Signatures, owed, err)
			}
			wantPaid(t, w, ref)
			for _, violation := range w.violations {
				t.Error(violation)
			}
		})
	}
}

// TestAPausedDebt waits for the end of the pause, whatever it takes.
func TestAPausedDebt(t *testing.T) {
	w, ref := owing(t, policy.FormatBoth)
	w.change(pause)
	s, v := newService(t, w)
	if d := w.pay(t, s, ref, 1); d.ended != "retry" || d.delay < 15*time.Second || len(w.operations) > 1 {
		t.Fatalf("the debt ended %q with delay %s after %v, want retry at once", d.ended, d.delay, w.operations)
	}
	w.change(resume)
	w.pay(t, s, ref, 2)
	wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, policy.TransparencyDeferred, policy.RekorV1))
}

// TestADebtIsNeverGivenUp, however old it is, however often it was tried, and whatever fails for good.
func TestADebtIsNeverGivenUp(t *testing.T) {
	for _, reason := range []fault.Reason{fault.Rejected, fault.LogUnavailable, fault.Unauthorized} {
		w, ref := owing(t, policy.FormatLegacy)
		metrics := prometheus.NewRegistry()
		s, v := newService(t, w, func(c *signing.Config) { c.Registerer = metrics })
		w.fail, w.failWith = failing("log"), fault.New(fault.Permanent, reason, errInjected)
		if reason == fault.LogUnavailable {
			w.failWith = fault.After(30*time.Minute, reason, errInjected)
		}
		d := &delivery{w: w, request: w.debts[ref], attempts: 1000, firstSeen: time.Now().Add(-1000 * time.Hour)}
		events := len(w.ledger)
		s.Pay(t.Context(), d)
		if d.ended != "retry" || len(w.ledger) != events || len(w.debts) != 1 {
			t.Fatalf("%s: the debt ended %q with %+v in the ledger, want retry and nothing", reason, d.ended, w.ledger[events:])
		}
		least := map[fault.Reason]time.Duration{fault.Rejected: 45 * time.Minute, fault.LogUnavailable: 30 * time.Minute, fault.Unauthorized: 2 * time.Minute}[reason]
		if d.delay < least || d.delay > time.Hour {
			t.Errorf("%s: it comes again after %s, want %s to an hour", reason, d.delay, least)
		}
		if got := count(t, metrics, "harborseal_signing_failures_total", ""); got != 1 {
			t.Errorf("%s: %d failures were counted, want 1", reason, got)
		}
		wantState(t, w, ref, ledger.Signed)
		w.fail, w.failWith = nil, nil
		w.pay(t, s, ref, 1001)
		wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatLegacy, policy.TransparencyDeferred, policy.RekorV1))
	}
}

// TestATagThatIsOverwrittenWhileItIsPaid: theirs stays, and ours is logged in the end.
func TestATagThatIsOverwrittenWhileItIsPaid(t *testing.T) {
	for _, at := range []string{"log", "put manifest", "record log_debt_paid"} {
		t.Run(at, func(t *testing.T) {
			w, ref := owing(t, policy.FormatLegacy)
			theirs := w.foreign("demo/app", "theirs")
			w.before = func(name string) {
				if name == at {
					w.before = nil
					w.put(t, ref, theirs)
				}
			}
			s, _ := newService(t, w)
			w.pay(t, s, ref, 1)
			p := newParts(t, w)
			if at == "record log_debt_paid" && len(w.debts) != 1 {
				t.Fatal("the look behind the acknowledgement finds nothing")
			}
			v := w.rest(t, p, ref)
			if _, err := p.merger.Merge(t.Context(), ref, ""); err != nil { // as the watch does
				t.Fatal(err)
			}
			if verdict := w.verify(t, v, ref); !verdict.Signed() || len(verdict.Owed) > 0 {
				t.Errorf("%+v, want signed and nothing owed", verdict)
			}
			var ours, others int
			for _, c := range w.carriers("demo/app") {
				switch {
				case c.bytes == "Zm9v":
					others++
				case c.logged:
					ours++
				default:
					t.Errorf("%+v is there without its entry", c)
				}
			}
			if ours != 1 || others != 1 || len(w.logs.logs["rekor"].entries) != 1 {
				t.Errorf("%d of ours, %d of theirs, %d entries, want one of each", ours, others, len(w.logs.logs["rekor"].entries))
			}
		})
	}
}

// TestAKeyThatEndsWhileTheDebtWaits: what a retired key signed is completed, without the key; what a revoked one signed counts
// no more, and is made anew.
func TestAKeyThatEndsWhileTheDebtWaits(t *testing.T) {
	_, first := newKey(t)
	_, second := newKey(t)
	for _, state := range []sigstore.KeyState{sigstore.VerifyOnly, sigstore.Revoked} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
			t.Run(fmt.Sprintf("%s, %s", state, format), func(t *testing.T) {
				w, ref := logWorld(t, format, policy.TransparencyDeferred, policy.RekorV1)
				old := newTrustedRing(t, w.trust(), sigstore.NamedKey{Name: "k", State: sigstore.Active, Signer: first})
				s, _ := partsOf(t, w, w, old, old).service(t, w)
				w.attempt(t, s, ref, 1)
				ring := newTrustedRing(t, w.trust(),
					sigstore.NamedKey{Name: "k2", State: sigstore.Active, Signer: second},
					sigstore.NamedKey{Name: "k", State: state, Public: first.Public()})
				w.change(func(p *policy.Policy) { p.Terms.Key = "k2" })
				p := partsOf(t, w, w, ring, ring)
				s, v := p.service(t, w)
				if d := w.pay(t, s, ref, 1); d.ended != "done" {
					t.Fatalf("the debt ended %q, want done", d.ended)
				}
				verdict := w.verify(t, v, ref)
				if !verdict.Signed() || len(verdict.Owed) > 0 {
					t.Fatalf("%+v, want signed and nothing owed", verdict)
				}
				for _, e := range verdict.Signatures {
					want := second.ID()
					if state == sigstore.VerifyOnly && (e.Format == artifact.Legacy || format == policy.FormatBundle) {
						want = first.ID()
					}
					if e.KeyID != want || e.Log == "" {
						t.Errorf("%+v, want it logged and by %s", e, want)
					}
				}
				if events := w.events(artifact.Signed, ref); (len(events) == 2) != (state == sigstore.Revoked) {
					t.Errorf("signed events %+v, want a second one only for a revoked key", events)
				}
				wantState(t, w, ref, ledger.Signed)
				wantPaid(t, w, ref)
				for _, violation := range w.violations {
					t.Error(violation)
				}
			})
		}
	}
}

// TestWhatIsSignedWhileADebtIsPaid: the queue refuses the second debt as a duplicate of the first, which is about to end.
func TestWhatIsSignedWhileADebtIsPaid(t *testing.T) {
	w, ref := owing(t, policy.FormatLegacy)
	s, v := newService(t, w)
	w.before = func(name string) {
		if name == "ack" { // the new signature was lost in between
			w.before = nil
			tag := w.tagged["demo/app "+sigTag(ref.Digest())]
			w.manifests["demo/app "+sigTag(ref.Digest())] = tag[0]
		}
	}
	if d := w.pay(t, s, ref, 1); d.ended != "done" || len(w.debts) != 1 {
		t.Fatalf("the debt ended %q and %d wait, want done and another one", d.ended, len(w.debts))
	}
	w.pay(t, s, ref, 1)
	wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatLegacy, policy.TransparencyDeferred, policy.RekorV1))
	if paid := w.events(artifact.LogPaid, ref); len(paid) != 2 {
		t.Errorf("log_debt_paid events %+v, want two", paid)
	}
}

// TestADebtOfNothing: a debt that was paid already, by another delivery, writes nothing.
func TestADebtOfNothing(t *testing.T) {
	w, ref := owing(t, policy.FormatBoth)
	debt := w.debts[ref]
	s, v := newService(t, w)
	w.pay(t, s, ref, 1)
	for _, s := range []*signing.Service{s, first(newService(t, w))} {
		w.debts[ref], w.operations = debt, nil
		if d := w.pay(t, s, ref, 2); d.ended != "done" || strings.Contains(strings.Join(w.operations, " "), "pu") {
			t.Errorf("the debt ended %q after %v, want done and nothing written", d.ended, w.operations)
		}
	}
	wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, policy.TransparencyDeferred, policy.RekorV1))
}

// TestModesThatChangeBetweenAttempts: what is there is completed, what is owed no more is waived.
func TestModesThatChangeBetweenAttempts(t *testing.T) {
	for _, tt := range []struct{ from, to policy.Transparency }{
		{policy.TransparencyOff, policy.TransparencyRequired},
		{policy.TransparencyOff, policy.TransparencyDeferred},
		{policy.TransparencyRequired, policy.TransparencyDeferred},
		{policy.TransparencyRequired, policy.TransparencyOff},
		{policy.TransparencyDeferred, policy.TransparencyOff},
		{policy.TransparencyDeferred, policy.TransparencyRequired},
	} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
			t.Run(fmt.Sprintf("%s to %s, %s", tt.from, tt.to, format), func(t *testing.T) {
				w, ref := logWorld(t, format, tt.from, policy.RekorV1)
				s, _ := newService(t, w)
				w.attempt(t, s, ref, 1)
				w.change(func(p *policy.Policy) { p.Terms.Transparency = tt.to })
				w.receive(t, ref, "again")
				p := newParts(t, w)
				v := w.rest(t, p, ref)
				wanted := formatsOf(format, tt.to, policy.RekorV1)
				if tt.from == policy.TransparencyRequired {
					wanted = formatsOf(format, tt.from, policy.RekorV1)
				}
				wantNothingOwed(t, w, v, ref, wanted)
				found := w.events(artifact.Signed, ref)
				if last := found[len(found)-1]; tt.to == policy.TransparencyRequired && slices.ContainsFunc(last.Signatures, func(e artifact.Evidence) bool { return e.Log == "" }) {
					t.Errorf("the ledger names the signatures %+v, want them logged", last.Signatures)
				}
			})
		}
	}
}
