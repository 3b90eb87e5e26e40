package signing_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestATagThatIsWrittenWhileALogIsWaitedFor: seconds pass between the look at the tag and the put. Theirs is in it all the same,
// without a merge.
func TestATagThatIsWrittenWhileALogIsWaitedFor(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} { // of v2 only the bundle waits, which comes first
		w, ref := logWorld(t, policy.FormatBoth, policy.TransparencyRequired, kind)
		w.before = func(name string) {
			if name == "log" {
				w.before = nil
				w.put(t, ref, w.foreign("demo/app", "theirs"))
			}
		}
		s, _ := newService(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != "done" {
			t.Fatalf("%s: the delivery ended %q, want done", kind, d.ended)
		}
		if !slices.ContainsFunc(w.carriers("demo/app"), func(c carried) bool { return c.bytes == "Zm9v" }) {
			t.Errorf("%s: %+v, want theirs among it", kind, w.carriers("demo/app"))
		}
	}
}

// TestWhatIsWrongWithALogForDays buries nothing, whatever it is that is wrong with it: a signer that was started again does not know that
// the queue had held the request. What the log refuses may be the digest's.
func TestWhatIsWrongWithALogForDays(t *testing.T) {
	for reason, want := range map[fault.Reason]string{
		fault.Unreachable: "retry", fault.Timeout: "retry", fault.RateLimited: "retry", fault.BadAnswer: "retry", fault.Unauthorized: "retry",
		fault.Rejected: "buried",
	} {
		w, ref := logWorld(t, policy.FormatLegacy, policy.TransparencyRequired, policy.RekorV1)
		w.failWith = fault.New(fault.Transient, reason, errInjected)
		w.fail = func(_ int, name string) mode {
			if name == "log" {
				return fails
			}
			return works
		}
		s, _ := newService(t, w)
		d := &delivery{w: w, request: w.waiting[ref], attempts: 5000, firstSeen: time.Now().Add(-50 * time.Hour)}
		if s.Handle(t.Context(), d); d.ended != want {
			t.Errorf("%s: the delivery ended %q, want %q", reason, d.ended, want)
		}
	}
}

// TestAKeptTimestampDoesNotReplaceAnEntry: what another policy's attempt has kept lacks the entry that the signature has.
func TestAKeptTimestampDoesNotReplaceAnEntry(t *testing.T) {
	w, ref := logWorld(t, policy.FormatBundle, policy.TransparencyRequired, policy.RekorV1)
	w.addAuthority()
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	for name, kept := range w.kept {
		if kept.Entry != nil {
			kept.Entry = nil
			response, at, err := w.stamps.Stamp(t.Context(), kept)
			if err != nil {
				t.Fatal(err)
			}
			kept.Timestamp, kept.TimestampedAt = response, at
			w.kept[name] = kept
		}
	}
	w.change(func(p *policy.Policy) {
		p.Terms.Transparency, p.Terms.Timestamp = policy.TransparencyOff, policy.TimestampRequired
	})
	w.receive(t, ref, "again")
	s, v := newService(t, w)
	w.attempt(t, s, ref, 1)
	if e := w.verify(t, v, ref).Signatures; len(e) != 1 || e[0].Log == "" || e[0].TimestampedAt.IsZero() {
		t.Errorf("%+v, want one with its entry and a timestamp", e)
	}
}

// TestADebtThatAnOldPolicyWaives: the policy asks for the entry again, which this signer has not seen yet.
func TestADebtThatAnOldPolicyWaives(t *testing.T) {
	w, ref := owing(t, policy.FormatBoth)
	w.change(func(p *policy.Policy) { p.Terms.Transparency = policy.TransparencyOff })
	w.unseen = func(p *policy.Policy) { p.Terms.Transparency = policy.TransparencyDeferred }
	s, v := newService(t, w)
	w.pay(t, s, ref, 1)
	wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, policy.TransparencyDeferred, policy.RekorV1))
	if paid := w.events(artifact.LogPaid, ref); len(paid) != 1 || paid[0].Reason != "" {
		t.Errorf("log_debt_paid events %+v, want one without a reason", paid)
	}
}

// TestABundleThatNobodyAskedForIsNoEvidence: it is logged for the legacy signature's sake.
func TestABundleThatNobodyAskedForIsNoEvidence(t *testing.T) {
	w, ref := logWorld(t, policy.FormatBundle, policy.TransparencyOff, policy.RekorV1)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	w.change(func(p *policy.Policy) {
		p.Terms.Format, p.Terms.Transparency = policy.FormatLegacy, policy.TransparencyRequired
	})
	w.receive(t, ref, "again")
	w.attempt(t, s, ref, 1)
	logged := 0
	for _, c := range w.carriers("demo/app") {
		if c.logged {
			logged++
		}
	}
	e := w.events(artifact.Signed, ref)
	if last := e[len(e)-1]; logged != 2 || len(last.Signatures) != 1 || last.Signatures[0].Format != artifact.Legacy {
		t.Errorf("%d logged signatures and %+v in the ledger, want both and the legacy one", logged, last.Signatures)
	}
}

// TestWhatADebtCosts: seven requests to Harbor, and nothing is merged, though the key signs differently each time.
func TestWhatADebtCosts(t *testing.T) {
	random := newRandomKeys(t)
	w, ref := logWorld(t, policy.FormatLegacy, policy.TransparencyDeferred, policy.RekorV1)
	s, _ := random.parts(t, w).service(t, w)
	w.attempt(t, s, ref, 1)
	w.operations = nil
	w.pay(t, s, ref, 1)
	const want = "get manifest, get manifest, list referrers, log, keep, get manifest, put manifest, get manifest, record log_debt_paid, ack, get manifest"
	if got := strings.Join(w.operations, ", "); got != want {
		t.Errorf("operations\n got %s\nwant %s", got, want)
	}
}
