package dependency_test

import (
	"io"
	"log" //nolint:depguard // net/http takes no other
)

// quiet is the error log of a server whose clients misbehave.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
