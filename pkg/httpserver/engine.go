package httpserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/problem"
)

// requestIDHeader carries the id of a request in its answer.
const requestIDHeader = "X-Request-Id"

// requestIDKey is where the id stands in Gin's context.
const requestIDKey = "harborseal/request_id"

// NewEngine makes a Gin engine that gives every request an id, answers panics and unknown paths and methods with problem
// documents, and writes nothing but to logger. Addresses of clients are those of the connection, unless the connection comes
// from one of trustedProxies (addresses or CIDRs). Several engines may share one registerer, which counts for all of them;
// nil counts unregistered.
//
// Gin's mode is global to the process: NewEngine sets it to release, because any other writes to standard output.
func NewEngine(logger zerolog.Logger, registerer prometheus.Registerer, trustedProxies []string) (*gin.Engine, error) {
	panics, err := registerOnce(registerer, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "harborseal_http_panics_total",
		Help: "Panics of HTTP handlers, answered with 500.",
	}))
	if err != nil {
		return nil, err
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	if err := engine.SetTrustedProxies(trustedProxies); err != nil {
		return nil, fmt.Errorf("trusted proxies: %w", err)
	}
	// A redirect would make Harbor repeat its POST as a GET, with the body lost.
	engine.RedirectTrailingSlash = false
	engine.RedirectFixedPath = false
	engine.HandleMethodNotAllowed = true
	engine.Use(identify, recoverer(logger, panics))
	engine.NoRoute(func(c *gin.Context) {
		problem.Abort(c, problem.Document{Status: http.StatusNotFound, Detail: "There is nothing at this address."})
	})
	engine.NoMethod(func(c *gin.Context) {
		problem.Abort(c, problem.Document{Status: http.StatusMethodNotAllowed, Detail: "This address takes: " + c.Writer.Header().Get("Allow") + "."})
	})
	return engine, nil
}

// RequestID gives the id of the request that an engine of [NewEngine] is answering. It is random and ours: what a client
// sends under that name is not believed.
func RequestID(c *gin.Context) string { return c.GetString(requestIDKey) }

func identify(c *gin.Context) {
	id := rand.Text()
	c.Set(requestIDKey, id)
	c.Header(requestIDHeader, id)
	c.Header("X-Content-Type-Options", "nosniff")
}

func recoverer(logger zerolog.Logger, panics prometheus.Counter) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			// The handler's own way to break the connection; it is neither a mistake nor ours to answer.
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause)
			}
			panics.Inc()
			// No header and no query goes into the log: either can hold a credential.
			logger.Error().Str("panic", fmt.Sprint(cause)).Bytes("stack", debug.Stack()).Str("request_id", RequestID(c)).
				Str("method", c.Request.Method).Str("route", c.FullPath()).Msg("handler panicked")
			if c.Writer.Written() {
				// Half an answer must not look like a whole one.
				panic(http.ErrAbortHandler)
			}
			problem.Abort(c, problem.Document{Status: http.StatusInternalServerError, Detail: "Request " + RequestID(c) + " met a mistake of this program."})
		}()
		c.Next()
	}
}

// registerOnce registers c, or gives the equal collector that is registered already.
func registerOnce[C prometheus.Collector](registerer prometheus.Registerer, c C) (C, error) {
	if registerer == nil {
		return c, nil
	}
	err := registerer.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("registering the metrics of the engine: %w", err)
	}
	return c, nil
}
