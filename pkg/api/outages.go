package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// outagesAnswer is the body of GET /api/v1/outages. NextCursor is empty on the last page.
type outagesAnswer struct {
	Items      []ledger.Outage `json:"items"`
	NextCursor string          `json:"next_cursor"`
}

// getOutages answers with what the programs could not reach. It is about all projects.
func (a *API) getOutages(c *gin.Context) {
	ctx := c.Request.Context()
	var q ledger.OutageQuery
	err := parameters{
		"dependency": text(&q.Dependency), "since": instant("since", &q.Since), "until": instant("until", &q.Until),
		"limit": pageSize(&q.Limit), "cursor": text(&q.Cursor),
	}.read(c.Request.URL.RawQuery)
	if err == nil {
		err = a.requireAll(ctx, c, "")
	}
	var page ledger.OutagePage
	if err == nil {
		page, err = a.cfg.Ledger.Outages(ctx, q)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, outagesAnswer{Items: page.Items, NextCursor: page.NextCursor})
}
