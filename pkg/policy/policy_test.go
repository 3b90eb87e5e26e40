package policy_test

import (
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/policy"
)

func TestSet(t *testing.T) {
	set, err := policy.NewSet([]string{"demo", "team-*", "pci?", "2024", "a.b"})
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
		set, err := policy.NewSet(patterns)
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
	_, err := policy.NewSet([]string{"Demo", "good", "[", "a/b"})
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
