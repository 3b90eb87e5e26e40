package signing_test

import (
	"slices"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

// logWorld has one digest of a project with a log and a timestamp authority, and its push.
func logWorld(t *testing.T, format policy.Format, transparency policy.Transparency, kind policy.LogType) (*world, artifact.Ref) {
	t.Helper()
	w := newWorld(t)
	w.bundles = true
	w.enable(t, format, "demo")
	w.addLog("rekor", kind)
	w.change(func(p *policy.Policy) { p.Terms.Transparency, p.Terms.Log = transparency, "rekor" })
	return w, w.push(t, "demo/app", ociImage, image)
}

// pay delivers the debt of ref once more.
func (w *world) pay(t *testing.T, s *signing.Service, ref artifact.Ref, attempts uint64) *delivery {
	t.Helper()
	request, found := w.debts[ref]
	if !found {
		t.Fatalf("no debt of %s waits", ref)
	}
	d := &delivery{w: w, request: request, attempts: attempts, firstSeen: time.Now()}
	s.Pay(t.Context(), d)
	return d
}

// wantNothingOwed checks the registry, the queue and the ledger, and what was at every moment: in each format one signature's
// bytes, each with its only entry, as far as the log's type and the format go together.
func wantNothingOwed(t *testing.T, w *world, v *signing.Verifier, ref artifact.Ref, wanted map[artifact.Format]bool) {
	t.Helper()
	w.fail, w.before = nil, nil
	for _, violation := range w.violations {
		t.Error(violation)
	}
	verdict := w.verify(t, v, ref)
	if !verdict.Signed() || len(verdict.Owed) > 0 {
		t.Errorf("signed = %t, owed %v, want signed and nothing owed: %+v", verdict.Signed(), verdict.Owed, verdict.Signatures)
	}
	if len(w.debts) > 0 {
		t.Errorf("the debts %v wait", w.debts)
	}
	bytes := map[artifact.Format][]string{}
	logged := map[artifact.Format]bool{}
	for _, c := range w.carriers("demo/app") {
		if !slices.Contains(bytes[c.format], c.bytes) {
			bytes[c.format] = append(bytes[c.format], c.bytes)
		}
		logged[c.format] = logged[c.format] || c.logged
	}
	entries := 0
	for format, withEntry := range wanted {
		if len(bytes[format]) != 1 || logged[format] != withEntry {
			t.Errorf("%s: the signatures %q, logged %t, want one, logged %t", format, bytes[format], logged[format], withEntry)
		}
		if withEntry {
			entries++
		}
	}
	if len(bytes) != len(wanted) {
		t.Errorf("signatures in %d formats, want %d", len(bytes), len(wanted))
	}
	if w.logs != nil && len(w.logs.logs["rekor"].entries) != entries {
		t.Errorf("the log has %d entries, want %d", len(w.logs.logs["rekor"].entries), entries)
	}
	wantPaid(t, w, ref)
}

// wantPaid checks that behind each debt in the ledger there is its payment.
func wantPaid(t *testing.T, w *world, ref artifact.Ref) {
	t.Helper()
	paid := uint64(0)
	for i, e := range w.ledger {
		if e.Kind == artifact.LogPaid && e.Ref == ref {
			paid = uint64(i) + 1
		}
	}
	for _, e := range w.events(artifact.Signed, ref) {
		if len(e.LogOwed) > 0 && (e.AsOf == 0 || e.AsOf >= paid) {
			t.Errorf("the ledger says that %v is owed as of %d, and that debts are paid as of %d", e.LogOwed, e.AsOf, paid)
		}
	}
}

// formatsOf gives the formats of a policy, and whether each is logged in the end.
func formatsOf(format policy.Format, transparency policy.Transparency, kind policy.LogType) map[artifact.Format]bool {
	formats, err := format.Formats(true)
	if err != nil {
		panic(err)
	}
	wanted := map[artifact.Format]bool{}
	for _, f := range formats {
		wanted[f] = transparency != policy.TransparencyOff && kind.Carries(f)
	}
	return wanted
}

// TestRequired: nothing is put before its entry is there, and waiting for it takes no slot.
func TestRequired(t *testing.T) {
	for _, kind := range []policy.LogType{policy.RekorV1, policy.RekorV2} {
		for _, format := range []policy.Format{policy.FormatLegacy, policy.FormatBundle, policy.FormatBoth} {
			if kind == policy.RekorV2 && format == policy.FormatLegacy {
				continue // no policy may say that
			}
			t.Run(string(kind)+" "+string(format), func(t *testing.T) {
				w, ref := logWorld(t, format, policy.TransparencyRequired, kind)
				s, v := newService(t, w)
				w.fail = failing("log")
				if d := w.attempt(t, s, ref, 1); d.ended != "retry" || len(w.carriers("demo/app")) > 0 {
					t.Fatalf("without the log the delivery ended %q with %+v in the registry, want retry and nothing", d.ended, w.carriers("demo/app"))
				}
				w.fail = nil
				d := w.attempt(t, s, ref, 2)
				if d.ended != "done" || d.aside == 0 {
					t.Fatalf("with it the delivery ended %q and was aside %d times, want done, and at least once", d.ended, d.aside)
				}
				wantNothingOwed(t, w, v, ref, formatsOf(format, policy.TransparencyRequired, kind))
				e := w.events(artifact.Signed, ref)
				if len(e) != 1 || len(e[0].LogOwed) > 0 || e[0].Signatures[len(e[0].Signatures)-1].Log != "rekor" {
					t.Errorf("signed events %+v, want one that names the log and owes nothing", e)
				}
			})
		}
	}
}

// TestDeferred: what may be attached now is, the rest is owed, and paid.
func TestDeferred(t *testing.T) {
	for _, tt := range []struct {
		kind   policy.LogType
		format policy.Format
		now    []artifact.Format
		owed   []artifact.Format
	}{
		{policy.RekorV1, policy.FormatLegacy, []artifact.Format{artifact.Legacy}, []artifact.Format{artifact.Legacy}},
		{policy.RekorV1, policy.FormatBundle, []artifact.Format{artifact.Bundle}, []artifact.Format{artifact.Bundle}},
		{policy.RekorV1, policy.FormatBoth, []artifact.Format{artifact.Legacy}, []artifact.Format{artifact.Legacy, artifact.Bundle}},
		{policy.RekorV2, policy.FormatBundle, []artifact.Format{artifact.Bundle}, []artifact.Format{artifact.Bundle}},
		{policy.RekorV2, policy.FormatBoth, []artifact.Format{artifact.Legacy}, []artifact.Format{artifact.Bundle}},
	} {
		t.Run(string(tt.kind)+" "+string(tt.format), func(t *testing.T) {
			w, ref := logWorld(t, tt.format, policy.TransparencyDeferred, tt.kind)
			s, v := newService(t, w)
			w.fail = failing("log")
			if d := w.attempt(t, s, ref, 1); d.ended != "done" {
				t.Fatalf("the delivery ended %q, want done without a log", d.ended)
			}
			var now []artifact.Format
			for _, c := range w.carriers("demo/app") {
				now = append(now, c.format)
			}
			e := w.events(artifact.Signed, ref)
			if !slices.Equal(now, tt.now) || len(e) != 1 || !slices.Equal(e[0].LogOwed, tt.owed) || e[0].AsOf == 0 {
				t.Fatalf("there are %v and the ledger says %+v, want %v, owed %v", now, e, tt.now, tt.owed)
			}
			if d := w.pay(t, s, ref, 1); d.ended != "retry" || len(w.debts) != 1 {
				t.Fatalf("without a log the debt ended %q, want retry", d.ended)
			}
			w.fail = nil
			if d := w.pay(t, s, ref, 2); d.ended != "done" || d.aside == 0 {
				t.Fatalf("the debt ended %q and was aside %d times, want done, and at least once", d.ended, d.aside)
			}
			wantNothingOwed(t, w, v, ref, formatsOf(tt.format, policy.TransparencyDeferred, tt.kind))
			paid := w.events(artifact.LogPaid, ref)
			if len(paid) != 1 || paid[0].Reason != "" || !slices.Equal(paid[0].Signatures, w.verify(t, v, ref).Signatures) {
				t.Errorf("log_debt_paid events %+v, want one with the signatures that are there", paid)
			}
		})
	}
}

// TestALogThatLies: an entry that does not verify is as good as none, and nothing is attached with it.
func TestALogThatLies(t *testing.T) {
	for _, transparency := range []policy.Transparency{policy.TransparencyRequired, policy.TransparencyDeferred} {
		w, ref := logWorld(t, policy.FormatBoth, transparency, policy.RekorV1)
		w.logs.logs["rekor"].lies = true
		s, v := newService(t, w)
		w.once(t, s, ref, 1)
		for _, c := range w.carriers("demo/app") {
			if c.logged {
				t.Errorf("%s: %+v, want nothing logged", transparency, c)
			}
		}
		if failed := w.events(artifact.Failed, ref); transparency == policy.TransparencyRequired && (len(failed) != 1 || failed[0].Reason != string(fault.ProofInvalid)) {
			t.Errorf("failed events %+v, want one that says %s", failed, fault.ProofInvalid)
		}
		w.logs.logs["rekor"].lies = false
		w.once(t, s, ref, 2)
		wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, transparency, policy.RekorV1))
	}
}
