package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/ledger"
)

// eventsAnswer is the body of GET /api/v1/projects/{name}/events. NextCursor is empty on the last page.
type eventsAnswer struct {
	Items      []ledger.ProjectEvent `json:"items"`
	NextCursor string                `json:"next_cursor"`
}

func (a *API) getEvents(c *gin.Context) {
	q := ledger.EventQuery{Project: c.Param("name")}
	err := parameters{"limit": pageSize(&q.Limit), "cursor": text(&q.Cursor)}.read(c.Request.URL.RawQuery)
	var page ledger.EventPage
	if err == nil {
		page, err = a.cfg.Ledger.ProjectEvents(c.Request.Context(), q)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, eventsAnswer{Items: page.Items, NextCursor: page.NextCursor})
}
