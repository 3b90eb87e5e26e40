package access

import (
	"errors"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// What callers are told. The texts of errors that wrap these hold nothing secret and are meant for the caller.
var (
	// ErrUnauthenticated says that nobody knows who the caller is: a 401.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrNoCredentials is the ErrUnauthenticated of a request that brought no credentials.
	ErrNoCredentials = fmt.Errorf("%w: this needs Harbor credentials or an API token in the header Authorization", ErrUnauthenticated)
	// ErrForbidden says that the caller may see the project but not do this: a 403.
	ErrForbidden = errors.New("not allowed: this needs a project admin of Harbor, a system admin, or an API token with the scope change")
	// ErrNotFound says that there is no such project, or that the caller must not know: a 404.
	ErrNotFound = errors.New("no such project")
)

// ThrottledError says that the request was not looked at: a 429.
type ThrottledError struct {
	// RetryAfter is how long to wait, more than 0.
	RetryAfter time.Duration
	// Busy says that too many log in at the same time, or, with Known, that too much is asked about callers who were let in.
	// Otherwise there were too many wrong attempts.
	Busy, Known bool
}

// Error implements error.
func (e *ThrottledError) Error() string {
	switch {
	case e.Busy && e.Known:
		return "too many questions about what you may do wait for Harbor at the same time: try again in a moment"
	case e.Busy:
		return "too many log in at the same time: try again in a moment"
	}
	return fmt.Sprintf("too many wrong attempts: try again in %s", max(e.RetryAfter.Round(time.Second), time.Second))
}

// refused says whether Harbor did not take the credentials.
func refused(err error) bool {
	return fault.Of(err).Reason == fault.Unauthorized
}

// unavailable makes a transient fault of whatever else went wrong with Harbor: what the operator has to repair is no fault
// of the caller, and must not look like a refusal.
func unavailable(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if f := fault.Of(err); f.Kind != fault.Transient {
		return fault.New(fault.Transient, f.Reason, err)
	}
	return err
}
