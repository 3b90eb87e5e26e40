package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/problem"
)

// eventsAnswer is the body of GET /api/v1/events and /api/v1/projects/{name}/events. NextCursor is empty on the last page.
type eventsAnswer struct {
	Items      []ledger.ProjectEvent `json:"items"`
	NextCursor string                `json:"next_cursor"`
}

func (a *API) getEvents(c *gin.Context) {
	a.answerEvents(c, ledger.EventQuery{Project: c.Param("name")}, func(context.Context) error { return nil })
}

// getAllEvents answers with the events of all projects, and with those that are about none: pauses of all, and what the
// configuration file declares.
func (a *API) getAllEvents(c *gin.Context) {
	a.answerEvents(c, ledger.EventQuery{}, func(ctx context.Context) error {
		return a.requireAll(ctx, c, ": the events of one project are at /api/v1/projects/{name}/events")
	})
}

// requireAll lets through who may read about all projects. instead is where others find something.
func (a *API) requireAll(ctx context.Context, c *gin.Context, instead string) error {
	err := a.cfg.Access.Require(ctx, caller(c), access.Read, "")
	if errors.Is(err, access.ErrNotFound) {
		return &refusal{problem.Document{
			Status: http.StatusForbidden, Detail: "this needs a system admin of Harbor, an auditor, or an API token for all projects" + instead,
		}}
	}
	return err
}

// answerEvents answers with a page of what q asks for, if allowed finds nothing against it.
func (a *API) answerEvents(c *gin.Context, q ledger.EventQuery, allowed func(context.Context) error) {
	ctx := c.Request.Context()
	err := parameters{"limit": pageSize(&q.Limit), "cursor": text(&q.Cursor)}.read(c.Request.URL.RawQuery)
	if err == nil {
		err = allowed(ctx)
	}
	var page ledger.EventPage
	if err == nil {
		page, err = a.cfg.Ledger.ProjectEvents(ctx, q)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, eventsAnswer{Items: page.Items, NextCursor: page.NextCursor})
}
