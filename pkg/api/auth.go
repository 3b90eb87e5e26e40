package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/problem"
)

// callerKey is where authenticate leaves the caller in Gin's context.
const callerKey = "harborseal.caller"

// guard says who may do what: see package access. It is safe for concurrent use. Its errors are those of package access, or
// faults.
type guard interface {
	Authenticate(ctx context.Context, header http.Header, remote string) (access.Caller, error)
	Visible(ctx context.Context, c access.Caller) (projects []string, all bool, err error)
	Require(ctx context.Context, c access.Caller, action access.Action, project string) error
	CanPull(ctx context.Context, c access.Caller, repository string) (bool, error)
	CanPush(ctx context.Context, c access.Caller, repository string) (bool, error)
	// Harbor gives the caller's credentials, as a header for Harbor alone.
	Harbor(c access.Caller) (authorization string)
}

// authenticate lets a request through whose caller is known.
func (a *API) authenticate(c *gin.Context) {
	caller, err := a.cfg.Access.Authenticate(c.Request.Context(), c.Request.Header, c.ClientIP())
	if err != nil {
		a.refuse(c, err)
		return
	}
	c.Set(callerKey, caller)
}

// caller is who makes a request that authenticate has let through.
func caller(c *gin.Context) access.Caller {
	if v, ok := c.MustGet(callerKey).(access.Caller); ok {
		return v
	}
	return access.Caller{}
}

// actor is the caller for package enroll, with the credentials that it asks Harbor with.
func (a *API) actor(c *gin.Context) enroll.Actor {
	who := caller(c)
	return enroll.Actor{Name: who.Actor(), From: c.ClientIP(), Authorization: a.cfg.Access.Harbor(who)}
}

// requireRead and requireChange let a request through whose caller may do that with the project of the path.
func (a *API) requireRead(c *gin.Context)   { a.require(c, access.Read) }
func (a *API) requireChange(c *gin.Context) { a.require(c, access.Change) }

func (a *API) require(c *gin.Context, action access.Action) {
	if err := a.cfg.Access.Require(c.Request.Context(), caller(c), action, c.Param("name")); err != nil {
		a.refuse(c, err)
	}
}

// sameOrigin refuses what a page of another origin makes a browser send, with the credentials that the browser keeps for us.
func (a *API) sameOrigin(c *gin.Context) {
	if err := a.origins.Check(c.Request); err != nil {
		problem.Abort(c, problem.Document{Status: http.StatusForbidden, Detail: "a page of another origin must not change anything here"})
	}
}

// challenge says how to authenticate.
//
// SPEC: RFC 6750, section 3. A request without credentials gets the challenge alone, one with a wrong token error
// invalid_token.
func challenge(c *gin.Context, err error) {
	value := `Bearer realm="harborseal"`
	if !errors.Is(err, access.ErrNoCredentials) {
		value += `, error="invalid_token"`
	}
	c.Writer.Header()["Www-Authenticate"] = []string{value, `Basic realm="harborseal", charset="UTF-8"`}
}
