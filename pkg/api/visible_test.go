package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// TestProjectsThatNobodyEnabled lists what is in Harbor, which a compliance admin has to find.
func TestProjectsThatNobodyEnabled(t *testing.T) {
	view := &ledgertest.Memory{}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(ledgertest.Event(artifact.Received, ledgertest.Ref("team-seen/app", 1)))...)
	d := open(t, view)
	d.projects.listed = []string{"app", "demo", "glob-a", "team-b"}
	put(t, d.book, book.Policy, "team-a", 1, document("team-a", policy.ModeSign))
	declared, err := policy.NewDeclared([]policy.Rule{{Projects: []string{"glob-*"}, Spec: policy.Spec{Mode: policy.ModeSign}, Backfill: policy.Backfill{Choice: "all"}}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, d.book, book.Declared, "", 2, declared)
	writeTokens(t, d.tokens, "all:"+hashed("hs_all")+"\nteam:"+hashed("hs_team")+":read:team-*|nothing|app\n")
	everything := "app demo glob-a team-a team-b team-seen"
	tests := []struct {
		name   string
		header http.Header
		away   bool
		want   string
	}{
		{"a system admin", as("root"), false, everything},
		{"a token for all", with("hs_all"), false, everything},
		{"a token for some, of which one is not there", with("hs_team"), false, "app team-a team-b team-seen"},
		{"a member", as("ann"), false, "app demo"},
		{"a member, while the receiver's account gets no answer", as("ann"), true, "app demo"},
		{"a member of nothing", as("out"), false, ""},
	}
	for _, tt := range tests {
		d.projects.listErr = nil
		if tt.away {
			d.projects.listErr = fault.Newf(fault.Transient, fault.Unreachable, "away")
		}
		rec := d.get(t, "/api/v1/projects", tt.header)
		var answer struct {
			Items []struct {
				Project string `json:"project"`
				Enabled bool   `json:"enabled"`
			} `json:"items"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", tt.name, rec.Code, rec.Body, err)
		}
		names := []string{}
		for _, row := range answer.Items {
			names = append(names, row.Project)
			if want := row.Project == "team-a" || row.Project == "glob-a"; row.Enabled != want {
				t.Errorf("%s: %s is enabled: %t, want %t", tt.name, row.Project, row.Enabled, want)
			}
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s sees %q, want %q", tt.name, got, tt.want)
		}
	}
	d.projects.listErr = fault.Newf(fault.Transient, fault.Unreachable, "away")
	if rec := d.get(t, "/api/v1/projects", as("root")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("a system admin, while Harbor was never there: %d %s, want 503 and no list with gaps", rec.Code, rec.Body)
	}
}

func TestAllEvents(t *testing.T) {
	view := &ledgertest.Memory{}
	event := func(id, project string, kind artifact.Kind) artifact.Event {
		return artifact.Event{ID: id, Kind: kind, Project: project, Time: noon, CorrelationID: "c", Actor: "ann"}
	}
	ledgertest.Apply(t, view, ledgertest.Begin(t, view), ledgertest.Entries(
		event("1", "", artifact.PolicyChanged), event("2", "demo", artifact.Drifted), event("3", "", artifact.Paused), event("4", "app", artifact.Repaired))...)
	d := open(t, view)
	writeTokens(t, d.tokens, "all:"+hashed("hs_all")+"\ndemo:"+hashed("hs_demo")+":change:demo\n")
	for who, header := range map[string]http.Header{"a system admin": as("root"), "a token for all": with("hs_all")} {
		var got []string
		for target := "/api/v1/events?limit=3"; target != ""; {
			rec := d.get(t, target, header)
			var page struct {
				Items      []ledger.ProjectEvent `json:"items"`
				NextCursor string                `json:"next_cursor"`
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || rec.Code != http.StatusOK {
				t.Fatalf("%s: GET %s = %d %s, %v", who, target, rec.Code, rec.Body, err)
			}
			for _, e := range page.Items {
				got = append(got, e.Project+" "+string(e.Kind))
			}
			if target = ""; page.NextCursor != "" {
				target = "/api/v1/events?limit=3&cursor=" + page.NextCursor
			}
		}
		if want := []string{"app repaired", " paused", "demo drifted", " policy_changed"}; !slices.Equal(got, want) {
			t.Errorf("%s sees %q, want %q", who, got, want)
		}
	}
	for who, header := range map[string]http.Header{"a project admin": as("ann"), "nobody's member": as("out"), "a robot": as("robot$ci"), "a token for one project": with("hs_demo")} {
		if rec := d.get(t, "/api/v1/events", header); rec.Code != http.StatusForbidden || strings.Contains(rec.Body.String(), `"items"`) {
			t.Errorf("%s: %d %s, want 403", who, rec.Code, rec.Body)
		}
	}
	if rec := d.get(t, "/api/v1/events", nil); rec.Code != http.StatusUnauthorized {
		t.Errorf("without credentials: %d, want 401", rec.Code)
	}
	if rec := d.get(t, "/api/v1/events?cursor=x", as("root")); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), `"field":"cursor"`) {
		t.Errorf("a wrong cursor: %d %s, want 400 that names it", rec.Code, rec.Body)
	}
}
