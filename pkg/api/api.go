// Package api is the REST door for auditors and pipelines: the signed-digest report and the public keys.
//
// It guarantees that everybody gets those rows of the report alone that package access lets them see, that every answer is
// JSON (errors are problem documents, RFC 9457), that a wrong or unknown parameter is a 400 that names it, and that no
// request runs longer than the configured time. It never writes credentials anywhere.
//
// It assumes TLS in front of it or beneath it, panics recovered by a middleware of the engine, and that the engine answers
// unknown paths and methods itself. It decides nothing about signatures: it hands on what the ledger's view says.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/problem"
)

const (
	defaultTimeout = 10 * time.Second
	retryAfter     = 5 * time.Second
)

// signatures is the report. It is safe for concurrent use, makes one attempt and ends when ctx does.
type signatures interface {
	// Signatures answers with one page. The error is a [*ledger.InvalidQueryError] or a fault.
	Signatures(ctx context.Context, q ledger.Query) (ledger.Page, error)
}

// Config is what the API needs. Signatures and Access are required.
type Config struct {
	Signatures signatures
	// Registry is the host, with a port where it has one, that images are pulled from: what the report names.
	Registry string
	// Projects are nil where nobody enables projects through the API, as in tests of the report alone.
	Projects *enroll.Service
	Policies *book.Book
	// Access says who may read what.
	Access guard
	// Keys are the public keys by which signatures are checked, in the order in which they are listed.
	Keys []Key
	// Timeout bounds one request; 0 means 10 s.
	Timeout time.Duration
	Logger  zerolog.Logger
}

// API serves the REST paths. It is safe for concurrent use.
type API struct {
	signatures signatures
	access     guard
	registry   string
	keys       []byte
	timeout    time.Duration
	logger     zerolog.Logger
}

// New checks the configuration.
func New(cfg Config) (*API, error) {
	if cfg.Signatures == nil {
		return nil, errors.New("making the API: Signatures is required")
	}
	if cfg.Access == nil {
		return nil, errors.New("making the API: Access is required")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("making the API: Timeout is negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	keys, err := encodeKeys(cfg.Keys)
	if err != nil {
		return nil, err
	}
	return &API{signatures: cfg.Signatures, registry: cfg.Registry, access: cfg.Access, keys: keys, timeout: cfg.Timeout, logger: cfg.Logger}, nil
}

// Register adds the paths below /api/v1.
func (a *API) Register(router gin.IRouter) {
	v1 := router.Group("/api/v1", a.bound)
	v1.GET("/keys", a.getKeys)
	v1.GET("/signatures", a.authenticate, a.getSignatures)
}

// bound ends the work for a request in time.
func (a *API) bound(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), a.timeout)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

// refuse answers with what an error of the report, or of package access, means. It is the only place that turns errors into statuses.
func (a *API) refuse(c *gin.Context, err error) {
	var query *ledger.InvalidQueryError
	var slow *access.ThrottledError
	switch {
	case errors.Is(err, access.ErrUnauthenticated):
		challenge(c, err)
		problem.Abort(c, problem.Document{Status: http.StatusUnauthorized, Detail: err.Error()})
	case errors.Is(err, access.ErrForbidden):
		problem.Abort(c, problem.Document{Status: http.StatusForbidden, Detail: err.Error()})
	case errors.Is(err, access.ErrNotFound):
		problem.Abort(c, problem.Document{Status: http.StatusNotFound, Detail: err.Error()})
	case errors.As(err, &slow):
		wait(c, slow.RetryAfter)
		problem.Abort(c, problem.Document{Status: http.StatusTooManyRequests, Detail: slow.Error()})
	case errors.As(err, &query):
		problem.Abort(c, problem.Document{Status: http.StatusBadRequest, Detail: query.Error(), Field: query.Field})
	case errors.Is(err, context.Canceled):
		// The client has gone; whatever is written reaches nobody.
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: "the request was cancelled"})
	case errors.Is(err, context.DeadlineExceeded):
		a.unavailable(c, "the answer took longer than "+a.timeout.String()+": ask for less, with project, repository or since")
	case fault.Is(err, fault.Transient):
		a.logger.Warn().Err(err).Str("path", c.FullPath()).Msg("request cannot be answered at the moment")
		a.unavailable(c, "this cannot be answered at the moment: try again later")
	default:
		a.logger.Error().Err(err).Str("path", c.FullPath()).Msg("request cannot be answered")
		problem.Abort(c, problem.Document{Status: http.StatusInternalServerError, Detail: "this cannot be answered: the log of the receiver says why"})
	}
}

func (a *API) unavailable(c *gin.Context, detail string) {
	wait(c, retryAfter)
	problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: detail})
}

// wait says when to come again, in whole seconds, rounded up: who came earlier would be refused once more.
func wait(c *gin.Context, d time.Duration) {
	c.Header("Retry-After", strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10))
}

// answer writes a value as JSON. Control characters and what HTML could take for its own are escaped.
func (a *API) answer(c *gin.Context, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		a.refuse(c, fault.New(fault.Permanent, fault.Malformed, err))
		return
	}
	c.Header("Cache-Control", "no-store")
	write(c, body)
}

func write(c *gin.Context, body []byte) {
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(http.StatusOK, "application/json; charset=utf-8", body)
}
