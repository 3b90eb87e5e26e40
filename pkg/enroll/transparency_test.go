package enroll_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

// signerWith answers as a real one does that has these means, and remembers what it was asked.
func (w *world) signerWith(t *testing.T, means policy.Means, asked *[]preflight.Request) {
	t.Helper()
	w.signer = func(r preflight.Request) ([]preflight.Check, error) {
		*asked = append(*asked, r)
		s := preflight.ForSigner{
			Harbor: signerHarbor{bundles: means.Bundles, rule: means.Locked}, Keys: oneKey{}, Account: "robot$signer",
			Means: func(terms policy.Terms) policy.Means {
				m := policy.Means{Timestamps: means.Timestamps, Keyless: terms.Key == "identity"}
				if terms.Log == "rekor" {
					m.Log = means.Log
				}
				return m
			},
		}
		return s.Check(t.Context(), r), nil
	}
}

// What nobody could verify is refused with all reasons, and nothing is changed.
func TestUnverifiablePoliciesAreRefused(t *testing.T) {
	spec := func(transparency policy.Transparency, log string, timestamp policy.Timestamp, format policy.Format, key string) policy.Spec {
		return policy.Spec{Mode: policy.ModeSign, Transparency: transparency, Log: log, Timestamp: timestamp, Format: format, Key: key}
	}
	const (
		required = policy.TransparencyRequired
		deferred = policy.TransparencyDeferred
	)
	v1 := policy.Means{Log: policy.RekorV1, Bundles: true}
	v2 := policy.Means{Log: policy.RekorV2, Bundles: true}
	oldV2 := policy.Means{Log: policy.RekorV2}
	lockedV1 := policy.Means{Log: policy.RekorV1, Locked: "rule 1"}
	for _, tt := range []struct {
		name  string
		means policy.Means
		spec  policy.Spec
		want  []string // words of each reason; none if it is taken
	}{
		{"off", v1, spec("", "", "", "", ""), nil},
		{"Rekor v1", v1, spec(required, "rekor", "", policy.FormatLegacy, ""), nil},
		{"legacy and Rekor v2", v2, spec(required, "rekor", "", policy.FormatLegacy, ""), []string{"no place for an entry of Rekor v2"}},
		{"an unknown log", v1, spec(deferred, "recor", "", "", ""), []string{"no signer has an active log by this name"}},
		{"deferred legacy under immutability, without bundles", lockedV1, spec(deferred, "rekor", "", "", ""), []string{"locked by rule 1"}},
		{"keyless without anything", v1, spec("", "", "", "", "identity"), []string{"a keyless signature cannot be verified without a time"}},
		{"keyless with Rekor v2", v2, spec(required, "rekor", "", "", "identity"), []string{"a keyless signature cannot be verified without a time"}},
		{"keyless with Rekor v1", v1, spec(required, "rekor", "", "", "identity"), nil},
		{"a timestamp without authority", v1, spec("", "", policy.TimestampRequired, "", ""), []string{"no signer has an active timestamp authority"}},
		{"everything at once", oldV2, spec(deferred, "rekor", policy.TimestampRequired, "", ""), []string{
			"no place for an entry of Rekor v2", "no signer has an active timestamp authority",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			var asked []preflight.Request
			w.signerWith(t, tt.means, &asked)
			s, _ := w.receiver(t)
			_, err := s.Put(t.Context(), alice, "demo", enroll.PutRequest{Spec: tt.spec, Backfill: "all"}, "")
			if want := preflight.RequestFor("demo", tt.spec); len(asked) != 1 || asked[0] != want {
				t.Errorf("asked %+v, want %+v", asked, want)
			}
			if len(tt.want) == 0 {
				if err != nil {
					t.Errorf("Put: %v", err)
				}
				return
			}
			refused, ok := errors.AsType[*enroll.RefusedError](err)
			if !ok || refused.Unknown() || len(refused.Checks) != len(tt.want) || len(w.steps) != 0 {
				t.Fatalf("Put = %v after %q, want a refusal with %q", err, w.steps, tt.want)
			}
			for i, c := range refused.Checks {
				if !strings.Contains(c.Detail, tt.want[i]) || c.Fix == "" {
					t.Errorf("check = %+v, want %q, and what to do", c, tt.want[i])
				}
			}
		})
	}
}

// Whoever changes what is asked of log and timestamp has to get it right, also while the project is signed already.
func TestChangedTermsAreRefused(t *testing.T) {
	logged := policy.Spec{Mode: policy.ModeSign, Transparency: policy.TransparencyRequired, Log: "rekor", Key: "identity"}
	stamped := policy.Spec{Mode: policy.ModeSign, Timestamp: policy.TimestampRequired, Key: "identity"}
	for _, tt := range []struct {
		name   string
		before policy.Spec
		change func(*policy.Spec)
	}{
		{"another log", logged, func(s *policy.Spec) { s.Log = "other" }},
		{"no log", logged, func(s *policy.Spec) { s.Transparency = policy.TransparencyOff }},
		{"a log, later", logged, func(s *policy.Spec) { s.Transparency = policy.TransparencyDeferred }},
		{"timestamps that may be missing", stamped, func(s *policy.Spec) { s.Timestamp = policy.TimestampOptional }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			var asked []preflight.Request
			w.signerWith(t, policy.Means{Log: policy.RekorV1, Bundles: true, Timestamps: true}, &asked)
			s, _ := w.receiver(t)
			etag := mustPut(t, s, enroll.PutRequest{Spec: tt.before, Backfill: "all"}, "").ETag
			next := tt.before
			tt.change(&next)
			_, err := s.Put(t.Context(), alice, "demo", enroll.PutRequest{Spec: next}, etag)
			if refused, ok := errors.AsType[*enroll.RefusedError](err); !ok || refused.Unknown() {
				t.Errorf("Put = %v, want a refusal", err)
			}
		})
	}
}

// Nobody asks the signers before a file counts: what they say of it is a problem of the project at the next check, not only in
// the thorough one of every hour.
func TestUnverifiableDeclaredPolicies(t *testing.T) {
	w := newWorld()
	var asked []preflight.Request
	w.signerWith(t, policy.Means{Log: policy.RekorV1, Bundles: true}, &asked)
	s, _ := w.receiver(t, func(c *enroll.Config) { c.ThoroughEvery = 1 << 40 })
	declare := func(spec policy.Spec) {
		t.Helper()
		spec.Mode = policy.ModeSign
		declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"demo"}, Spec: spec, Backfill: policy.Backfill{Choice: "all"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Declare(t.Context(), declared); err != nil {
			t.Fatal(err)
		}
	}
	check := func(questions int) {
		t.Helper()
		w.advance(10 * time.Minute)
		asked = nil
		mustCheck(t, s)
		if len(asked) != questions {
			t.Errorf("the signers were asked %d times, want %d", len(asked), questions)
		}
	}
	declare(policy.Spec{Transparency: policy.TransparencyRequired, Log: "rekor"})
	check(1)
	check(0)
	unverifiable := policy.Spec{Transparency: policy.TransparencyDeferred, Log: "gone", Timestamp: policy.TimestampRequired}
	declare(unverifiable)
	check(1)
	if want := preflight.RequestFor("demo", unverifiable); len(asked) == 1 && asked[0] != want {
		t.Errorf("asked %+v, want %+v", asked[0], want)
	}
	if found := w.reasons(t); !slices.Equal(found, []string{"unverifiable"}) {
		t.Fatalf("problems = %q, want that it cannot be verified", found)
	}
	for _, words := range []string{"no signer has an active log", "no signer has an active timestamp authority"} {
		if p := w.stateOf(t).Problems[0]; !strings.Contains(p.Detail, words) {
			t.Errorf("problem = %+v, want %q in its detail", p, words)
		}
	}
	check(1) // while it stands
	declare(policy.Spec{Transparency: policy.TransparencyRequired, Log: "rekor"})
	check(1)
	if found := w.reasons(t); len(found) != 0 {
		t.Errorf("problems = %q after the file was put right, want none", found)
	}
	check(0)

	// A signer that does not answer leaves the question open.
	w.signer = func(preflight.Request) ([]preflight.Check, error) { return nil, errBroken }
	declare(unverifiable)
	check(0)
	w.signerWith(t, policy.Means{Log: policy.RekorV1, Bundles: true}, &asked)
	check(1)
	if found := w.reasons(t); !slices.Equal(found, []string{"unverifiable"}) {
		t.Errorf("problems = %q once a signer answers, want that it cannot be verified", found)
	}
}

// Whoever is reported on does not decide what stands in the report.
func TestOnlySystemAdminsMakeCanaries(t *testing.T) {
	canary := func(mode policy.Mode, inFlight int) enroll.PutRequest {
		return enroll.PutRequest{Spec: policy.Spec{Mode: mode, Canary: true, MaxInFlight: inFlight}, Backfill: "all"}
	}
	w := newWorld()
	s, _ := w.receiver(t)
	refuse := func(who enroll.Actor, req enroll.PutRequest, etag, when string) {
		t.Helper()
		_, err := s.Put(t.Context(), who, "demo", req, etag)
		refused, ok := errors.AsType[*enroll.RefusedError](err)
		if !ok || len(refused.Checks) != 1 || refused.Checks[0].Name != preflight.Canary || refused.Checks[0].Fix == "" {
			t.Errorf("%s: Put = %v, want it refused because of the canary alone", when, err)
		}
	}
	token := enroll.Actor{Name: "token ci", From: "192.0.2.9"}
	root := enroll.Actor{Name: "root", From: "192.0.2.9", Authorization: "Basic root"}
	w.admins = []string{"Basic root"}
	refuse(alice, canary(policy.ModeSign, 0), "", "enabling")
	refuse(token, canary(policy.ModeSign, 0), "", "a token")
	etag := mustPut(t, s, all(), "").ETag
	refuse(alice, canary(policy.ModeSign, 0), etag, "a change")
	// The way round, over a policy that is off.
	etag = mustPut(t, s, canary(policy.ModeOff, 0), etag).ETag
	refuse(alice, canary(policy.ModeSign, 0), etag, "from off")

	v, err := s.Put(t.Context(), root, "demo", canary(policy.ModeSign, 0), etag)
	if err != nil {
		t.Fatalf("Put by a system admin: %v", err)
	}
	etag = mustPut(t, s, canary(policy.ModeSign, 3), v.ETag).ETag // another word on what is a canary already
	w.projects["demo"] = artifact.Project{ID: 8, Name: "demo"}
	refuse(alice, canary(policy.ModeSign, 3), etag, "another project under the name")
}

// signerHarbor is Harbor as the signer sees it, where all is well but for what is set.
type signerHarbor struct {
	bundles bool
	rule    string
}

func (signerHarbor) Project(_ context.Context, name string) (artifact.Project, error) {
	return artifact.Project{ID: 7, Name: name}, nil
}

func (signerHarbor) System(context.Context) (artifact.SystemInfo, error) {
	return artifact.SystemInfo{Version: "v2.15.2", Notifications: true}, nil
}

func (h signerHarbor) Bundles(context.Context) (can bool, version string, err error) {
	return h.bundles, "v2.15.2", nil
}

func (h signerHarbor) LockedBy(context.Context, string, string) (string, error) { return h.rule, nil }

func (signerHarbor) MissingRights(context.Context, string, []string) ([]string, error) {
	return nil, nil
}

func (signerHarbor) Quota(context.Context, int64) (artifact.Quota, error) {
	return artifact.Quota{Hard: -1}, nil
}
