// Package fault says what kind of failure an error is, so that one place can decide what happens next.
//
// Adapters make one attempt and return an error that carries a [Kind], a [Reason] from a closed set and, where the other
// side named one, a delay. They never retry. The queue's consumer turns the kind into an acknowledgement, the HTTP
// adapters turn it into a status; nobody decides by the text of an error.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind is what a failure means for the work that met it.
type Kind string

const (
	// Transient failures pass by themselves: the same attempt may succeed later. An error that carries no kind counts as
	// transient, because trying again loses nothing.
	Transient Kind = "transient"
	// Permanent failures stay until somebody changes something: trying again is useless.
	Permanent Kind = "permanent"
	// Gone means that the subject is no longer in Harbor: there is nothing left to do.
	Gone Kind = "gone"
)

// Reason is why something failed, from a closed set: it may be a metric label and stands in the report. The error beside
// it tells the details.
type Reason string

// The reasons. They are part of the ledger's vocabulary: a reason is added, never renamed.
const (
	Unknown             Reason = "unknown"              // an error without a fault
	Canceled            Reason = "canceled"             // this program is stopping
	Unreachable         Reason = "unreachable"          // name resolution, connection, TLS handshake
	Timeout             Reason = "timeout"              // no answer in time
	Unavailable         Reason = "unavailable"          // 5xx
	RateLimited         Reason = "rate_limited"         // 429
	BadAnswer           Reason = "bad_answer"           // an answer that breaks its protocol
	Unauthorized        Reason = "unauthorized"         // credentials refused
	Denied              Reason = "denied"               // credentials lack a right
	Rejected            Reason = "rejected"             // a 4xx that no other reason covers
	QuotaExceeded       Reason = "quota_exceeded"       // the Harbor project is full
	PullPolicy          Reason = "pull_policy"          // Harbor's "only signed images" rule refused the signer
	Immutable           Reason = "immutable"            // an immutability rule locks the tag
	NotFound            Reason = "not_found"            // the manifest or repository is not there
	ForeignOrigin       Reason = "foreign_origin"       // a realm, redirect or upload location outside the configured origins
	TooLarge            Reason = "too_large"            // beyond a documented limit
	TooManyChildren     Reason = "too_many_children"    // an index beyond the limit of children
	TooDeep             Reason = "too_deep"             // indexes nested beyond the limit
	DigestMismatch      Reason = "digest_mismatch"      // content that does not hash to its digest
	Malformed           Reason = "malformed"            // content that cannot be read
	NewerVersion        Reason = "newer_version"        // written by a newer program
	PolicyUnreadable    Reason = "policy_unreadable"    // no policy could be read
	QueueFull           Reason = "queue_full"           // a stream or its store is at its limit
	QueueUnavailable    Reason = "queue_unavailable"    // JetStream did not acknowledge
	KeyUnavailable      Reason = "key_unavailable"      // the signing key did not answer
	VerificationFailed  Reason = "verification_failed"  // what was attached does not verify
	TooOld              Reason = "too_old"              // tried for longer than the limit
	BlobUnknown         Reason = "blob_unknown"         // a manifest was refused because a blob that it names is missing
	ConcurrentWriter    Reason = "concurrent_writer"    // somebody else changed the same tag meanwhile
	StorageUnavailable  Reason = "storage_unavailable"  // the database of the ledger's view
	UnsupportedManifest Reason = "unsupported_manifest" // a manifest format that cannot be signed, such as schema 1
	UnsupportedFormat   Reason = "unsupported_format"   // a signature format that this Harbor does not take
	Paused              Reason = "paused"               // an admin has paused signing
	LogUnavailable      Reason = "log_unavailable"      // the transparency log did not take the signature
	ProofInvalid        Reason = "proof_invalid"        // what a log or timestamp authority answered does not verify
	TimestampMissing    Reason = "timestamp_missing"    // the timestamp authority did not answer
	IdentityMissing     Reason = "identity_missing"     // no certificate for a keyless signature
	Unverifiable        Reason = "unverifiable"         // nobody could verify what the policy asks for
	DependencyDown      Reason = "dependency_down"      // it did not answer before: it was not asked
)

// Error is a failure of a known kind. Its text is that of the wrapped error alone.
type Error struct {
	Kind   Kind
	Reason Reason
	// RetryAfter is the least delay that the other side asked for; 0 if it named none.
	RetryAfter time.Duration
	Err        error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// New wraps err, which must not be nil, into a fault.
func New(kind Kind, reason Reason, err error) error {
	return &Error{Kind: kind, Reason: reason, Err: err}
}

// Newf is New with an error made by fmt.Errorf.
func Newf(kind Kind, reason Reason, format string, args ...any) error {
	return &Error{Kind: kind, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// After is New for a transient fault whose other side asked for a delay.
func After(delay time.Duration, reason Reason, err error) error {
	return &Error{Kind: Transient, Reason: reason, RetryAfter: delay, Err: err}
}

// Of gives the outermost fault in err's chain. An error without one is Transient and Unknown, a cancelled context is
// Transient and Canceled, an exceeded deadline is Transient and Timeout. Of must not be called with nil.
func Of(err error) Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return Error{Kind: e.Kind, Reason: e.Reason, RetryAfter: e.RetryAfter, Err: err}
	case errors.Is(err, context.Canceled):
		return Error{Kind: Transient, Reason: Canceled, Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return Error{Kind: Transient, Reason: Timeout, Err: err}
	default:
		return Error{Kind: Transient, Reason: Unknown, Err: err}
	}
}

// Is says whether err is a failure of the given kind.
func Is(err error, kind Kind) bool { return err != nil && Of(err).Kind == kind }
