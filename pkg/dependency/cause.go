package dependency

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Cause is why a dependency counts as down, from a closed set: it is a metric label and stands in the ledger.
type Cause string

// The causes. They are part of the ledger's vocabulary: one is added, never renamed.
const (
	DNS      Cause = "dns"      // the name does not resolve
	Refused  Cause = "refused"  // no connection, or one that broke before an answer
	Timeout  Cause = "timeout"  // no answer in time
	TLS      Cause = "tls"      // no TLS, or a certificate that does not verify
	Auth     Cause = "auth"     // the credentials are refused, or lack a right
	Protocol Cause = "protocol" // an answer, and not the right one
	Skew     Cause = "skew"     // the clocks differ
)

// Causes gives all of them.
func Causes() []Cause { return []Cause{DNS, Refused, Timeout, TLS, Auth, Protocol, Skew} }

// SkewError says that another side's clock differs from ours by more than is tolerated.
type SkewError struct {
	// By is positive if the other side is ahead.
	By time.Duration
}

// Error implements error.
func (e *SkewError) Error() string {
	return fmt.Sprintf("its clock differs from this one by %s: set both by NTP", e.By.Round(time.Second))
}

// stageError is an error of which it is known where it happened, because its type does not tell.
type stageError struct {
	cause Cause
	err   error
}

// Error implements error.
func (e *stageError) Error() string { return e.err.Error() }

// Unwrap gives the wrapped error.
func (e *stageError) Unwrap() error { return e.err }

// CauseOf says why a call failed, by the types in err's chain and by its fault, never by its text. err must not be nil.
func CauseOf(err error) Cause {
	var (
		skew  *SkewError
		name  *net.DNSError
		stage *stageError
	)
	switch {
	case errors.As(err, &skew):
		return Skew
	case errors.As(err, &name): // before timeouts: a name server that does not answer is one, and so is a name that does not resolve
		return DNS
	case isTLS(err):
		return TLS
	case errors.As(err, &stage):
		return stage.cause
	}
	switch fault.Of(err).Reason {
	case fault.Unauthorized, fault.Denied:
		return Auth
	case fault.Timeout:
		return Timeout
	case fault.BadAnswer, fault.ProofInvalid, fault.Rejected, fault.RateLimited:
		return Protocol
	default:
		return causeOfConnection(err)
	}
}

// causeOfConnection tells apart what has happened to a connection.
func causeOfConnection(err error) Cause {
	var (
		late net.Error
		op   *net.OpError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return Timeout
	case errors.As(err, &op), isClosed(err):
		return Refused
	}
	switch fault.Of(err).Reason {
	case fault.Unreachable, fault.QueueUnavailable: // NATS keeps trying to connect, and does not say why it fails
		return Refused
	default:
		return Protocol
	}
}

// isTLS says whether a handshake failed for what TLS is about.
//
// SPEC: Go, crypto/tls, Conn: an alert of either side is a net.OpError, whose operation says whose it is.
func isTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		alert        tls.AlertError
		ech          *tls.ECHRejectionError
		authority    x509.UnknownAuthorityError
		host         x509.HostnameError
		invalid      x509.CertificateInvalidError
		op           *net.OpError
	)
	switch {
	case errors.As(err, &verification), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &ech):
		return true
	case errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid), errors.Is(err, http.ErrSchemeMismatch):
		return true
	default:
		return errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error")
	}
}

// isClosed says whether the other side has let go of a connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
