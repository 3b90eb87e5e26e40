package dependency

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// RoundTripper gives a transport whose requests the breaker lets through or refuses, with the fault that [Breaker.Do] gives.
// A request fails if it brings no answer, one whose status counts, or one whose body breaks off; a request that is cancelled says
// nothing. The body of each answer MUST be closed: until then, the outcome is open.
func (b *Breaker) RoundTripper(next http.RoundTripper) http.RoundTripper {
	return &guarded{breaker: b, next: next}
}

type guarded struct {
	breaker *Breaker
	next    http.RoundTripper
}

// lostError is a request that brought no whole answer, or one that stands for none.
type lostError struct{ err error }

// Error implements error.
func (e *lostError) Error() string { return e.err.Error() }

// Unwrap gives the wrapped error.
func (e *lostError) Unwrap() error { return e.err }

// RoundTrip implements http.RoundTripper.
func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if isProbe(req.Context()) {
		return g.next.RoundTrip(req)
	}
	done, err := g.breaker.allow()
	if err != nil {
		// SPEC: net/http, RoundTripper: it closes the body, also where it returns an error.
		if req.Body != nil {
			_ = req.Body.Close() // nothing was sent
		}
		return nil, err
	}
	reported := false
	report := func(outcome error) {
		reported = true
		done(outcome)
	}
	defer func() {
		if !reported {
			done(context.Canceled) // a panic says nothing of the dependency
		}
	}()
	resp, err := g.next.RoundTrip(req)
	switch {
	case err != nil:
		report(&lostError{err})
		return nil, err //nolint:wrapcheck // a transport changes no error
	case g.breaker.cfg.CountsStatus(resp.StatusCode):
		report(&lostError{fmt.Errorf("status %d", resp.StatusCode)})
	case resp.Body == nil || resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols:
		report(nil)
	default:
		resp.Body, reported = &watchedBody{ReadCloser: resp.Body, report: done}, true
	}
	return resp, nil
}

// watchedBody tells of the end of an answer, once.
type watchedBody struct {
	io.ReadCloser

	once   sync.Once
	report func(error)
}

// Read implements io.Reader.
func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		w.once.Do(func() { w.report(nil) })
	case err != nil:
		w.once.Do(func() { w.report(&lostError{err}) })
	}
	return n, err //nolint:wrapcheck // a reader changes no error
}

// Close implements io.Closer.
func (w *watchedBody) Close() error {
	w.once.Do(func() { w.report(nil) })
	return w.ReadCloser.Close() //nolint:wrapcheck // as above
}
