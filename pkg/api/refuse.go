package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/problem"
)

// retryAfter is when to come again where nobody knows better.
const retryAfter = 5 * time.Second

// refusal is an error of this package: the answer that it stands for.
type refusal struct{ problem.Document }

// Error implements error.
func (r *refusal) Error() string { return r.Detail }

// refuse answers with what an error means. With the functions below it is the only place that turns errors into statuses.
func (a *API) refuse(c *gin.Context, err error) {
	for _, known := range []func(*gin.Context, error) (problem.Document, bool){ofAccess, ofRequest, ofChange, ofLetter} {
		if d, ok := known(c, err); ok {
			problem.Abort(c, d)
			return
		}
	}
	switch f := fault.Of(err); {
	case errors.Is(err, context.Canceled):
		// The client has gone; whatever is written reaches nobody.
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: "the request was cancelled"})
	case c.Request.Context().Err() != nil:
		wait(c, retryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: a.tooLong(c)})
	case f.Kind == fault.Gone:
		problem.Abort(c, problem.Document{Status: http.StatusNotFound, Detail: access.ErrNotFound.Error()})
	case f.Kind == fault.Transient:
		a.logger.Warn().Err(err).Str("path", c.FullPath()).Msg("request cannot be answered at the moment")
		wait(c, max(retryAfter, f.RetryAfter))
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: away(f.Reason) + ": try again later"})
	case f.Reason == fault.Denied || f.Reason == fault.Unauthorized || f.Reason == fault.Rejected:
		a.logger.Error().Err(err).Str("path", c.FullPath()).Msg("request refused by harbor")
		problem.Abort(c, problem.Document{Status: http.StatusBadGateway, Detail: "Harbor has refused what this takes: " + err.Error()})
	default:
		a.logger.Error().Err(err).Str("path", c.FullPath()).Msg("request cannot be answered")
		problem.Abort(c, problem.Document{Status: http.StatusInternalServerError, Detail: "this cannot be answered: the log of the receiver says why"})
	}
}

func ofAccess(c *gin.Context, err error) (problem.Document, bool) {
	var slow *access.ThrottledError
	switch {
	case errors.Is(err, access.ErrUnauthenticated):
		challenge(c, err)
		return problem.Document{Status: http.StatusUnauthorized, Detail: err.Error()}, true
	case errors.Is(err, access.ErrForbidden):
		return problem.Document{Status: http.StatusForbidden, Detail: err.Error()}, true
	case errors.Is(err, access.ErrNotFound):
		return problem.Document{Status: http.StatusNotFound, Detail: err.Error()}, true
	case errors.As(err, &slow):
		wait(c, slow.RetryAfter)
		return problem.Document{Status: http.StatusTooManyRequests, Detail: slow.Error()}, true
	default:
		return problem.Document{}, false
	}
}

// ofRequest answers for what the request itself has wrong.
func ofRequest(_ *gin.Context, err error) (problem.Document, bool) {
	var refused *refusal
	var query *ledger.InvalidQueryError
	switch wrong := fieldErrors(err); {
	case errors.As(err, &refused):
		return refused.Document, true
	case errors.As(err, &query):
		return problem.Document{Status: http.StatusBadRequest, Detail: query.Error(), Field: query.Field}, true
	case len(wrong) == 1:
		return problem.Document{Status: http.StatusBadRequest, Detail: wrong[0].Field + ": " + wrong[0].Detail, Field: wrong[0].Field}, true
	case len(wrong) > 1:
		return problem.Document{
			Status: http.StatusBadRequest, Detail: strconv.Itoa(len(wrong)) + " fields are wrong: errors has them all", Field: wrong[0].Field, Errors: wrong,
		}, true
	default:
		return problem.Document{}, false
	}
}

// ofChange answers for what stands in the way of a change.
func ofChange(c *gin.Context, err error) (problem.Document, bool) {
	var refused *enroll.RefusedError
	var often *enroll.TooOftenError
	switch {
	case errors.As(err, &often):
		wait(c, often.RetryAfter)
		return problem.Document{Status: http.StatusTooManyRequests, Detail: often.Error()}, true
	case errors.As(err, &refused) && refused.Unknown():
		wait(c, retryAfter)
		return problem.Document{
			Status: http.StatusServiceUnavailable, Checks: refused.Checks,
			Detail: "whether the project can be enabled cannot be told at the moment, nothing was changed: checks says what did not answer",
		}, true
	case errors.As(err, &refused):
		return problem.Document{
			Status: http.StatusUnprocessableEntity, Checks: refused.Checks,
			Detail: "the project cannot be enabled as things are, nothing was changed: checks says all that is wrong, and what to do",
		}, true
	case errors.Is(err, enroll.ErrPreconditionRequired):
		return problem.Document{Status: http.StatusPreconditionRequired, Detail: err.Error()}, true
	case errors.Is(err, policy.ErrConflict) && c.GetHeader(ifMatch) != "":
		return problem.Document{
			Status: http.StatusPreconditionFailed,
			Detail: "somebody else has changed the policy since it was read: read it again, and send its new ETag",
		}, true
	case errors.Is(err, policy.ErrConflict):
		return problem.Document{Status: http.StatusConflict, Detail: policy.ErrConflict.Error() + ": try again"}, true
	case errors.Is(err, enroll.ErrManagedByConfig), errors.Is(err, enroll.ErrNoPolicy), errors.Is(err, enroll.ErrNotEnabled):
		return problem.Document{Status: http.StatusConflict, Detail: err.Error()}, true
	case errors.Is(err, enroll.ErrNoHarbor):
		return problem.Document{Status: http.StatusNotImplemented, Detail: err.Error()}, true
	default:
		return problem.Document{}, false
	}
}

// fieldErrors are those in err, as problem documents have them.
func fieldErrors(err error) []problem.FieldError {
	var all []problem.FieldError
	for _, wrong := range policy.FieldErrors(err) {
		all = append(all, problem.FieldError{Field: wrong.Field, Detail: wrong.Want})
	}
	return all
}

func (a *API) tooLong(c *gin.Context) string {
	if c.Request.Method == http.MethodGet {
		return "the answer took longer than " + a.cfg.Timeout.String() + ": ask for less, with project, repository or since"
	}
	if c.FullPath() == "/api/v1/verify" {
		return "no signer has said within " + a.cfg.ChangeTimeout.String() + " what holds of the image: try again later"
	}
	return "the change took longer than " + a.cfg.ChangeTimeout.String() + ": read the project, and repeat the change if it is not there"
}

// away says what is missing when something cannot be answered at the moment.
func away(reason fault.Reason) string {
	switch reason {
	case fault.Unreachable, fault.Unavailable, fault.RateLimited, fault.BadAnswer, fault.Denied, fault.Unauthorized, fault.Rejected:
		return "Harbor does not answer as it should at the moment"
	case fault.QueueUnavailable, fault.QueueFull:
		return "the queue does not answer at the moment"
	default:
		return "this cannot be answered at the moment"
	}
}

// wait says when to come again, in whole seconds, rounded up: who came earlier would be refused once more.
func wait(c *gin.Context, d time.Duration) {
	c.Header("Retry-After", strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10))
}
