package signing_test

import (
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// TestNoLegacySignatureWithoutItsLoggedBundle: with Rekor v2 the bundle alone carries the entry that the policy requires. Where it
// cannot be put for good, the legacy signature, which carries none, is not put either.
func TestNoLegacySignatureWithoutItsLoggedBundle(t *testing.T) {
	for kind, want := range map[policy.LogType]int{policy.RekorV1: 1, policy.RekorV2: 0} {
		w, ref := logWorld(t, policy.FormatBoth, policy.TransparencyRequired, kind)
		refused := false
		w.failWith = fault.New(fault.Permanent, fault.Rejected, errInjected)
		w.fail = func(_ int, name string) mode {
			if name == "put manifest" && !refused { // that of the bundle
				refused = true
				return fails
			}
			return works
		}
		s, _ := newService(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != "buried" {
			t.Errorf("%s: the delivery ended %q, want buried", kind, d.ended)
		}
		all := w.carriers("demo/app")
		for _, c := range all {
			if !c.logged {
				t.Errorf("%s: %+v, want nothing without an entry", kind, c)
			}
		}
		if len(all) != want {
			t.Errorf("%s: %d signatures, want %d", kind, len(all), want)
		}
	}
}

// TestATimeOutsideTheCertificatesLife proves nothing: what nobody could verify is neither attached nor kept.
func TestATimeOutsideTheCertificatesLife(t *testing.T) {
	for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle} {
		for _, transparency := range []policy.Transparency{policy.TransparencyOff, policy.TransparencyRequired} {
			w, ref := crashCase{policy.RekorV1, format, transparency, policy.TimestampRequired, false}.world(t)
			w.stamps.count = -60 // the authority's clock is a minute behind that of the certificate
			identity := testIdentity{w, new([][]byte)}
			s, v := keylessParts(t, w, identity).service(t, w)
			d := &delivery{w: w, request: w.waiting[ref], attempts: 5000, firstSeen: w.clock.Add(-50 * time.Hour)}
			if s.Handle(t.Context(), d); d.ended != "retry" || len(w.carriers("demo/app")) > 0 || len(w.kept) > 0 {
				t.Errorf("%s, %s: the delivery ended %q with %+v in the registry and %d kept, want retry and nothing",
					format, transparency, d.ended, w.carriers("demo/app"), len(w.kept))
			}
			w.stamps.count = 0
			w.attempt(t, s, ref, 2)
			if verdict := w.verify(t, v, ref); !verdict.Signed() || len(w.carriers("demo/app")) != 1 {
				t.Errorf("%s, %s: %+v, want signed", format, transparency, verdict)
			}
		}
	}
}

// TestALateEntrySpoilsNoSignature: a log that answers behind the end of the certificate would make the signature that is there one
// that does not verify.
func TestALateEntrySpoilsNoSignature(t *testing.T) {
	w, ref := crashCase{policy.RekorV1, policy.FormatLegacy, policy.TransparencyDeferred, policy.TimestampRequired, false}.world(t)
	identity := testIdentity{w, new([][]byte)}
	s, v := keylessParts(t, w, identity).service(t, w)
	w.attempt(t, s, ref, 1)
	w.before = func(name string) {
		if name == "log" {
			w.before, w.clock = nil, w.clock.Add(time.Hour)
		}
	}
	if d := w.pay(t, s, ref, 1); d.ended != "retry" || !w.verify(t, v, ref).Signed() {
		t.Errorf("the debt ended %q, and the signature that was there: %+v, want retry and signed", d.ended, w.verify(t, v, ref))
	}
	w.pay(t, s, ref, 2)
	if verdict := w.verify(t, v, ref); !verdict.Signed() || len(verdict.Owed) > 0 {
		t.Errorf("%+v, want signed and nothing owed", verdict)
	}
	wantPaid(t, w, ref)
}

// TestAPolicyThatCannotBeVerifiedForDays: its requests wait until the configuration is put right.
func TestAPolicyThatCannotBeVerifiedForDays(t *testing.T) {
	w, ref := logWorld(t, policy.FormatLegacy, policy.TransparencyRequired, policy.RekorV1)
	w.logs.logs["rekor"].inactive = true
	s, v := newService(t, w)
	d := &delivery{w: w, request: w.waiting[ref], attempts: 5000, firstSeen: time.Now().Add(-50 * time.Hour)}
	if s.Handle(t.Context(), d); d.ended != "retry" {
		t.Errorf("the delivery ended %q, want retry: %+v", d.ended, w.events(artifact.Dead, ref))
	}
	w.logs.logs["rekor"].inactive = false
	w.attempt(t, s, ref, 5001)
	if verdict := w.verify(t, v, ref); !verdict.Signed() {
		t.Errorf("%+v, want signed", verdict)
	}
}

// TestATimestampThatIsOptionalSpoilsNothing: one of a wrong clock is as good as none.
func TestATimestampThatIsOptionalSpoilsNothing(t *testing.T) {
	for format, count := range map[policy.Format]int{policy.FormatLegacy: -60, policy.FormatBundle: 3600} {
		w, ref := crashCase{policy.RekorV1, format, policy.TransparencyRequired, policy.TimestampOptional, false}.world(t)
		w.stamps.count = count
		s, v := keylessParts(t, w, testIdentity{w, new([][]byte)}).service(t, w)
		if d := w.attempt(t, s, ref, 1); d.ended != "done" {
			t.Fatalf("%s: the delivery ended %q, want done", format, d.ended)
		}
		if e := w.verify(t, v, ref).Signatures; len(e) != 1 || e[0].Log == "" || !e[0].TimestampedAt.IsZero() {
			t.Errorf("%s: %+v, want one with an entry and no timestamp", format, e)
		}
	}
}
