package policy_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/policy"
)

func TestSet(t *testing.T) {
	set, err := policy.NewSet(policy.SetConfig{Projects: []string{"demo", "team-*", "pci?", "2024", "a.b"}})
	if err != nil {
		t.Fatal(err)
	}
	for project, want := range map[string]bool{
		"demo": true, "team-a": true, "team-": true, "pci1": true, "2024": true, "a.b": true,
		"demo2": false, "xdemo": false, "pci": false, "pci12": false, "axb": false, "": false, "team": false,
	} {
		got, err := set.Policy(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		if got.Enabled != want {
			t.Errorf("Policy(%q).Enabled = %t, want %t", project, got.Enabled, want)
		}
		if got.Revision == "" {
			t.Errorf("Policy(%q) has no revision", project)
		}
	}
}

func TestRevisionNamesTheContent(t *testing.T) {
	revision := func(patterns ...string) string {
		set, err := policy.NewSet(policy.SetConfig{Projects: patterns})
		if err != nil {
			t.Fatal(err)
		}
		return set.Lookup("x").Revision
	}
	if a, b := revision("demo"), revision("demo"); a != b {
		t.Errorf("the same projects have the revisions %s and %s", a, b)
	}
	if a, b := revision("demo"), revision("demo", "team"); a == b {
		t.Errorf("other projects have the same revision %s", a)
	}
}

func TestNewSetReportsAll(t *testing.T) {
	_, err := policy.NewSet(policy.SetConfig{Projects: []string{"Demo", "good", "[", "a/b"}})
	if err == nil {
		t.Fatal("NewSet accepts bad names")
	}
	for _, want := range []string{"projects[0]", "projects[2]", "projects[3]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "projects[1]") {
		t.Errorf("error %q names the good one", err)
	}
}

func TestDecide(t *testing.T) {
	enabled := policy.Policy{Enabled: true}
	tests := []struct {
		name    string
		policy  policy.Policy
		subject policy.Subject
		want    policy.Decision
	}{
		{"image", enabled, policy.Subject{}, policy.Decision{Sign: true}},
		{"accessory", enabled, policy.Subject{Accessory: true}, policy.Decision{Reason: policy.IsAccessory}},
		{"not enabled", policy.Policy{}, policy.Subject{}, policy.Decision{Reason: policy.NotEnabled}},
		{"not enabled comes first", policy.Policy{}, policy.Subject{Accessory: true}, policy.Decision{Reason: policy.NotEnabled}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := policy.Decide(tt.policy, tt.subject); got != tt.want {
				t.Errorf("Decide = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestTermsOfProjects(t *testing.T) {
	defaults := policy.Terms{Key: "common", Annotations: map[string]string{"a": "1"}}
	set, err := policy.NewSet(policy.SetConfig{
		Projects: []string{"*"}, Default: defaults,
		Rules: []policy.Rule{
			{Projects: []string{"pci-*", "cards"}, Terms: policy.Terms{Format: policy.FormatBoth, Key: "pci"}},
			{Projects: []string{"pci-web"}, Terms: policy.Terms{Format: policy.FormatLegacy}}, // never reached
			{Projects: []string{"lab"}, Terms: policy.Terms{Format: policy.FormatBundle, Annotations: map[string]string{}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for project, want := range map[string]policy.Terms{
		"shop":    {Format: policy.FormatAuto, Key: "common", Annotations: defaults.Annotations},
		"pci-web": {Format: policy.FormatBoth, Key: "pci", Annotations: defaults.Annotations},
		"cards":   {Format: policy.FormatBoth, Key: "pci", Annotations: defaults.Annotations},
		"lab":     {Format: policy.FormatBundle, Key: "common", Annotations: map[string]string{}},
	} {
		if got := set.Lookup(project).Terms; !reflect.DeepEqual(got, want) {
			t.Errorf("terms of %s are %+v, want %+v", project, got, want)
		}
	}
	if got := len(set.Terms()); got != 4 {
		t.Errorf("%d terms, want those of the default and of three rules", got)
	}
	if other, err := policy.NewSet(policy.SetConfig{Projects: []string{"*"}, Default: policy.Terms{Key: "common"}}); err != nil || other.Lookup("shop").Revision == set.Lookup("shop").Revision {
		t.Errorf("other terms have the same revision (%v)", err)
	}
	_, err = policy.NewSet(policy.SetConfig{Default: policy.Terms{Format: "best"}, Rules: []policy.Rule{{Projects: []string{"["}, Terms: policy.Terms{Format: "worst"}}}})
	for _, want := range []string{"best", "worst", "rules[0].projects[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
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
			if strings.Join(names, " ") != want || (want == "") != errors.Is(err, policy.ErrNeedsBundles) {
				t.Errorf("%q.Formats(%t) = %v, %v, want %q", tt.format, bundles, got, err, want)
			}
		}
	}
}
