package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/problem"
	"github.com/harborseal/harborseal/pkg/status"
)

const (
	// statusPath is where the status is.
	statusPath = "/api/v1/status"
	// pendingRetry is when to ask again about what is pending, for who does not wait.
	pendingRetry = 2 * time.Second
)

// states says how images stand: see package status. It is safe for concurrent use. Its errors are a [*status.CrowdedError] or faults.
type states interface {
	Parse(image string) (status.Image, error)
	Ask(ctx context.Context, q status.Question) (status.Answer, error)
	// Find gives the manifest that an image names, if Harbor has it.
	Find(ctx context.Context, image status.Image) (ref artifact.Ref, found bool, err error)
}

// door is the one by which signing is asked for: see webhook.Door. Its errors are faults.
type door interface {
	Ask(ctx context.Context, ref artifact.Ref, tag, actor string) (outcome string, reason policy.Reason, correlationID string, err error)
}

// registerStatus adds the status, and what asks for a signature.
func (a *API) registerStatus(router gin.IRouter) {
	if a.cfg.Status == nil {
		return
	}
	// Who is known may keep the connection for as long as the question says.
	waiting := router.Group(statusPath, a.within(status.MaxWait+2*a.cfg.Timeout), a.authenticate)
	waiting.GET("", a.getStatus)
	if a.cfg.Door == nil {
		return
	}
	asking := router.Group("/api/v1/sign", a.sameOrigin, a.within(a.cfg.Timeout), a.authenticate, a.plain)
	asking.POST("", a.postSign)
}

func (a *API) getStatus(c *gin.Context) {
	q := status.Question{Caller: caller(c).Actor()}
	var retried bool
	err := parameters{"image": a.image(&q.Image), "wait": waitingTime(&q.Wait), "pending": retriedWhilePending(&retried)}.read(c.Request.URL.RawQuery)
	if err == nil && q.Image.Repository == "" {
		err = wrong("image", "is missing: want "+a.cfg.Registry+"/project/repository:tag, or …@sha256:…")
	}
	if err == nil {
		err = a.requirePull(c, q.Image.Repository)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	// A connection without deadlines, as in a test, needs none to be moved.
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(q.Wait + a.cfg.Timeout + answerWithin))
	answer, err := a.cfg.Status.Ask(c.Request.Context(), q)
	if err != nil {
		a.refuseStatus(c, err)
		return
	}
	switch answer.Outcome {
	case status.Signed:
		a.answer(c, http.StatusOK, answer)
	case status.Pending:
		wait(c, pendingRetry)
		if retried {
			problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: strings.TrimSpace("not signed yet: " + answer.Reason + " " + answer.Detail)})
			return
		}
		a.answer(c, http.StatusAccepted, answer)
	case status.Missing:
		problem.Abort(c, problem.Document{Status: http.StatusNotFound, Detail: "there is no such image in Harbor: " + answer.Image})
	default:
		a.answer(c, http.StatusConflict, answer)
	}
}

// retriedWhilePending reads what turns "not yet" into a status that programs take for a failure, and repeat: curl --fail takes a 202 for
// good, and curl --retry repeats a 503.
func retriedWhilePending(into *bool) func(string) error {
	return func(value string) error {
		if value != "503" {
			return wrong("pending", "want 503, or leave it out")
		}
		*into = true
		return nil
	}
}

// signRequest is the body of POST /api/v1/sign.
type signRequest struct {
	Image string `json:"image"`
}

// signAnswer is the answer to it. Status is "queued", "duplicate" (a request for the digest waits already) or "ignored", with the
// policy's reason.
type signAnswer struct {
	Image         string `json:"image"`
	Digest        string `json:"digest"`
	Status        string `json:"status"`
	Reason        string `json:"reason"`
	CorrelationID string `json:"correlation_id"`
}

// postSign asks for a digest by hand, by the same door as a push.
func (a *API) postSign(c *gin.Context) {
	var request signRequest
	if err := body(c, &request); err != nil {
		a.refuse(c, err)
		return
	}
	image, err := a.cfg.Status.Parse(request.Image)
	if err != nil {
		a.refuse(c, malformed("image", err.Error()))
		return
	}
	ctx := c.Request.Context()
	if err := a.requirePush(c, image.Repository); err != nil {
		a.refuse(c, err)
		return
	}
	ref, found, err := a.cfg.Status.Find(ctx, image)
	if err != nil {
		a.refuseStatus(c, err)
		return
	}
	if !found {
		problem.Abort(c, problem.Document{Status: http.StatusNotFound, Detail: "there is no such image in Harbor: " + image.At(a.cfg.Registry)})
		return
	}
	tag := image.Tag
	if image.Digest != "" {
		tag = "" // nobody has looked whether it names the digest
	}
	outcome, reason, correlationID, err := a.cfg.Door.Ask(ctx, ref, tag, caller(c).Actor())
	if err != nil {
		a.refuse(c, err)
		return
	}
	asked := status.Image{Repository: ref.Repository(), Digest: ref.Digest()}
	c.Header("Location", statusPath+"?image="+url.QueryEscape(asked.At(a.cfg.Registry)))
	a.answer(c, http.StatusAccepted, signAnswer{
		Image: image.At(a.cfg.Registry), Digest: ref.Digest(), Status: outcome, Reason: string(reason), CorrelationID: correlationID,
	})
}

// image reads a parameter that is one of this Harbor.
func (a *API) image(into *status.Image) func(string) error {
	return func(value string) error {
		image, err := a.cfg.Status.Parse(value)
		if err != nil {
			return wrong("image", err.Error())
		}
		*into = image
		return nil
	}
}

// waitingTime reads how long to wait.
func waitingTime(into *time.Duration) func(string) error {
	return func(value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d > status.MaxWait {
			return wrong("wait", "want a time from 0s to "+status.MaxWait.String()+", such as 60s")
		}
		*into = d
		return nil
	}
}

// requirePull lets through who may ask about a repository. All others get the same answer, whether it is there or not.
func (a *API) requirePull(c *gin.Context, repository string) error {
	may, err := a.cfg.Access.CanPull(c.Request.Context(), caller(c), repository)
	if err == nil && !may {
		err = access.ErrNotFound
	}
	return err
}

// requirePush lets through who may push to a repository. Who may only ask about it is told so.
func (a *API) requirePush(c *gin.Context, repository string) error {
	may, err := a.cfg.Access.CanPush(c.Request.Context(), caller(c), repository)
	if err != nil || may {
		return err
	}
	if err := a.requirePull(c, repository); err != nil {
		return err
	}
	return &refusal{problem.Document{
		Status: http.StatusForbidden, Detail: "not allowed: this needs the right to push to the repository, or an API token with the scope change",
	}}
}

// refuseStatus answers for what could not be found out: whatever the cause, nothing is said about the image.
func (a *API) refuseStatus(c *gin.Context, err error) {
	var crowded *status.CrowdedError
	f := fault.Of(err)
	switch {
	case errors.As(err, &crowded) && crowded.Caller:
		wait(c, crowded.RetryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: crowded.Error()})
	case errors.As(err, &crowded):
		wait(c, crowded.RetryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: crowded.Error()})
	case f.Kind == fault.Permanent && (f.Reason == fault.Denied || f.Reason == fault.Unauthorized || f.Reason == fault.Rejected):
		a.logger.Error().Err(err).Str("path", c.FullPath()).Msg("harbor refuses the receiver's account")
		wait(c, retryAfter)
		problem.Abort(c, problem.Document{
			Status: http.StatusServiceUnavailable,
			Detail: "Harbor refuses the receiver's own account, which needs artifact:read and repository:pull in the project: ask an operator",
		})
	default:
		a.refuse(c, err)
	}
}
