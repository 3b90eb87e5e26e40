// Package problem writes error answers as problem documents (RFC 9457), the one form in which every HTTP door of this
// project says no.
//
// It guarantees a complete document: type, title and status are filled in where the caller left them out, and the status
// in the document is the one of the answer. It assumes that nothing secret is put into a document: everything in it goes
// to the client. It decides no status and logs nothing.
package problem

import (
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/printable"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// blank is the type of a problem that its status describes fully.
//
// SPEC: RFC 9457, section 4.2.1. With "about:blank" the title should be the status's own phrase.
const blank = "about:blank"

// Document is a problem document. Status is all that a caller must set.
type Document struct {
	// Type is a URI reference that names the kind of problem; empty means "about:blank".
	Type string `json:"type"`
	// Title is the kind of problem for people, the same for each occurrence; empty means the phrase of the status.
	Title string `json:"title"`
	// Status is the HTTP status. What is no error status (400 to 599) becomes 500.
	Status int `json:"status"`
	// Detail says for people what is wrong with this request and, where possible, what to do.
	Detail string `json:"detail,omitempty"`
	// Instance is a URI reference of this occurrence.
	Instance string `json:"instance,omitempty"`
	// Field is an extension of ours: the parameter, or the path in the body, that is wrong.
	Field string `json:"field,omitempty"`
	// Errors are all that is wrong, where several fields are; Field is the first of them then.
	Errors []FieldError `json:"errors,omitempty"`
	// Checks are what was looked at and found wrong, where that is more than a text can say. They must be JSON.
	Checks any `json:"checks,omitempty"`
}

// FieldError is what is wrong with one field.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Write answers with d. Headers that belong to the status (Retry-After, WWW-Authenticate) must be set before. An error of
// the connection is dropped: there is nobody left to tell.
func Write(w http.ResponseWriter, d Document) {
	d = complete(d)
	body, err := json.Marshal(d)
	if err != nil {
		// Only checks that are no JSON do not marshal; an empty body with the right status is still an answer.
		body = nil
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(d.Status)
	_, _ = w.Write(printable.JSON(body)) // it repeats what the caller sent
}

// Abort answers a Gin request with d and keeps the handlers that follow from running.
func Abort(c *gin.Context, d Document) {
	c.Abort()
	Write(c.Writer, d)
}

func complete(d Document) Document {
	if d.Status < http.StatusBadRequest || d.Status > 599 {
		d.Status = http.StatusInternalServerError
	}
	if d.Type == "" {
		d.Type = blank
	}
	if d.Title == "" {
		d.Title = http.StatusText(d.Status)
	}
	return d
}
