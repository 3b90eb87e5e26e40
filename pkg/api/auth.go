package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
)

// callerKey is where authenticate leaves the caller in Gin's context.
const callerKey = "harborseal.caller"

// guard says who may do what: see package access. It is safe for concurrent use. Its errors are those of package access, or
// faults.
type guard interface {
	Authenticate(ctx context.Context, header http.Header, remote string) (access.Caller, error)
	Visible(ctx context.Context, c access.Caller) (projects []string, all bool, err error)
}

// authenticate lets a request through whose caller is known.
func (a *API) authenticate(c *gin.Context) {
	caller, err := a.access.Authenticate(c.Request.Context(), c.Request.Header, c.ClientIP())
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
