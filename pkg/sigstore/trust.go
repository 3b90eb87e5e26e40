package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// EntryVerifier is a transparency log whose entries count. It is safe for concurrent use and asks nobody. One that also has
// a method ID() []byte, which changes with the log's key, is another one to [Trust.Set] after that.
type EntryVerifier interface {
	// Name is what the configuration calls the log, and Type its protocol.
	Name() string
	Type() policy.LogType
	// Verify says whether an entry is this log's and about this very signature, its payload and its key or certificate. An
	// entry of a legacy signature comes without an inclusion proof.
	Verify(e artifact.LogEntry, s artifact.Signature) error
}

// TimestampVerifier is a timestamp authority whose timestamps count. What stands at [EntryVerifier] is true of it too.
type TimestampVerifier interface {
	Name() string
	// Verify gives the time at which the message, the raw bytes of a signature, was stamped. The response is a TimeStampResp in
	// DER.
	Verify(response, message []byte) (at time.Time, err error)
}

// Identity signs with certificates that live for minutes. It is safe for concurrent use. For ID see [EntryVerifier].
type Identity interface {
	// KeyID stands for the issuer and the subject: see [artifact.IdentityID].
	KeyID() string
	// Sign makes a signature of the message: its Bytes, Certificates and PublicKey. The error is a fault.
	Sign(ctx context.Context, message []byte) (artifact.Signature, error)
	// Verify gives the public key, as SubjectPublicKeyInfo in DER, of the first certificate if it is one of this identity and
	// was valid at that time, with what the others lead to. It asks nobody.
	Verify(certificates [][]byte, at time.Time) (publicKeyDER []byte, err error)
}

// Trust says which log entries and timestamps count. Its zero value trusts none. Logs and authorities that take nothing new
// any more belong to it as long as what they gave is to count.
type Trust struct {
	Logs       []EntryVerifier
	Timestamps []TimestampVerifier
}

// Set names the logs and authorities in 16 hexadecimal digits: it is another one whenever one comes or goes, or gets another
// key, if it says so. Their order does not matter. It is empty if there are none.
func (t Trust) Set() string {
	var parts []string
	for _, l := range t.Logs {
		parts = append(parts, strings.Join([]string{"log", string(l.Type()), l.Name(), idOf(l)}, "\x00"))
	}
	for _, a := range t.Timestamps {
		parts = append(parts, strings.Join([]string{"authority", a.Name(), idOf(a)}, "\x00"))
	}
	if len(parts) == 0 {
		return ""
	}
	return shortHash(parts)
}

// idOf is the id of what has one, in hexadecimal digits.
func idOf(v any) string {
	if v, ok := v.(interface{ ID() []byte }); ok {
		return hex.EncodeToString(v.ID())
	}
	return ""
}

// shortHash names a set of strings.
func shortHash(parts []string) string {
	slices.Sort(parts)
	sum := sha256.Sum256([]byte(strings.Join(parts, " ")))
	return hex.EncodeToString(sum[:8])
}

// entry gives the entry of a signature with the name of the log that proves it, or nil if none does.
func (t Trust) entry(s artifact.Signature) *artifact.LogEntry {
	if s.Entry == nil {
		return nil
	}
	for _, l := range t.Logs {
		if l.Verify(*s.Entry, s) == nil {
			proven := *s.Entry
			proven.Log = l.Name()
			return &proven
		}
	}
	return nil
}

// stamped gives the first of some responses that is a timestamp over these bytes, and its time; nil if none is.
func (t Trust) stamped(responses [][]byte, signature []byte) ([]byte, time.Time) {
	for _, response := range responses {
		for _, a := range t.Timestamps {
			if at, err := a.Verify(response, signature); err == nil {
				return response, at
			}
		}
	}
	return nil, time.Time{}
}
