package keys

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/harborseal/harborseal/pkg/fault"
)

// The errors of a [remote] say by their fault whether a key can be meant to work although it does not now. An error without
// one, such as a name that nobody knows over there, needs another configuration or another key.

// away marks an error that passes by itself: nobody answered, or somebody who cannot serve now.
func away(err error) error { return fault.New(fault.Transient, fault.KeyUnavailable, err) }

// refused marks an error that passes when somebody renews the credentials or their rights.
func refused(err error) error { return fault.New(fault.Transient, fault.Unauthorized, err) }

func isAway(err error) bool    { return fault.Of(err).Reason == fault.KeyUnavailable }
func isRefused(err error) bool { return fault.Of(err).Reason == fault.Unauthorized }

// byStatus marks an error by the HTTP status that came with it.
func byStatus(status int, err error) error {
	switch {
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return away(err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return refused(err)
	default:
		return err
	}
}

// byNetwork marks said, which is what is told of the network's error err. Somebody with a certificate that is not trusted did
// answer: that is a matter of the configured authorities or of the wrong address.
func byNetwork(err, said error) error {
	var untrusted *tls.CertificateVerificationError
	var network net.Error
	var stream streamError
	switch {
	case errors.As(err, &untrusted):
		return said
	case errors.As(err, &network), errors.As(err, &stream), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return away(said)
	default:
		return said
	}
}

// streamError is what net/http tells of an answer over HTTP/2 that was broken off. Its type has no name outside of that package,
// and turns itself by [errors.As] into any with these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error implements error.
func (streamError) Error() string { return "the answer was broken off" }
