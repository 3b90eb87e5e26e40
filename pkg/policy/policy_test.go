package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func ref(t *testing.T, repository string) artifact.Ref {
	t.Helper()
	r, err := artifact.NewRef(repository, digest)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	sign := policy.Policy{Mode: policy.ModeSign}
	with := func(change func(*policy.Policy)) policy.Policy {
		p := sign
		change(&p)
		return p
	}
	tagged := with(func(p *policy.Policy) {
		p.Tags = policy.Globs{Include: []string{"v*", "latest"}, Exclude: []string{"*-dev"}}
	})
	tests := []struct {
		name    string
		policy  policy.Policy
		subject policy.Subject
		want    policy.Reason // empty: it is signed
	}{
		{"image", sign, policy.Subject{}, ""},
		{"accessory", sign, policy.Subject{Accessory: true}, policy.IsAccessory},
		{"nobody enabled it", policy.Policy{}, policy.Subject{}, policy.NotEnabled},
		{"off", policy.Policy{Mode: policy.ModeOff}, policy.Subject{}, policy.NotEnabled},
		{"off comes first", policy.Policy{SuspendedFor: 7}, policy.Subject{Accessory: true}, policy.NotEnabled},
		{"another project under the name", with(func(p *policy.Policy) { p.SuspendedFor = 7 }), policy.Subject{Accessory: true}, policy.Suspended},

		{"blocked", with(func(p *policy.Policy) { p.Blocks = []policy.Block{{Digest: digest}} }), policy.Subject{Signed: true}, policy.Blocked},
		{"another is blocked", with(func(p *policy.Policy) { p.Blocks = []policy.Block{{Digest: "sha256:0"}} }), policy.Subject{}, ""},
		{"exempt by repository", with(func(p *policy.Policy) {
			p.Exemptions = []policy.Exemption{{Repository: "team/*", Expires: now.Add(time.Second)}}
		}), policy.Subject{}, policy.Exempt},
		{"exempt by digest", with(func(p *policy.Policy) {
			p.Exemptions = []policy.Exemption{{Digest: digest, Expires: now.Add(time.Second)}}
		}), policy.Subject{}, policy.Exempt},
		{"exempt by both, one is another", with(func(p *policy.Policy) {
			p.Exemptions = []policy.Exemption{{Repository: "other", Digest: digest, Expires: now.Add(time.Second)}}
		}), policy.Subject{}, ""},
		{"the exemption has expired", with(func(p *policy.Policy) { p.Exemptions = []policy.Exemption{{Repository: "**", Expires: now}} }), policy.Subject{}, ""},

		{"repository included", with(func(p *policy.Policy) { p.Repositories.Include = []string{"team/**"} }), policy.Subject{}, ""},
		{"a star stays within one part", with(func(p *policy.Policy) { p.Repositories.Include = []string{"*"} }), policy.Subject{}, policy.OutOfScope},
		{"repository excluded", with(func(p *policy.Policy) { p.Repositories.Exclude = []string{"team/{app,web}"} }), policy.Subject{Signed: true}, policy.OutOfScope},

		{"one tag matches", tagged, policy.Subject{Tags: []string{"x", "v1"}}, ""},
		{"no tag matches", tagged, policy.Subject{Tags: []string{"x"}}, policy.TagOutOfScope},
		{"one tag is excluded", tagged, policy.Subject{Tags: []string{"v1", "v1-dev"}}, policy.TagExcluded},
		{"signed before, tags moved", tagged, policy.Subject{Tags: []string{"x"}, Signed: true}, ""},
		{"child of an index in scope", tagged, policy.Subject{Child: true}, ""},
		{"no tag", tagged, policy.Subject{}, ""},
		{"no tag, excluded", with(func(p *policy.Policy) { p.Untagged = policy.UntaggedExclude }), policy.Subject{}, policy.NoTag},
		{"a tag where untagged are excluded", with(func(p *policy.Policy) { p.Untagged = policy.UntaggedExclude }), policy.Subject{Tags: []string{"x"}}, ""},

		{"pushed before the backfill", with(func(p *policy.Policy) { p.From = now }), policy.Subject{PushedAt: now.Add(-time.Second)}, policy.NotBackfilled},
		{"pushed just then", with(func(p *policy.Policy) { p.From = now }), policy.Subject{PushedAt: now}, ""},
		{"pushed now, whenever Harbor first got it", with(func(p *policy.Policy) { p.From = now }), policy.Subject{}, ""},
		{"signed before the backfill", with(func(p *policy.Policy) { p.From = now }), policy.Subject{PushedAt: now.Add(-time.Second), Signed: true}, ""},

		{"observe", policy.Policy{Mode: policy.ModeObserve}, policy.Subject{}, policy.Observed},
		{"observe says what is out of scope", policy.Policy{Mode: policy.ModeObserve, Untagged: policy.UntaggedExclude}, policy.Subject{}, policy.NoTag},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.subject.Ref, tt.subject.Now = ref(t, "demo/team/app"), now
			got := policy.Decide(tt.policy, tt.subject)
			if got.Reason != tt.want || got.Sign != (tt.want == "") {
				t.Errorf("Decide = %+v, want reason %q", got, tt.want)
			}
		})
	}
}

func TestDecisionsNameWhoAndWhy(t *testing.T) {
	now := time.Now()
	p := policy.Policy{Mode: policy.ModeSign, Blocks: []policy.Block{{Digest: digest, By: "jane", Reason: "CVE-1"}}}
	if got := policy.Decide(p, policy.Subject{Ref: ref(t, "demo/app"), Now: now}).Detail; got != "blocked by jane: CVE-1" {
		t.Errorf("a block says %q", got)
	}
	p = policy.Policy{Mode: policy.ModeSign, Exemptions: []policy.Exemption{{Repository: "app", Approver: "joe", Reason: "old", Expires: now.Add(time.Hour)}}}
	if got := policy.Decide(p, policy.Subject{Ref: ref(t, "demo/app"), Now: now}).Detail; !strings.HasPrefix(got, "exempted by joe until ") || !strings.HasSuffix(got, ": old") {
		t.Errorf("an exemption says %q", got)
	}
}

func TestNeedsTags(t *testing.T) {
	for name, tt := range map[string]struct {
		policy policy.Policy
		want   bool
	}{
		"nothing said":       {policy.Policy{}, false},
		"untagged included":  {policy.Policy{Untagged: policy.UntaggedInclude}, false},
		"untagged excluded":  {policy.Policy{Untagged: policy.UntaggedExclude}, true},
		"tags are included":  {policy.Policy{Tags: policy.Globs{Include: []string{"v*"}}}, true},
		"tags are excluded":  {policy.Policy{Tags: policy.Globs{Exclude: []string{"v*"}}}, true},
		"repositories alone": {policy.Policy{Repositories: policy.Globs{Include: []string{"v*"}}}, false},
	} {
		if got := tt.policy.NeedsTags(); got != tt.want {
			t.Errorf("%s: NeedsTags = %t", name, got)
		}
	}
}

func TestFormats(t *testing.T) {
	legacy, bundle, both := "legacy", "bundle", "legacy bundle"
	for _, tt := range []struct {
		format       policy.Format
		old, current string // before Harbor 2.15, and since; empty for ErrNeedsBundles
	}{
		{"", legacy, both},
		{policy.FormatAuto, legacy, both},
		{policy.FormatLegacy, legacy, legacy},
		{policy.FormatBundle, "", bundle},
		{policy.FormatBoth, "", both},
	} {
		for bundles, want := range map[bool]string{false: tt.old, true: tt.current} {
			got, err := tt.format.Formats(bundles)
			var names []string
			for _, f := range got {
				names = append(names, string(f))
			}
			if strings.Join(names, " ") != want || (want == "") == (err == nil) {
				t.Errorf("%q.Formats(%t) = %v, %v, want %q", tt.format, bundles, got, err, want)
			}
		}
	}
}
