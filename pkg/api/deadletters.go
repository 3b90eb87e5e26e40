package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/problem"
)

// letters is what is done with dead letters. It is safe for concurrent use. Everything is safe to repeat. The errors are those of
// package deadletter, or faults; one of kind Gone says that there is no such letter.
type letters interface {
	List(ctx context.Context, q deadletter.Query) (deadletter.Page, error)
	Show(ctx context.Context, id uint64) (artifact.DeadLetter, error)
	Replay(ctx context.Context, actor deadletter.Actor, id uint64) (deadletter.Replayed, error)
	Discard(ctx context.Context, actor deadletter.Actor, id uint64, why string) (artifact.DeadLetter, error)
}

// lettersAnswer is the body of GET /api/v1/dead-letters. NextCursor is empty on the last page.
type lettersAnswer struct {
	Items      []deadletter.View `json:"items"`
	NextCursor string            `json:"next_cursor"`
}

// letterAnswer is the body of the answers to POST …/replay and DELETE.
type letterAnswer struct {
	ID     uint64 `json:"id"`
	Status string `json:"status"`
	// Waiting says that a request for the manifest waited already when the letter was replayed.
	Waiting bool `json:"waiting"`
}

// discardRequest is the body of DELETE /api/v1/dead-letters/{id}.
type discardRequest struct {
	Why string `json:"why"`
}

func (a *API) getLetters(c *gin.Context) {
	ctx := c.Request.Context()
	var filter deadletter.Filter
	var cursor string
	q := deadletter.Query{}
	err := parameters{
		"project": text(&filter.Project), "reason": text(&filter.Reason), "limit": pageSize(&q.Limit), "cursor": text(&cursor),
	}.read(c.Request.URL.RawQuery)
	if err == nil && filter.Project != "" && artifact.ValidateProject(filter.Project) != nil {
		err = wrong("project", "want the name of a Harbor project")
	}
	if err == nil && cursor != "" {
		if q.After, err = strconv.ParseUint(cursor, 10, 64); err != nil || q.After == 0 {
			err = wrong("cursor", "want next_cursor of the page before")
		}
	}
	var page deadletter.Page
	if err == nil {
		q.Takes = a.readable(ctx, caller(c), filter)
		page, err = a.cfg.DeadLetters.List(ctx, q)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	answer := lettersAnswer{Items: make([]deadletter.View, 0, len(page.Letters))}
	for _, l := range page.Letters {
		answer.Items = append(answer.Items, deadletter.ViewOf(l))
	}
	if page.Next != 0 {
		answer.NextCursor = strconv.FormatUint(page.Next, 10)
	}
	a.answer(c, http.StatusOK, answer)
}

// readable takes the letters that the filter means and the caller may read. Each project is asked about once.
func (a *API) readable(ctx context.Context, who access.Caller, filter deadletter.Filter) func(artifact.DeadLetter) (bool, error) {
	may := map[string]bool{}
	return func(l artifact.DeadLetter) (bool, error) {
		if !filter.Takes(l) {
			return false, nil
		}
		project := l.Ref.Project()
		if known, asked := may[project]; asked {
			return known, nil
		}
		err := a.mayLetter(ctx, who, access.Read, l)
		if err != nil && !errors.Is(err, access.ErrNotFound) {
			return false, err
		}
		may[project] = err == nil
		return err == nil, nil
	}
}

// mayLetter says whether somebody may do something with a letter, as access.Require does: by the project. What cannot be read may
// hold anything, of any project: that is for those who may change all.
func (a *API) mayLetter(ctx context.Context, who access.Caller, action access.Action, l artifact.DeadLetter) error {
	if !l.Ref.IsZero() {
		return a.cfg.Access.Require(ctx, who, action, l.Ref.Project())
	}
	err := a.cfg.Access.Require(ctx, who, access.Change, "")
	if errors.Is(err, access.ErrForbidden) {
		return access.ErrNotFound // an auditor does not see it either
	}
	return err
}

// letter gives the letter that the path names, if the caller may do that with it. A letter that is not there and one of others get
// the same answer. What was allowed for it holds for what is done next: a letter never changes under its id.
func (a *API) letter(c *gin.Context, action access.Action) (artifact.DeadLetter, error) {
	id, err := strconv.ParseUint(c.Param("id"), 10, 64)
	if err != nil || id == 0 {
		return artifact.DeadLetter{}, wrong("id", "want the number of a dead letter")
	}
	l, err := a.cfg.DeadLetters.Show(c.Request.Context(), id)
	if err == nil {
		err = a.mayLetter(c.Request.Context(), caller(c), action, l)
	}
	return l, err
}

func (a *API) getLetter(c *gin.Context) {
	l, err := a.letter(c, access.Read)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, deadletter.ViewOf(l))
}

func (a *API) postReplay(c *gin.Context) {
	l, err := a.letter(c, access.Change)
	var replayed deadletter.Replayed
	if err == nil {
		replayed, err = a.cfg.DeadLetters.Replay(c.Request.Context(), a.letterActor(c), l.ID)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusAccepted, letterAnswer{ID: l.ID, Status: "queued", Waiting: replayed.Waiting})
}

func (a *API) deleteLetter(c *gin.Context) {
	l, err := a.letter(c, access.Change)
	var request discardRequest
	if err == nil {
		err = body(c, &request)
	}
	if err == nil {
		_, err = a.cfg.DeadLetters.Discard(c.Request.Context(), a.letterActor(c), l.ID, request.Why)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, letterAnswer{ID: l.ID, Status: "discarded"})
}

func (a *API) letterActor(c *gin.Context) deadletter.Actor {
	return deadletter.Actor{Name: caller(c).Actor(), From: c.ClientIP()}
}

// ofLetter answers for a letter that cannot be replayed.
func ofLetter(_ *gin.Context, err error) (problem.Document, bool) {
	var unreadable *deadletter.UnreadableError
	if !errors.As(err, &unreadable) {
		return problem.Document{}, false
	}
	return problem.Document{Status: http.StatusConflict, Detail: unreadable.Error()}, true
}
