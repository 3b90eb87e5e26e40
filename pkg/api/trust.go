package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/problem"
)

// trust gives what a verifier needs, as a JSON object that a signer has made: see [Config.Trust]. It makes one attempt and is safe
// for concurrent use. Its errors are faults: a transient one if no signer answers.
type trust func(ctx context.Context) ([]byte, error)

// getTrust hands on what a signer says: the signers have the logs, the authorities and the identities in their configuration, the
// receivers have not.
func (a *API) getTrust(c *gin.Context) {
	document, err := a.askTrust(c.Request.Context())
	switch {
	case err == nil:
		c.Header("Cache-Control", "no-store")
		write(c, http.StatusOK, document)
	case c.Request.Context().Err() != nil || fault.Of(err).Kind != fault.Transient:
		a.refuse(c, err)
	default:
		a.logger.Warn().Err(err).Msg("no signer says what verifiers are to trust")
		wait(c, max(retryAfter, fault.Of(err).RetryAfter))
		problem.Abort(c, problem.Document{
			Status: http.StatusServiceUnavailable, Detail: "no signer has answered, and only they know what verifiers are to trust: try again later, or ask an operator for the output of signer trust-root",
		})
	}
}

func (a *API) askTrust(ctx context.Context) ([]byte, error) {
	if a.cfg.Trust == nil {
		return nil, fault.Newf(fault.Transient, fault.QueueUnavailable, "this receiver asks no signer")
	}
	document, err := a.cfg.Trust(ctx)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(document, &object); err != nil || object == nil {
		return nil, fault.New(fault.Permanent, fault.BadAnswer, errors.New("a signer has answered the question for what to trust with something that is no JSON object"))
	}
	return document, nil
}
