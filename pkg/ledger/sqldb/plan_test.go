package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// planned are queries with what their rows are to be found by, in a population of 30,000 digests: "" is the order alone.
func planned() map[string]struct {
	q    ledger.Query
	want string
} {
	at := func(days int) time.Time { return ledgertest.Epoch().Add(time.Duration(days) * 24 * time.Hour) }
	type plan = struct {
		q    ledger.Query
		want string
	}
	return map[string]plan{
		"nothing":                    {ledger.Query{}, "walk"},
		"oldest first":               {ledger.Query{Sort: "first_seen"}, "walk"},
		"by push":                    {ledger.Query{Sort: "-pushed"}, "walk"},
		"by signature":               {ledger.Query{Sort: "-signed"}, "walk"},
		"project":                    {ledger.Query{Project: ledgertest.CommonProject}, "walk project"},
		"project by push":            {ledger.Query{Project: ledgertest.CommonProject, Sort: "-pushed"}, "walk project"},
		"project by signature":       {ledger.Query{Project: ledgertest.CommonProject, Sort: "signed"}, "walk project"},
		"state":                      {ledger.Query{State: ledger.Signed}, "walk state"},
		"project and state":          {ledger.Query{Project: ledgertest.CommonProject, State: ledger.Signed}, "walk project state"},
		"repository":                 {ledger.Query{Repository: "project-000/team-a/app-0"}, "walk repository"},
		"digest":                     {ledger.Query{Digest: "abcdef0"}, "gather digest"},
		"frequent key":               {ledger.Query{Key: ledgertest.CommonKey()}, "walk key"},
		"rare key":                   {ledger.Query{Key: ledgertest.RareKey()}, "walk key"},
		"rare key and project":       {ledger.Query{Key: ledgertest.RareKey(), Project: ledgertest.CommonProject}, "gather key"},
		"rare key by push":           {ledger.Query{Key: ledgertest.RareKey(), Sort: "-pushed"}, "gather key"},
		"only key":                   {ledger.Query{SignedOnlyBy: ledgertest.RareKey()}, "walk signed_only_by"},
		"rare tag":                   {ledger.Query{Tag: ledgertest.RareTag}, "gather tag"},
		"frequent tag, rare state":   {ledger.Query{Tag: ledgertest.CommonTag, State: ledger.Dead}, "gather state"},
		"rare pusher":                {ledger.Query{Pusher: ledgertest.RarePusher}, "walk pusher"},
		"rare pusher and state":      {ledger.Query{Pusher: ledgertest.RarePusher, State: ledger.Signed}, "gather pusher"},
		"frequent pusher":            {ledger.Query{Pusher: ledgertest.CommonPusher}, "walk pusher"},
		"rare source":                {ledger.Query{PusherSource: ledger.PusherNone}, "gather pusher_source"},
		"frequent source":            {ledger.Query{PusherSource: ledger.PusherWebhook}, "walk"},
		"both formats":               {ledger.Query{Format: ledger.Both}, "gather format"},
		"a format in a state":        {ledger.Query{Format: "legacy", State: ledger.Signed}, "walk format state"},
		"a key in a state without":   {ledger.Query{Key: ledgertest.CommonKey(), State: ledger.Skipped}, "gather evidence state"},
		"a format and a project":     {ledger.Query{Format: "bundle", Project: ledgertest.RareProject}, "gather project"},
		"a day":                      {ledger.Query{Since: at(100), Until: at(101)}, "walk first_seen"},
		"a day of pushes":            {ledger.Query{PushedSince: at(100), PushedUntil: at(101)}, "walk pushed"},
		"a day of signatures":        {ledger.Query{SignedSince: at(100), SignedUntil: at(101)}, "walk signed"},
		"a day of pushes, project":   {ledger.Query{PushedSince: at(100), PushedUntil: at(101), Project: ledgertest.CommonProject}, "walk project"},
		"pushes of a day and a tag":  {ledger.Query{PushedSince: at(100), PushedUntil: at(101), Tag: ledgertest.CommonTag}, "gather"},
		"log owed":                   {ledger.Query{LogOwed: true}, "walk log_owed"},
		"glob of a project":          {ledger.Query{Repository: "project-000/team-a/app-[01]"}, "walk repositories"},
		"glob of all projects":       {ledger.Query{Repository: "*/team-a/app-1"}, "gather repositories"},
		"a few projects":             {ledger.Query{Projects: []string{ledgertest.CommonProject, ledgertest.RareProject}}, "walk projects"},
		"a few projects by push":     {ledger.Query{Projects: []string{ledgertest.CommonProject, "project-001"}, Sort: "-pushed"}, "walk projects"},
		"a few projects and a state": {ledger.Query{Projects: []string{ledgertest.CommonProject, "project-001"}, State: ledger.Dead}, "gather state"},
	}
}

// TestNoFilterScansTheTable asks the databases how they find the rows. Each way is by an index whose rows are few or in the order of the
// answer.
func TestNoFilterScansTheTable(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		t.Helper()
		store := d.open(t)
		if _, err := ledgertest.Populate(t.Context(), store, 30_000); err != nil {
			t.Fatal(err)
		}
		for _, analyzed := range []bool{false, true} {
			if analyzed {
				exec(t, d.served(t), "ANALYZE")
			}
			for name, tt := range planned() {
				t.Run(fmt.Sprintf("%s, analyzed=%t", name, analyzed), func(t *testing.T) {
					told, err := store.Explain(t.Context(), tt.q)
					if err != nil {
						t.Fatal(err)
					}
					way := "gather"
					if told.Ordered {
						way = "walk"
					}
					if got := strings.Join(append([]string{way}, told.Leads...), " "); !strings.HasPrefix(got, tt.want) {
						t.Errorf("rows are found by %q, want %q", got, tt.want)
					}
					if wrong := scans(told.Search, told.Ordered && len(told.Leads) == 0); wrong != "" {
						t.Errorf("the search has %q in\n%s", wrong, strings.Join(told.Search, "\n"))
					}
					if wrong := sorts(told.Search); told.Ordered && wrong != "" {
						t.Errorf("the search sorts by %q in\n%s", wrong, strings.Join(told.Search, "\n"))
					}
				})
			}
		}
	})
}

// scans gives what reads a whole table. To walk along an index is allowed where nothing leads.
func scans(lines []string, walk bool) string {
	for _, line := range lines {
		switch {
		case strings.Contains(line, "Seq Scan"), strings.Contains(line, "Parallel"):
			return line
		case strings.HasPrefix(line, "SCAN units") && !strings.HasSuffix(line, " units_log_owed") && (!walk || !strings.Contains(line, "USING")):
			return line
		}
	}
	return ""
}

// sorts gives what sorts rows; that of the few that come from several branches is none.
func sorts(lines []string) string {
	if slices.ContainsFunc(lines, func(line string) bool {
		return strings.Contains(line, "Append") || strings.Contains(line, "COMPOUND") || strings.Contains(line, "CO-ROUTINE")
	}) {
		return ""
	}
	for _, line := range lines {
		if strings.Contains(line, "Sort") || strings.Contains(line, "TEMP B-TREE") {
			return line
		}
	}
	return ""
}
