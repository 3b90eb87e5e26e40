package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// coverages reports how far projects are signed. It is safe for concurrent use, and its errors are those of the view.
type coverages interface {
	CoverageReport(ctx context.Context, q ledger.CoverageQuery) (ledger.CoverageReport, error)
}

// coverageAnswer is the body of GET /api/v1/coverage.
type coverageAnswer struct {
	Registry    string    `json:"registry"`
	GeneratedAt time.Time `json:"generated_at"` // UTC
	ledger.CoverageReport
	// Outages are those of the period, newest first, at most [ledger.MaxLimit]; null for who may not see them, because they are about
	// all projects.
	Outages []ledger.Outage `json:"outages"`
}

func (a *API) getCoverage(c *gin.Context) {
	ctx := c.Request.Context()
	var q ledger.CoverageQuery
	err := parameters{
		"project": text(&q.Project), "since": day("since", &q.Since), "until": day("until", &q.Until),
	}.read(c.Request.URL.RawQuery)
	if err == nil {
		err = a.narrowCoverage(ctx, c, &q)
	}
	answer := coverageAnswer{Registry: a.cfg.Registry, GeneratedAt: time.Now().UTC()}
	if err == nil {
		answer.CoverageReport, err = a.cfg.Coverage.CoverageReport(ctx, q)
	}
	if err == nil && a.requireAll(ctx, c, "") == nil {
		answer.Outages, err = a.outagesOf(ctx, answer.CoverageReport)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, answer)
}

// narrowCoverage restricts a question to what the caller may see. A project of others gets the answer of one that is not there.
func (a *API) narrowCoverage(ctx context.Context, c *gin.Context, q *ledger.CoverageQuery) error {
	if _, err := q.Filter(time.Now()); err != nil {
		return err
	}
	who := caller(c)
	if q.Project != "" {
		return a.cfg.Access.Require(ctx, who, access.Read, q.Project)
	}
	names, err := a.visible(ctx, c)
	q.Projects = names
	return err
}

// outagesOf gives the outages of a report's period.
func (a *API) outagesOf(ctx context.Context, r ledger.CoverageReport) ([]ledger.Outage, error) {
	since, err := time.Parse(time.DateOnly, r.Since)
	if err != nil {
		return nil, err
	}
	until, err := time.Parse(time.DateOnly, r.Until)
	if err != nil {
		return nil, err
	}
	page, err := a.cfg.Ledger.Outages(ctx, ledger.OutageQuery{Since: since, Until: until.AddDate(0, 0, 1), Limit: ledger.MaxLimit})
	return page.Items, err
}

// day reads a day of UTC.
func day(name string, into *time.Time) func(string) error {
	return func(value string) error {
		t, err := time.Parse(time.DateOnly, value)
		if err != nil || t.Year() < 2000 || t.Year() > 9998 {
			return wrong(name, "want a day such as 2026-01-31")
		}
		*into = t
		return nil
	}
}
