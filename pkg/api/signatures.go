package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// signaturesAnswer is the body of GET /api/v1/signatures. Registry is the host that the repositories are pulled from.
// NextCursor is empty on the last page.
type signaturesAnswer struct {
	Registry   string       `json:"registry"`
	Items      []ledger.Row `json:"items"`
	NextCursor string       `json:"next_cursor"`
}

func (a *API) getSignatures(c *gin.Context) {
	var q ledger.Query
	err := parameters{
		"project": text(&q.Project), "repository": text(&q.Repository), "digest": text(&q.Digest), "state": text(&q.State),
		"signed_only_by": text(&q.SignedOnlyBy), "log_owed": only("log_owed", &q.LogOwed), "since": instant("since", &q.Since), "until": instant("until", &q.Until),
		"limit": pageSize(&q.Limit), "cursor": text(&q.Cursor),
	}.read(c.Request.URL.RawQuery)
	if err == nil {
		err = a.narrow(c, &q)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	page, err := a.cfg.Ledger.Signatures(c.Request.Context(), q)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, signaturesAnswer{Registry: a.cfg.Registry, Items: page.Items, NextCursor: page.NextCursor})
}

// narrow restricts a query to what the caller may see. A robot may see a repository that it may pull, and has to name it.
func (a *API) narrow(c *gin.Context, q *ledger.Query) error {
	ctx, who := c.Request.Context(), caller(c)
	if who.Kind == access.Robot {
		f, err := q.Filter()
		switch {
		case err != nil:
			return err
		case f.Repository == "":
			return wrong("repository", "a robot account may ask about a repository that it may pull: want its name")
		}
		may, err := a.cfg.Access.CanPull(ctx, who, f.Repository)
		if err == nil && !may {
			err = access.ErrNotFound
		}
		return err
	}
	projects, all, err := a.cfg.Access.Visible(ctx, who)
	if err == nil && !all {
		q.Projects = projects
	}
	return err
}
