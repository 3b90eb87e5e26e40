package tsa

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
	"github.com/sigstore/timestamp-authority/v2/pkg/verification"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/redact"
)

// maxText is how much of another side's words an error repeats, in bytes.
const maxText = 512

// SkewError is a time that is not plausible by the local clock: one of the two clocks is wrong.
type SkewError struct{ off time.Duration }

// Error implements error.
func (e *SkewError) Error() string {
	direction := "ahead of"
	if e.off < 0 {
		direction = "behind"
	}
	return fmt.Sprintf("its clock is %s %s this one: look at both hosts' time synchronisation", e.off.Abs().Round(time.Second), direction)
}

// Skew is how far the authority's clock is ahead of the local one; negative if it is behind.
func (e *SkewError) Skew() time.Duration { return e.off }

// Verify says when the authority has stamped the message, in UTC. The response is a TimeStampResp in DER, the message what
// was stamped. It knows nothing of nonces, accepts certificates that have expired since, and does not look at the clock.
// What does not verify is a transient fault, ProofInvalid. It is pure.
func (a *Authority) Verify(response, message []byte) (at time.Time, err error) {
	token, err := a.verify(response, message, nil)
	if err != nil {
		return time.Time{}, err
	}
	return token.Time.UTC(), nil
}

// verify is Verify, with the nonce of a fresh response.
//
// SPEC: RFC 3161, section 2.4.2: what a requester has to verify; section 2.3: the certificate's key usage.
func (a *Authority) verify(response, message []byte, nonce *big.Int) (*timestamp.Timestamp, error) {
	if len(response) > maxResponse {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "verifying a timestamp of %s: it has %d bytes, at most %d are read",
			a.name, len(response), maxResponse)
	}
	if !isNested(response) {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "verifying a timestamp of %s: its parts do not lie within each other", a.name)
	}
	token, err := verification.VerifyTimestampResponse(response, bytes.NewReader(message), verification.VerifyOpts{
		TSACertificate: a.chain.leaf,
		Intermediates:  a.chain.intermediates,
		Roots:          []*x509.Certificate{a.chain.root},
		Nonce:          nonce,
	})
	if err != nil {
		return nil, fault.Newf(fault.Transient, fault.ProofInvalid, "verifying a timestamp of %s: %w", a.name, redact.New().Error(err, maxText))
	}
	return token, nil
}

// remember notes when the certificate expires that has signed a verified timestamp.
func (a *Authority) remember(token *timestamp.Timestamp) {
	p7, err := pkcs7.Parse(token.RawToken)
	if err != nil {
		return
	}
	if signer := p7.GetOnlySigner(); signer != nil {
		a.seen.Store(&signer.NotAfter)
	}
}
