package signing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// TestWhatSweepsTakeForSigned: evidence is enough or not, and owes or not, as the policy asks now.
func TestWhatSweepsTakeForSigned(t *testing.T) {
	key, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	plain := func(f artifact.Format) artifact.Evidence { return artifact.Evidence{Format: f, KeyID: key.ID()} }
	logged := func(f artifact.Format) artifact.Evidence {
		return artifact.Evidence{Format: f, KeyID: key.ID(), Log: "rekor"}
	}
	stamped := artifact.Evidence{Format: artifact.Legacy, KeyID: key.ID(), TimestampedAt: at}
	others := artifact.Evidence{Format: artifact.Bundle, KeyID: strings.Repeat("0", 64), Log: "rekor"}
	both := []artifact.Evidence{plain(artifact.Legacy), plain(artifact.Bundle)}
	for _, tt := range []struct {
		name         string
		kind         policy.LogType
		format       policy.Format
		transparency policy.Transparency
		timestamp    policy.Timestamp
		evidence     []artifact.Evidence
		enough, owes bool
	}{
		{"off", policy.RekorV1, policy.FormatBoth, policy.TransparencyOff, "", both, true, false},
		{"off, one missing", policy.RekorV1, policy.FormatBoth, policy.TransparencyOff, "", both[:1], false, false},
		{"off, logged", policy.RekorV1, policy.FormatLegacy, policy.TransparencyOff, "", []artifact.Evidence{logged(artifact.Legacy)}, true, false},
		{"required", policy.RekorV1, policy.FormatLegacy, policy.TransparencyRequired, "", both[:1], false, false},
		{"required, logged", policy.RekorV1, policy.FormatLegacy, policy.TransparencyRequired, "", []artifact.Evidence{logged(artifact.Legacy)}, true, false},
		{"required, the format has no place", policy.RekorV2, policy.FormatBoth, policy.TransparencyRequired, "", []artifact.Evidence{plain(artifact.Legacy), logged(artifact.Bundle)}, true, false},
		{"deferred", policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, "", both[:1], true, true},
		{"deferred, logged", policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, "", []artifact.Evidence{logged(artifact.Legacy)}, true, false},
		{"deferred, bundle alone", policy.RekorV1, policy.FormatBundle, policy.TransparencyDeferred, "", both[1:], true, true},
		{"deferred, the bundle waits", policy.RekorV1, policy.FormatBoth, policy.TransparencyDeferred, "", both[:1], true, true},
		{"deferred, the bundle waits for Rekor v2", policy.RekorV2, policy.FormatBoth, policy.TransparencyDeferred, "", both[:1], true, true},
		{"deferred, a bundle stands in", policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, "", []artifact.Evidence{plain(artifact.Legacy), logged(artifact.Bundle)}, true, false},
		{"deferred, somebody else's bundle does not", policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, "", []artifact.Evidence{plain(artifact.Legacy), others}, true, true},
		{"deferred, nothing", policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, "", nil, false, true},
		{"timestamp", policy.RekorV1, policy.FormatLegacy, policy.TransparencyOff, policy.TimestampRequired, []artifact.Evidence{stamped}, true, false},
		{"timestamp missing", policy.RekorV1, policy.FormatLegacy, policy.TransparencyOff, policy.TimestampRequired, both[:1], false, false},
		{"optional timestamp missing", policy.RekorV1, policy.FormatLegacy, policy.TransparencyOff, policy.TimestampOptional, both[:1], true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _ := crashCase{tt.kind, tt.format, tt.transparency, tt.timestamp, false}.world(t)
			p := newParts(t, w)
			review, err := signing.NewReview(p.verifier, p.merger)
			if err != nil {
				t.Fatal(err)
			}
			enough, _, err := review.Sufficient(t.Context(), w.policies["demo"], tt.evidence)
			if enough != tt.enough || err != nil {
				t.Errorf("Sufficient() = %t, %v, want %t", enough, err, tt.enough)
			}
			owed, err := review.Owes(t.Context(), w.policies["demo"], tt.evidence)
			if len(owed) > 0 != tt.owes || err != nil {
				t.Errorf("Owes() = %v, %v, want some: %t", owed, err, tt.owes)
			}
			// The bundle that waits for its entry is not there to be seen.
			if tt.owes && tt.format != policy.FormatLegacy && !slices.Contains(owed, artifact.Bundle) {
				t.Errorf("Owes() = %v, want the bundle among them", owed)
			}
			if tt.kind == policy.RekorV2 && slices.Contains(owed, artifact.Legacy) {
				t.Errorf("Owes() = %v, but a legacy signature has no place for an entry of Rekor v2", owed)
			}
		})
	}
}

// TestAPolicyThatNobodyCouldVerify: its requests wait for the configuration, and sweeps cannot tell.
func TestAPolicyThatNobodyCouldVerify(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"no such log":          func(w *world) { w.change(func(p *policy.Policy) { p.Terms.Log = "nobody" }) },
		"a log that has ended": func(w *world) { w.logs.logs["rekor"].inactive = true },
		"legacy with Rekor v2": func(w *world) {
			w.logs.logs["rekor"].kind = policy.RekorV2
			w.change(func(p *policy.Policy) { p.Terms.Format = policy.FormatLegacy })
		},
		"no authority": func(w *world) {
			w.change(func(p *policy.Policy) { p.Terms.Timestamp = policy.TimestampRequired })
		},
	} {
		for _, transparency := range []policy.Transparency{policy.TransparencyRequired, policy.TransparencyDeferred} {
			t.Run(fmt.Sprintf("%s, %s", name, transparency), func(t *testing.T) {
				w, ref := logWorld(t, policy.FormatBoth, transparency, policy.RekorV1)
				change(w)
				s, _ := newService(t, w)
				if d := w.attempt(t, s, ref, 1); d.ended != "retry" {
					t.Fatalf("the delivery ended %q, want retry", d.ended)
				}
				e := w.events(artifact.Failed, ref)
				if len(e) != 1 || e[0].Reason != string(fault.Unverifiable) || len(w.carriers("demo/app")) > 0 {
					t.Errorf("failed events %+v with %+v in the registry, want one that says %s, and nothing", e, w.carriers("demo/app"), fault.Unverifiable)
				}
				p := newParts(t, w)
				review, err := signing.NewReview(p.verifier, p.merger)
				if err != nil {
					t.Fatal(err)
				}
				_, _, _, verifyErr := review.Verify(t.Context(), w.policies["demo"], w.listed(t, ref))
				_, _, sufficientErr := review.Sufficient(t.Context(), w.policies["demo"], nil)
				_, owesErr := review.Owes(t.Context(), w.policies["demo"], nil)
				for call, err := range map[string]error{"Verify": verifyErr, "Sufficient": sufficientErr, "Owes": owesErr} {
					if err == nil || fault.Of(err).Reason != fault.Unverifiable {
						t.Errorf("%s: %v, want %s", call, err, fault.Unverifiable)
					}
				}
				w.change(func(p *policy.Policy) { p.Mode = policy.ModeObserve })
				if d := w.attempt(t, s, ref, 2); d.ended != "done" {
					t.Errorf("where it is only observed, the delivery ended %q, want done", d.ended)
				}
			})
		}
	}
}

// TestALogThatIsAwayForDays: whoever requires it waits, and is signed when it is back.
func TestALogThatIsAwayForDays(t *testing.T) {
	for _, reason := range []fault.Reason{fault.LogUnavailable, fault.DependencyDown, fault.ProofInvalid} {
		w, ref := logWorld(t, policy.FormatBoth, policy.TransparencyRequired, policy.RekorV1)
		s, v := newService(t, w)
		w.fail, w.failWith = failing("log"), fault.New(fault.Transient, reason, errInjected)
		d := &delivery{w: w, request: w.waiting[ref], attempts: 500, firstSeen: time.Now().Add(-100 * time.Hour)}
		if s.Handle(t.Context(), d); d.ended != "retry" || len(w.dead) > 0 {
			t.Fatalf("%s: the delivery ended %q, want retry", reason, d.ended)
		}
		w.fail = nil
		w.attempt(t, s, ref, 501)
		wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, policy.TransparencyRequired, policy.RekorV1))
		wantState(t, w, ref, ledger.Signed)
	}
}

// TestLogsForTheVerifierToo: a signer that can make entries which its verifier does not know would sign for ever.
func TestLogsForTheVerifierToo(t *testing.T) {
	w, _ := logWorld(t, policy.FormatBoth, policy.TransparencyRequired, policy.RekorV1)
	w.addAuthority()
	p := newParts(t, w)
	for name, change := range map[string]func(c *signing.Config){
		"logs":       func(c *signing.Config) { c.Logs = nil },
		"timestamps": func(c *signing.Config) { c.Timestamps = nil },
	} {
		cfg := signing.Config{
			Registry: w, Keys: p.keys, Legacy: p.legacy, Bundles: p.bundles, Verifier: p.verifier, Merger: p.merger,
			Harbor: w, Queue: w, Policies: w, Logs: w.logs, Timestamps: w.stamps,
		}
		if _, err := signing.New(cfg); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if _, err := signing.New(cfg); err == nil {
			t.Errorf("without %s: New() gave no error", name)
		}
	}
}

// TestAttemptsThatWereNone: what was held back for days because a log was down has failed once, and is not given up.
func TestAttemptsThatWereNone(t *testing.T) {
	w, ref := logWorld(t, policy.FormatLegacy, policy.TransparencyRequired, policy.RekorV1)
	s, _ := newService(t, w)
	w.fail = failing("put manifest")
	d := &delivery{w: w, request: w.waiting[ref], attempts: 500, held: 499, firstSeen: time.Now().Add(-100 * time.Hour)}
	if s.Handle(t.Context(), d); d.ended != "retry" || d.delay > time.Second {
		t.Errorf("the delivery ended %q with delay %s, want retry within a second", d.ended, d.delay)
	}
}
