package signer_test

import (
	"testing"

	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// A project has the cap of its policy, else the signer's, also while the policies cannot be read.
func TestCapOfProjects(t *testing.T) {
	t.Parallel()
	cfg := &config.Signer{Sign: config.Sign{MaxInFlight: 8}}
	policies := book.New(policy.Terms{})
	if got := signer.InFlight(cfg, policies, "shop"); got != 8 {
		t.Errorf("before the policies are read the cap is %d, want 8", got)
	}
	rules := []policy.Rule{
		{Projects: []string{"shop"}, Spec: policy.Spec{Mode: policy.ModeSign, MaxInFlight: 3}, Backfill: policy.Backfill{Choice: "all"}},
		{Projects: []string{"team-*"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"}},
	}
	declared, err := policy.NewDeclared(rules)
	if err != nil {
		t.Fatal(err)
	}
	value, err := declared.Encode()
	if err != nil {
		t.Fatal(err)
	}
	policies.Apply(book.Entry{Kind: book.Declared, Value: value, Revision: 1})
	policies.Loaded()
	for project, want := range map[string]int{"shop": 3, "team-a": 8, "nobody": 8} {
		if got := signer.InFlight(cfg, policies, project); got != want {
			t.Errorf("%s: the cap is %d, want %d", project, got, want)
		}
	}
}
