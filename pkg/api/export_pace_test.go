package api

import (
	"io"
	"time"
)

// ErrSlow gives tests the error that ends an answer whose client takes it too slowly.
var ErrSlow = errSlow

// Paced gives tests a writer to a client.
func Paced(w io.Writer, limit func(time.Time) error, now func() time.Time) io.Writer {
	return &paced{w: w, limit: limit, now: now}
}
