package queue

import (
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harborseal/harborseal/pkg/fault"
)

// The headers of an answer that is an error; its body is the text.
const (
	kindHeader   = "Harborseal-Fault"
	reasonHeader = "Harborseal-Reason"
	delayHeader  = "Harborseal-Retry-After"
)

// maxFaultText bounds the text of an error that crosses over, in bytes, and maxFaultDelay its delay.
const (
	maxFaultText  = 1 << 10
	maxFaultDelay = time.Hour
)

// encodeFault makes the answer that carries an error.
func encodeFault(subject string, err error) *nats.Msg {
	f := fault.Of(err)
	msg := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: []byte(faultText(err.Error()))}
	msg.Header.Set(kindHeader, string(f.Kind))
	msg.Header.Set(reasonHeader, string(f.Reason))
	if f.RetryAfter > 0 {
		msg.Header.Set(delayHeader, f.RetryAfter.String())
	}
	return msg
}

// decodeFault gives the error that an answer carries; nil if it carries none. Nothing of it is believed: what is not from
// the closed sets counts as a transient error that is not known.
func decodeFault(msg *nats.Msg) error {
	if msg.Header.Get(kindHeader) == "" {
		return nil
	}
	f := &fault.Error{Kind: fault.Transient, Reason: fault.Unknown, Err: errors.New(faultText(string(msg.Data)))}
	switch kind := fault.Kind(msg.Header.Get(kindHeader)); kind {
	case fault.Transient, fault.Permanent, fault.Gone:
		f.Kind = kind
	}
	if reason := fault.Reason(msg.Header.Get(reasonHeader)); isReason(reason) {
		f.Reason = reason
	}
	if delay, err := time.ParseDuration(msg.Header.Get(delayHeader)); err == nil && f.Kind == fault.Transient {
		f.RetryAfter = min(max(delay, 0), maxFaultDelay)
	}
	return f
}

// faultText gives text that fits on a line of a log or a report.
func faultText(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxFaultText)], "")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if strings.TrimSpace(text) == "" {
		return "an error without a text"
	}
	return text
}

// isReason says whether a reason is from the closed set. One that a newer program knows is not.
func isReason(reason fault.Reason) bool {
	switch reason {
	case fault.Unknown, fault.Canceled, fault.Unreachable, fault.Timeout, fault.Unavailable, fault.RateLimited, fault.BadAnswer,
		fault.Unauthorized, fault.Denied, fault.Rejected, fault.QuotaExceeded, fault.PullPolicy, fault.Immutable, fault.NotFound,
		fault.ForeignOrigin, fault.TooLarge, fault.TooManyChildren, fault.TooDeep, fault.DigestMismatch, fault.Malformed,
		fault.NewerVersion, fault.PolicyUnreadable, fault.QueueFull, fault.QueueUnavailable, fault.KeyUnavailable,
		fault.VerificationFailed, fault.TooOld, fault.BlobUnknown, fault.ConcurrentWriter, fault.StorageUnavailable,
		fault.UnsupportedManifest, fault.UnsupportedFormat, fault.Paused, fault.LogUnavailable, fault.ProofInvalid,
		fault.TimestampMissing, fault.IdentityMissing, fault.Unverifiable, fault.DependencyDown:
		return true
	default:
		return false
	}
}
