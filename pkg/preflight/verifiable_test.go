package preflight_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// means is an installation with one log of each type and two keys, of which "id" is an identity.
func means(timestamps bool) func(policy.Terms) policy.Means {
	return func(t policy.Terms) policy.Means {
		return policy.Means{
			Log:        map[string]policy.LogType{"r1": policy.RekorV1, "r2": policy.RekorV2}[t.Log],
			Timestamps: timestamps, Keyless: t.Key == "id",
		}
	}
}

func TestVerifiable(t *testing.T) {
	old := func(f *fake) { f.bundles = false }
	lockedOld := func(f *fake) { f.bundles, f.rule = false, "rule 1: all" }
	broken := func(method string, err error) func(*fake) {
		return func(f *fake) { f.bundles, f.errs[method] = false, err }
	}
	const (
		off      = policy.TransparencyOff
		required = policy.TransparencyRequired
		deferred = policy.TransparencyDeferred
	)
	down := preflight.Down{Log: "dns", Timestamps: "refused", Key: "tls"}
	for _, tt := range []struct {
		name       string
		change     func(*fake)
		request    preflight.Request
		timestamps bool
		down       preflight.Down
		want       string
		text       string // in what is wrong
	}{
		{"nothing is asked for", nil, preflight.Request{}, false, preflight.Down{}, "", ""},
		{"nothing is asked for, and nothing answers", nil, preflight.Request{}, true, preflight.Down{Log: "dns", Timestamps: "dns"}, "", ""},
		{"required, Rekor v1", nil, preflight.Request{Transparency: required, Log: "r1"}, false, preflight.Down{}, "", ""},
		{"deferred, Rekor v2", nil, preflight.Request{Transparency: deferred, Log: "r2"}, false, preflight.Down{}, "", ""},
		{"no log of this name", nil, preflight.Request{Transparency: required, Log: "r3"}, false, preflight.Down{}, "transparency:failed", "no signer has an active log by this name"},
		{"no log of this name, and none is asked for", nil, preflight.Request{Transparency: off, Log: "r3"}, false, preflight.Down{}, "transparency:warning", "by the name of r3"},
		{"no log at all", nil, preflight.Request{Transparency: deferred}, false, preflight.Down{}, "transparency:failed", "no signer has an active log by this name"},
		{"legacy, Rekor v2", nil, preflight.Request{Transparency: deferred, Log: "r2", Format: policy.FormatLegacy}, false, preflight.Down{}, "transparency:failed", "no place for an entry of Rekor v2"},
		{"auto, Rekor v2, an old Harbor", old, preflight.Request{Transparency: required, Log: "r2"}, false, preflight.Down{}, "transparency:failed", "no place for an entry of Rekor v2"},
		{"bundle, Rekor v2, an old Harbor", old, preflight.Request{Transparency: required, Log: "r2", Format: policy.FormatBundle}, false, preflight.Down{}, "format:failed", ""},
		{"deferred, locked tags, an old Harbor", lockedOld, preflight.Request{Transparency: deferred, Log: "r1"}, false, preflight.Down{}, "transparency:failed immutability:warning", "locked by rule 1: all"},
		{"required, locked tags, an old Harbor", lockedOld, preflight.Request{Transparency: required, Log: "r1"}, false, preflight.Down{}, "immutability:warning", ""},
		{"deferred, locked tags, bundles", func(f *fake) { f.rule = "rule 1" }, preflight.Request{Transparency: deferred, Log: "r1", Format: policy.FormatLegacy}, false, preflight.Down{}, "", ""},
		{"deferred, rules not to be seen", broken("LockedBy", denied()), preflight.Request{Transparency: deferred, Log: "r1"}, false, preflight.Down{}, "transparency:skipped? immutability:skipped?", ""},
		{"deferred, Harbor does not say what it takes", broken("Bundles", errors.New("502")), preflight.Request{Transparency: deferred, Log: "r1"}, false, preflight.Down{}, "format:failed? transparency:failed?", "502"},
		{"Rekor v2, Harbor does not say what it takes", broken("Bundles", errors.New("502")), preflight.Request{Transparency: required, Log: "r2"}, false, preflight.Down{}, "format:failed? transparency:failed?", "502"},
		{"off, Harbor does not say what it takes", broken("Bundles", errors.New("502")), preflight.Request{}, false, preflight.Down{}, "format:failed?", ""},
		{"wrong whatever Harbor says", broken("Bundles", errors.New("502")), preflight.Request{Transparency: deferred, Log: "r3"}, false, preflight.Down{}, "format:failed? transparency:failed", "no signer has an active log by this name"},
		{"timestamps", nil, preflight.Request{Timestamp: policy.TimestampRequired}, true, preflight.Down{}, "", ""},
		{"no authority", nil, preflight.Request{Timestamp: policy.TimestampRequired}, false, preflight.Down{}, "timestamp:failed", "no signer has an active timestamp authority"},
		{"an identity alone", nil, preflight.Request{Key: "id"}, false, preflight.Down{}, "timestamp:failed", "cannot be verified without a time"},
		{"an identity, optional timestamps", nil, preflight.Request{Key: "id", Timestamp: policy.TimestampOptional}, true, preflight.Down{}, "timestamp:failed", "cannot be verified without a time"},
		{"an identity, Rekor v2", nil, preflight.Request{Key: "id", Transparency: required, Log: "r2"}, false, preflight.Down{}, "timestamp:failed", "cannot be verified without a time"},
		{"an identity, Rekor v1", nil, preflight.Request{Key: "id", Transparency: required, Log: "r1"}, false, preflight.Down{}, "", ""},
		{"an identity, timestamps", nil, preflight.Request{Key: "id", Timestamp: policy.TimestampRequired}, true, preflight.Down{}, "", ""},
		{"all reasons at once", old, preflight.Request{Transparency: required, Log: "r2", Timestamp: policy.TimestampRequired}, false, preflight.Down{}, "transparency:failed timestamp:failed", ""},
		{"required, and nothing answers", nil, preflight.Request{Transparency: required, Log: "r1", Timestamp: policy.TimestampRequired}, true, down, "key:warning transparency:warning timestamp:warning", "no image is signed until it does"},
		{"deferred, and nothing answers", nil, preflight.Request{Transparency: deferred, Log: "r1", Timestamp: policy.TimestampOptional}, true, preflight.Down{Log: "dns", Timestamps: "refused"}, "transparency:warning timestamp:warning", "owed until it does"},
		{"no signature without timestamps, and the log answers", nil, preflight.Request{Transparency: deferred, Log: "r1", Timestamp: policy.TimestampRequired}, true, preflight.Down{Timestamps: "refused"}, "timestamp:warning", "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			if tt.change != nil {
				tt.change(&f)
			}
			f.project.SignedOnly = true // so that nothing about the pull policy is skipped
			tt.request.Project = "demo"
			checks := preflight.ForSigner{
				Harbor: f, Keys: keys{"prod", "id"}, Defaults: policy.Terms{Key: "prod"}, Account: "robot$signer", Means: means(tt.timestamps),
				Down: func(policy.Terms) preflight.Down { return tt.down },
			}.Check(t.Context(), tt.request)
			if got := strings.Join(differing(checks), " "); got != tt.want {
				t.Errorf("checks = %q, want %q", got, tt.want)
			}
			checkTexts(t, checks)
			told := func(c preflight.Check) bool { return c.Status != preflight.OK && strings.Contains(c.Detail, tt.text) }
			if tt.text != "" && !slices.ContainsFunc(checks, told) {
				t.Errorf("checks = %+v, want %q in what is wrong", checks, tt.text)
			}
		})
	}
}

// What the policy leaves open is asked by the signer's own terms, and whoever names nothing has no logs.
func TestVerifiableByTheDefaultsOfTheSigner(t *testing.T) {
	check := func(s preflight.ForSigner, r preflight.Request) string {
		s.Harbor, s.Keys = good(), keys{"prod"}
		s.Defaults = policy.Terms{Key: "prod", Transparency: policy.TransparencyRequired, Log: "r2", Timestamp: policy.TimestampRequired}
		return strings.Join(differing(s.Check(t.Context(), r)), " ")
	}
	if got := check(preflight.ForSigner{Means: means(true)}, preflight.Request{}); got != "" {
		t.Errorf("defaults that can be met: got %q, want nothing wrong", got)
	}
	if got, want := check(preflight.ForSigner{Means: means(false)}, preflight.Request{Format: policy.FormatLegacy}), "transparency:failed timestamp:failed"; got != want {
		t.Errorf("defaults that a format excludes: got %q, want %q", got, want)
	}
	if got, want := check(preflight.ForSigner{}, preflight.Request{Transparency: policy.TransparencyOff}), "timestamp:failed"; got != want {
		t.Errorf("without means: got %q, want %q", got, want)
	}
}

// A signer that does not know of logs must not let a policy pass that asks for one.
func TestAskingAnOlderSigner(t *testing.T) {
	ok := preflight.Check{Name: preflight.Key, Subject: "prod", Status: preflight.OK}
	var asked preflight.Request
	older := loop(preflight.Handler(func(_ context.Context, r preflight.Request) []preflight.Check {
		asked = r
		return []preflight.Check{ok}
	}))
	for _, tt := range []struct {
		name string
		spec policy.Spec
		want string
	}{
		{"nothing is asked for", policy.Spec{}, ""},
		{"transparency", policy.Spec{Transparency: policy.TransparencyDeferred}, "transparency:failed?"},
		{"a log", policy.Spec{Log: "r1"}, "transparency:failed?"},
		{"a timestamp", policy.Spec{Timestamp: policy.TimestampOptional}, "timestamp:failed?"},
		{"all of it", policy.Spec{Transparency: policy.TransparencyOff, Log: "r", Timestamp: policy.TimestampOff}, "transparency:failed? timestamp:failed?"},
	} {
		checks, err := preflight.RequestFor("demo", tt.spec).Ask(t.Context(), older)
		want := preflight.Request{Project: "demo", Transparency: tt.spec.Transparency, Log: tt.spec.Log, Timestamp: tt.spec.Timestamp}
		if asked != want {
			t.Errorf("%s: asked %+v, want %+v", tt.name, asked, want)
		}
		if got := strings.Join(differing(checks), " "); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.name, got, err, tt.want)
		}
		checkTexts(t, checks)
	}
	nobody := loop(func(context.Context, []byte) ([]byte, error) {
		return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "nobody")
	})
	if _, err := preflight.RequestFor("demo", policy.Spec{Log: "r1"}).Ask(t.Context(), nobody); err == nil {
		t.Error("nobody answers: got no error")
	}
}
