package api

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/policy"
)

const ifMatch = "If-Match"

// putProject enables a project, or changes its policy.
func (a *API) putProject(c *gin.Context) {
	var request enroll.PutRequest
	if err := body(c, &request); err != nil {
		a.refuse(c, err)
		return
	}
	tag := precondition(c)
	view, err := a.cfg.Projects.Put(c.Request.Context(), a.actor(c), c.Param("name"), request, tag)
	status := http.StatusOK
	if tag == "" {
		// Without the ETag of a policy there was none.
		status = http.StatusCreated
	}
	a.changed(c, status, view, err)
}

// deleteProject disables a project. What was its policy stays for the record.
func (a *API) deleteProject(c *gin.Context) {
	view, err := a.cfg.Projects.Delete(c.Request.Context(), a.actor(c), c.Param("name"), precondition(c))
	a.changed(c, http.StatusOK, view, err)
}

// blockRequest is the body of PUT …/blocks/{digest}.
type blockRequest struct {
	Reason string `json:"reason"`
}

func (a *API) putBlock(c *gin.Context) {
	var request blockRequest
	err := body(c, &request)
	var view enroll.View
	if err == nil {
		view, err = a.cfg.Projects.Block(c.Request.Context(), a.actor(c), c.Param("name"), c.Param("digest"), request.Reason)
	}
	a.changed(c, http.StatusOK, view, err)
}

func (a *API) deleteBlock(c *gin.Context) {
	digest := c.Param("digest")
	var view enroll.View
	var err error
	if artifact.ValidateDigest(digest) != nil {
		err = &policy.FieldError{Field: "digest", Want: "want sha256: and 64 lower-case hexadecimal digits"}
	} else {
		view, err = a.cfg.Projects.Unblock(c.Request.Context(), a.actor(c), c.Param("name"), digest)
	}
	a.changed(c, http.StatusOK, view, err)
}

func (a *API) postWebhookSecret(c *gin.Context) {
	view, err := a.cfg.Projects.Rotate(c.Request.Context(), a.actor(c), c.Param("name"))
	a.changed(c, http.StatusOK, view, err)
}

// sweepAnswer is the body of the answer to POST …/sweep. A sweep tells of its end in the project's events and coverage.
type sweepAnswer struct {
	Project string `json:"project"`
	Status  string `json:"status"`
}

func (a *API) postSweep(c *gin.Context) {
	name := c.Param("name")
	if err := a.cfg.Projects.Sweep(c.Request.Context(), a.actor(c), name); err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusAccepted, sweepAnswer{Project: name, Status: "queued"})
}

// changed answers a change with the project as it is now.
func (a *API) changed(c *gin.Context, status int, view enroll.View, err error) {
	if err != nil {
		a.refuse(c, err)
		return
	}
	answer, err := a.complete(c.Request.Context(), view)
	if err != nil {
		// What was asked for is done, and must not look as if it were not.
		a.logger.Warn().Err(err).Str("path", c.FullPath()).Msg("coverage is left out of the answer to a change")
		answer = projectAnswer{View: view}
	}
	a.answerProject(c, status, answer)
}

// precondition gives the ETags that the policy may have.
func precondition(c *gin.Context) string {
	return strings.Join(c.Request.Header.Values(ifMatch), ",")
}
