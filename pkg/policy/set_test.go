package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
)

func all() policy.Backfill { return policy.Backfill{Choice: "all"} }

func declared(t *testing.T, rules ...policy.Rule) *policy.Declared {
	t.Helper()
	d, err := policy.NewDeclared(rules)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func signed(projects ...string) policy.Rule {
	return policy.Rule{Projects: projects, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: all()}
}

func TestLookup(t *testing.T) {
	d := declared(t, signed("demo", "team-*", "pci?", "2024", "a.b"))
	for project, want := range map[string]bool{
		"demo": true, "team-a": true, "team-": true, "pci1": true, "2024": true, "a.b": true,
		"demo2": false, "xdemo": false, "pci": false, "pci12": false, "axb": false, "": false, "team": false,
	} {
		p, found := d.Lookup(project)
		if found != want || p.Enabled() != want {
			t.Errorf("Lookup(%q) = %+v, %t, want found %t", project, p, found, want)
		}
		if found && (p.Revision == "" || p.Manager != policy.ByConfig || p.Project != project) {
			t.Errorf("Lookup(%q) = %+v, want revision, manager and name", project, p)
		}
	}
}

func TestTheFirstRuleCounts(t *testing.T) {
	off := signed("team-x")
	off.Mode = policy.ModeOff
	d := declared(t, off, signed("team-*"))
	if p, found := d.Lookup("team-x"); !found || p.Enabled() {
		t.Errorf("got %+v, %t, want the first rule, which says off", p, found)
	}
	if names := d.Names(); len(names) != 1 || names[0] != "team-x" || !d.HasGlobs() {
		t.Errorf("got names %v, globs %t", names, d.HasGlobs())
	}
}

func TestRevisionNamesTheContent(t *testing.T) {
	one, same, other := declared(t, signed("demo")), declared(t, signed("demo")), declared(t, signed("demo", "team"))
	if one.Revision() != same.Revision() || one.Revision() == other.Revision() {
		t.Errorf("revisions %s, %s and %s", one.Revision(), same.Revision(), other.Revision())
	}
	data, err := one.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := policy.DecodeDeclared(data)
	if err != nil || read.Revision() != one.Revision() {
		t.Errorf("read back: %v, revision %s, want %s", err, read.Revision(), one.Revision())
	}
}

func TestNewDeclaredReportsAll(t *testing.T) {
	_, err := policy.NewDeclared([]policy.Rule{
		{Projects: []string{"Demo", "good", "[", "a/b"}, Spec: policy.Spec{Mode: "maybe"}},
		{Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "none"}},
	})
	for _, want := range []string{
		"policies[0].projects[0]", "policies[0].projects[2]", "policies[0].projects[3]", "policies[0]: mode", "policies[0].backfill",
		"policies[1].projects", "policies[1].backfill",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "projects[1]") {
		t.Errorf("error %q names the good one", err)
	}
}

func TestBackfill(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("", 3600))
	for choice, want := range map[string]time.Time{
		"none": now.UTC(), "all": {}, "since:2026-01-31T00:00:00+01:00": time.Date(2026, 1, 30, 23, 0, 0, 0, time.UTC),
	} {
		got, err := policy.ParseBackfill(choice, now)
		if err != nil || got.From != want || got.Choice != choice {
			t.Errorf("%s: got %+v, %v, want from %s", choice, got, err, want)
		}
	}
	for _, choice := range []string{"", "ALL", "since:", "since:yesterday", "since:0001-01-01T00:00:00Z"} {
		if _, err := policy.ParseBackfill(choice, now); err == nil {
			t.Errorf("%q: got no error", choice)
		}
	}
}
