package signing_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

const stampsTotal = "harborseal_signing_timestamps_total"

// stampWorld has one digest of a project with a timestamp authority.
func stampWorld(t *testing.T, timestamp policy.Timestamp) (*world, artifact.Ref) {
	t.Helper()
	w := newWorld(t)
	w.bundles = true
	w.enable(t, policy.FormatBoth, "demo")
	w.addAuthority()
	w.change(func(p *policy.Policy) { p.Terms.Timestamp = timestamp })
	return w, w.push(t, "demo/app", ociImage, image)
}

// TestTimestamps: a signature has one if the policy asks for it and the authority answers, and the ledger names its time.
func TestTimestamps(t *testing.T) {
	for _, tt := range []struct {
		timestamp policy.Timestamp
		away      bool
		ended     string
		stamped   bool
	}{
		{policy.TimestampOff, false, "done", false},
		{policy.TimestampOptional, false, "done", true},
		{policy.TimestampOptional, true, "done", false},
		{policy.TimestampRequired, false, "done", true},
		{policy.TimestampRequired, true, "retry", false},
	} {
		w, ref := stampWorld(t, tt.timestamp)
		metrics := prometheus.NewRegistry()
		s, _ := newService(t, w, func(c *signing.Config) { c.Registerer = metrics })
		if tt.away {
			w.fail, w.failWith = failing("timestamp"), fault.New(fault.Transient, fault.TimestampMissing, errInjected)
		}
		d := w.attempt(t, s, ref, 1)
		if d.ended != tt.ended {
			t.Fatalf("%+v: the delivery ended %q", tt, d.ended)
		}
		if tt.ended == "retry" {
			if e := w.events(artifact.Failed, ref); len(e) != 1 || e[0].Reason != string(fault.TimestampMissing) || len(w.carriers("demo/app")) > 0 {
				t.Errorf("%+v: failed events %+v with %+v in the registry, want one and nothing", tt, e, w.carriers("demo/app"))
			}
			continue
		}
		wantSigned(t, w, ref, artifact.Made)
		for _, c := range w.carriers("demo/app") {
			if c.stamped != tt.stamped {
				t.Errorf("%+v: %+v is in the registry", tt, c)
			}
		}
		for _, e := range w.events(artifact.Signed, ref)[0].Signatures {
			if e.TimestampedAt.IsZero() == tt.stamped {
				t.Errorf("%+v: the ledger says %+v", tt, e)
			}
		}
		if got := count(t, metrics, stampsTotal, "missed"); got != map[bool]int{true: 1}[tt.away] {
			t.Errorf("%+v: %d timestamps were counted as missed", tt, got)
		}
	}
}

// TestAnAuthorityThatHangs costs a signature that may do without a timestamp half a second, and one that may not no slot.
func TestAnAuthorityThatHangs(t *testing.T) {
	for _, timestamp := range []policy.Timestamp{policy.TimestampOptional, policy.TimestampRequired} {
		synctest.Test(t, func(t *testing.T) {
			w, ref := stampWorld(t, timestamp)
			// One that is optional is asked for once, in however many formats it is wanted.
			w.change(func(p *policy.Policy) {
				if timestamp == policy.TimestampRequired {
					p.Terms.Format = policy.FormatLegacy
				}
				p.Canary = true
			})
			w.stamps.hangs = true
			s, _ := newService(t, w)
			started := time.Now()
			d := w.attempt(t, s, ref, 1)
			took := time.Since(started)
			for _, kind := range []artifact.Kind{artifact.Signed, artifact.Failed} {
				for _, e := range w.events(kind, ref) {
					if !e.Canary {
						t.Errorf("the %s event does not say that the image is a canary's", e.Kind)
					}
				}
			}
			if timestamp == policy.TimestampOptional && (d.ended != "done" || took != 500*time.Millisecond) {
				t.Errorf("optional: the delivery ended %q after %s, want done after 500 ms", d.ended, took)
			}
			if timestamp == policy.TimestampRequired && (d.ended != "retry" || d.aside != 1) {
				t.Errorf("required: the delivery ended %q and was aside %d times, want retry and once", d.ended, d.aside)
			}
		})
	}
}

// TestATimestampThatIsRequiredNow is added to what is there.
func TestATimestampThatIsRequiredNow(t *testing.T) {
	w, ref := stampWorld(t, policy.TimestampOff)
	s, _ := newService(t, w)
	w.attempt(t, s, ref, 1)
	before := w.bytes()
	w.change(func(p *policy.Policy) { p.Terms.Timestamp = policy.TimestampRequired })
	w.receive(t, ref, "again")
	w.attempt(t, s, ref, 1)
	for format, all := range w.bytes() {
		if !slices.Equal(all, before[format]) {
			t.Errorf("%s: the signatures %v, want %v still", format, all, before[format])
		}
	}
	for _, e := range w.verify(t, newParts(t, w).verifier, ref).Signatures {
		if e.TimestampedAt.IsZero() {
			t.Errorf("%+v has no timestamp", e)
		}
	}
}

// TestWhatIsKeptIsNotBelieved: a kept signature with a timestamp or an entry that is none, or of something else, is not used.
func TestWhatIsKeptIsNotBelieved(t *testing.T) {
	for name, spoil := range map[string]func(s *artifact.Signature){
		"a timestamp of something else": func(s *artifact.Signature) { s.Timestamp = []byte("stamp 1 00") },
		"an entry of something else":    func(s *artifact.Signature) { s.Entry.Body = []byte(`{"apiVersion":"0.0.1","kind":"hashedrekord"}`) },
		"no entry":                      func(s *artifact.Signature) { s.Entry = nil },
		"another signature":             func(s *artifact.Signature) { s.Bytes = []byte("another") },
		"another key's":                 func(s *artifact.Signature) { s.KeyID = strings.Repeat("0", 64) },
	} {
		t.Run(name, func(t *testing.T) {
			w, ref := logWorld(t, policy.FormatBoth, policy.TransparencyRequired, policy.RekorV1)
			w.addAuthority()
			w.change(func(p *policy.Policy) { p.Terms.Timestamp = policy.TimestampRequired })
			s, _ := newService(t, w)
			w.fail = failing("push blob")
			w.attempt(t, s, ref, 1)
			spoiled := 0
			for name, kept := range w.kept {
				if kept.Entry != nil {
					entry := *kept.Entry
					kept.Entry = &entry
					spoil(&kept)
					w.kept[name] = kept
					spoiled++
				}
			}
			if w.fail = nil; spoiled == 0 {
				t.Fatal("nothing was kept")
			}
			s, v := newService(t, w)
			if d := w.attempt(t, s, ref, 2); d.ended != "done" {
				t.Fatalf("the delivery ended %q, want done", d.ended)
			}
			wantNothingOwed(t, w, v, ref, formatsOf(policy.FormatBoth, policy.TransparencyRequired, policy.RekorV1))
		})
	}
}
