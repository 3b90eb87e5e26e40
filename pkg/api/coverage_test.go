package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

// counting answers with an empty report, and keeps what it was asked.
type counting struct{ asked []ledger.CoverageQuery }

func (c *counting) CoverageReport(_ context.Context, q ledger.CoverageQuery) (ledger.CoverageReport, error) {
	c.asked = append(c.asked, q)
	f, err := q.Filter(time.Now())
	if err != nil {
		return ledger.CoverageReport{}, err
	}
	return ledger.NewCoverageSums(f, f.Projects).Report(), nil
}

func TestCoverage(t *testing.T) {
	counts := &counting{}
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) { cfg.Coverage = counts })
	d.projects.listed = []string{"app", "demo", "hidden"}
	for _, tt := range []struct {
		name, query string
		who         http.Header
		status      int
		projects    string
		outages     bool
	}{
		{"a member", "", as("ann"), http.StatusOK, "app demo", false},
		{"a member, one project", "?project=app", as("ann"), http.StatusOK, "app", false},
		{"a member, one of others", "?project=hidden", as("ann"), http.StatusNotFound, "", false},
		{"a system admin", "?since=2026-01-01&until=2026-01-31", as("root"), http.StatusOK, "app demo hidden", true},
		{"nobody", "", nil, http.StatusUnauthorized, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			counts.asked = nil
			rec := d.get(t, "/api/v1/coverage"+tt.query, tt.who)
			if rec.Code != tt.status {
				t.Fatalf("GET = %d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if tt.status != http.StatusOK {
				if len(counts.asked) > 0 {
					t.Errorf("the ledger was asked %+v", counts.asked)
				}
				return
			}
			var answer struct {
				Projects []struct{ Project string }
				Outages  *[]ledger.Outage
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range answer.Projects {
				names = append(names, p.Project)
			}
			if got := strings.Join(names, " "); got != tt.projects || (answer.Outages != nil) != tt.outages {
				t.Errorf("got %q with outages %t, want %q and %t", got, answer.Outages != nil, tt.projects, tt.outages)
			}
		})
	}
	for _, query := range []string{"project=-", "since=2026-13-01", "until=yesterday", "since=2020-01-01&until=2026-01-01", "until=2026-01-01&since=2026-01-02", "limit=3"} {
		rec := d.get(t, "/api/v1/coverage?"+query, as("root"))
		if name, _, _ := strings.Cut(query, "="); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), `"field":"`+name+`"`) {
			t.Errorf("?%s = %d %s, want 400 that names it", query, rec.Code, rec.Body)
		}
	}
}

// Reading the coverage is recorded, and trying to is not.
func TestReadingTheCoverageIsRecorded(t *testing.T) {
	saw := &witness{}
	d := open(t, &ledgertest.Memory{}, func(cfg *api.Config) { cfg.Coverage, cfg.Reads = &counting{}, saw })
	d.get(t, "/api/v1/coverage?project=hidden", as("ann"))
	d.get(t, "/api/v1/coverage?nonsense=1", as("ann"))
	d.get(t, "/api/v1/coverage", nil)
	d.get(t, "/api/v1/coverage?project=app", as("ann"))
	if want := "read ann /api/v1/coverage"; saw.all() != want {
		t.Errorf("recorded %q, want %q", saw.all(), want)
	}
}
