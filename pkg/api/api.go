// Package api is the REST door for auditors and pipelines: the signed-digest report and the public keys.
//
// It guarantees that the report is given only to who brings a configured token, that every answer is JSON (errors are
// problem documents, RFC 9457), that a wrong or unknown parameter is a 400 that names it, and that no request runs longer
// than the configured time. It never writes a token anywhere.
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

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
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

// Config is what the API needs. Signatures is required.
type Config struct {
	Signatures signatures
	// Registry is the host, with a port where it has one, that images are pulled from: what the report names.
	Registry string
	// TokensFile is the path of the file of tokens: see [New]. Without one nobody may read the report.
	TokensFile string
	// Keys are the public keys by which signatures are checked, in the order in which they are listed.
	Keys []Key
	// Timeout bounds one request; 0 means 10 s.
	Timeout time.Duration
	Logger  zerolog.Logger
}

// API serves the REST paths. It is safe for concurrent use.
type API struct {
	signatures signatures
	tokens     *tokens
	registry   string
	keys       []byte
	timeout    time.Duration
	logger     zerolog.Logger
}

// New checks the configuration and reads the tokens.
//
// The file of tokens has one line for each: a name, a colon, and the SHA-256 of the token in hexadecimal. Empty lines and
// lines that begin with # are passed over. Several lines may have the same name, so that a token can be replaced without a
// gap. A token must be random, with at least 128 bits, because it is hashed only once; so made, the file holds no secret
// and may be readable by others. [NewToken] makes one, and so does:
//
//	token=$(openssl rand -hex 32); echo "auditor:$(printf %s "$token" | sha256sum | cut -d' ' -f1)" >> tokens
//
// The file is read again when it has changed. What cannot be read then is logged, and the tokens before it stay valid.
func New(cfg Config) (*API, error) {
	if cfg.Signatures == nil {
		return nil, errors.New("making the API: Signatures is required")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("making the API: Timeout is negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	tokens, err := newTokens(cfg.TokensFile, cfg.Logger)
	if err != nil {
		return nil, err
	}
	keys, err := encodeKeys(cfg.Keys)
	if err != nil {
		return nil, err
	}
	return &API{signatures: cfg.Signatures, registry: cfg.Registry, tokens: tokens, keys: keys, timeout: cfg.Timeout, logger: cfg.Logger}, nil
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

// authenticate lets a request with a valid token through.
//
// SPEC: RFC 6750, section 3. A request without credentials gets the challenge alone, one with a wrong token error
// invalid_token.
func (a *API) authenticate(c *gin.Context) {
	token, found := bearer(c.Request.Header)
	if found && a.tokens.valid(token) {
		return
	}
	challenge, detail := `Bearer realm="harborseal"`, "this needs a token: Authorization: Bearer <token>"
	if found {
		challenge += `, error="invalid_token"`
		detail = "the token is not valid"
	}
	c.Header("WWW-Authenticate", challenge)
	problem.Abort(c, problem.Document{Status: http.StatusUnauthorized, Detail: detail})
}

// refuse answers with what an error of the report means. It is the only place that turns errors into statuses.
func (a *API) refuse(c *gin.Context, err error) {
	var query *ledger.InvalidQueryError
	switch {
	case errors.As(err, &query):
		problem.Abort(c, problem.Document{Status: http.StatusBadRequest, Detail: query.Error(), Field: query.Field})
	case errors.Is(err, context.Canceled):
		// The client has gone; whatever is written reaches nobody.
		problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: "the request was cancelled"})
	case errors.Is(err, context.DeadlineExceeded):
		a.unavailable(c, "the answer took longer than "+a.timeout.String()+": ask for less, with project, repository or since")
	case fault.Is(err, fault.Transient):
		a.logger.Warn().Err(err).Str("path", c.FullPath()).Msg("report cannot be read at the moment")
		a.unavailable(c, "the report cannot be read at the moment")
	default:
		a.logger.Error().Err(err).Str("path", c.FullPath()).Msg("report cannot be read")
		problem.Abort(c, problem.Document{Status: http.StatusInternalServerError, Detail: "the report cannot be read: the log of the receiver says why"})
	}
}

func (a *API) unavailable(c *gin.Context, detail string) {
	c.Header("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	problem.Abort(c, problem.Document{Status: http.StatusServiceUnavailable, Detail: detail})
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
