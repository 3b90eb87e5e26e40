package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// signaturesAnswer is the body of GET /api/v1/signatures. Registry is the host that the repositories are pulled from.
// NextCursor is empty on the last page. Total is there on the first one.
type signaturesAnswer struct {
	Registry   string        `json:"registry"`
	Items      []ledger.Row  `json:"items"`
	NextCursor string        `json:"next_cursor"`
	Total      *ledger.Total `json:"total"`
}

func (a *API) getSignatures(c *gin.Context) {
	var q ledger.Query
	take := filters(&q)
	take["limit"], take["cursor"] = pageSize(&q.Limit), text(&q.Cursor)
	err := take.read(c.Request.URL.RawQuery)
	q.Total = q.Cursor == ""
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
	a.answer(c, http.StatusOK, signaturesAnswer{Registry: a.cfg.Registry, Items: page.Items, NextCursor: page.NextCursor, Total: page.Total})
}

// filters are the parameters that say which rows, and in which order.
func filters(q *ledger.Query) parameters {
	return parameters{
		"project": text(&q.Project), "repository": text(&q.Repository), "digest": text(&q.Digest), "tag": text(&q.Tag), "state": text(&q.State),
		"key": text(&q.Key), "format": text(&q.Format), "pusher": text(&q.Pusher), "pusher_source": text(&q.PusherSource),
		"signed_only_by": text(&q.SignedOnlyBy), "log_owed": only("log_owed", &q.LogOwed),
		"since": instant("since", &q.Since), "until": instant("until", &q.Until),
		"pushed_since": instant("pushed_since", &q.PushedSince), "pushed_until": instant("pushed_until", &q.PushedUntil),
		"signed_since": instant("signed_since", &q.SignedSince), "signed_until": instant("signed_until", &q.SignedUntil),
		"sort": text(&q.Sort),
	}
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
			return wrong("repository", "a robot account may ask about a repository that it may pull: want its name, and no glob")
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
