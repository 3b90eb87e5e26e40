package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/problem"
)

// maxBody is above what any policy needs, in bytes.
const maxBody = 256 << 10

// body reads the JSON object of a request into the struct that into points to. The error is a [*refusal].
func body(c *gin.Context, into any) error {
	media, _, err := mime.ParseMediaType(c.ContentType())
	if encoding := c.GetHeader("Content-Encoding"); err != nil || media != "application/json" || encoding != "" && encoding != "identity" {
		return &refusal{problem.Document{Status: http.StatusUnsupportedMediaType, Detail: "want a body of the type application/json, not encoded"}}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return &refusal{problem.Document{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is longer than %d bytes", maxBody)}}
	case err != nil:
		return malformed("body", "it ended before its end")
	}
	return strict(raw, into)
}

// malformed is a 400 about a field of a body.
func malformed(field, want string) error {
	return &refusal{problem.Document{Status: http.StatusBadRequest, Detail: field + ": " + want, Field: field}}
}
