package sigstore

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/pubkey"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// Valid says whether s is a signature by the key that it names, which is known and not revoked, over a payload that makes
// this claim, and whose public key it has. Annotations do not matter. Neither do the log entry and the timestamp of a key's
// signature; a keyless one counts only with one of them, which proves that its certificate was alive.
func (r *Keyring) Valid(s artifact.Signature, claim artifact.Claim) bool {
	if len(s.Payload) > maxPayload || !makes(s.Format, s.Payload, claim) {
		return false
	}
	if len(s.Certificates) > 0 {
		found, ok := r.keyless(s, [][]byte{s.Timestamp})
		return ok && found.KeyID == s.KeyID && bytes.Equal(found.PublicKey, s.PublicKey)
	}
	for _, key := range r.valid {
		if key.ID() == s.KeyID {
			return bytes.Equal(key.der, s.PublicKey) && key.Verifies(signedBytes(s.Format, s.Payload), s.Bytes)
		}
	}
	return false
}

// Proven gives s with its log entry and its timestamp only where they verify, by a log and an authority that are trusted, and
// are about this very signature. Whether the signature itself counts is not looked at: see [Keyring.Valid].
func (r *Keyring) Proven(s artifact.Signature) artifact.Signature {
	return r.proven(s, [][]byte{s.Timestamp})
}

// proven is Proven for a signature with several timestamps, of which the first counts that verifies.
func (r *Keyring) proven(s artifact.Signature, timestamps [][]byte) artifact.Signature {
	s.Entry = r.trust.entry(s)
	s.Timestamp, s.TimestampedAt = r.trust.stamped(timestamps, s.Bytes)
	return s
}

// found is a signature as it was read: nothing of it is verified.
type found struct {
	artifact.Signature

	// hint is the id of the key that its writer means; empty if unknown.
	hint       string
	timestamps [][]byte
}

// byKey completes a signature that verifies with a valid key. The one with the hinted id is tried first.
func (r *Keyring) byKey(f found) (artifact.Signature, bool) {
	signed := signedBytes(f.Format, f.Payload)
	for _, hinted := range []bool{true, false} {
		for _, key := range r.valid {
			if (key.ID() == f.hint) == hinted && key.Verifies(signed, f.Bytes) {
				s := f.Signature
				s.KeyID, s.PublicKey, s.Certificates = key.ID(), key.der, nil
				return r.proven(s, f.timestamps), true
			}
		}
	}
	return artifact.Signature{}, false
}

// keyless completes a signature that verifies with its certificate, which is one of a valid identity and was alive at each
// time that is proven, of which there is one at least.
//
// SPEC: sigstore client specification, "Certificate": if a timestamp of an authority and one of a log are available, the path
// is validated with both, and if either fails, verification fails.
func (r *Keyring) keyless(s artifact.Signature, timestamps [][]byte) (artifact.Signature, bool) {
	public, ok := r.certified(s.Certificates)
	if !ok || !public.Verifies(signedBytes(s.Format, s.Payload), s.Bytes) {
		return artifact.Signature{}, false
	}
	s.PublicKey = derOf(public)
	s = r.proven(s, timestamps)
	var times []time.Time
	if s.Entry != nil && len(s.Entry.SET) > 0 {
		times = append(times, time.Unix(s.Entry.IntegratedAt, 0))
	}
	if s.Timestamp != nil {
		times = append(times, s.TimestampedAt)
	}
	if len(times) == 0 {
		return artifact.Signature{}, false
	}
	for _, identity := range r.identities {
		if isOf(identity, s, times) {
			s.KeyID = identity.KeyID()
			return s, true
		}
	}
	return artifact.Signature{}, false
}

func isOf(identity Identity, s artifact.Signature, times []time.Time) bool {
	for _, at := range times {
		public, err := identity.Verify(s.Certificates, at)
		if err != nil || !bytes.Equal(public, s.PublicKey) {
			return false
		}
	}
	return true
}

// certified gives the key of the first certificate if there is any identity that could have signed with it.
func (r *Keyring) certified(certificates [][]byte) (keys.PublicKey, bool) {
	if len(certificates) == 0 || len(r.identities) == 0 {
		return keys.PublicKey{}, false
	}
	leaf, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return keys.PublicKey{}, false
	}
	key, err := pubkey.New(leaf.PublicKey)
	if err != nil {
		return keys.PublicKey{}, false
	}
	public, err := keys.ParsePublicKey([]byte(key.PEM))
	return public, err == nil
}

// mayVerify says whether the signature could be that of a valid and accepted key or identity over the bytes with this
// SHA-256.
func (r *Keyring) mayVerify(sum []byte, f found, accepts func(keyID string) bool) bool {
	for _, key := range r.valid {
		if accepts(key.ID()) && (key.NeedsPayload() || key.VerifiesHash(sum, f.Bytes)) {
			return true
		}
	}
	public, ok := r.certified(f.Certificates)
	if !ok || !public.NeedsPayload() && !public.VerifiesHash(sum, f.Bytes) {
		return false
	}
	// Anybody can make a certificate. That of an identity is valid when its life begins.
	leaf, err := x509.ParseCertificate(f.Certificates[0])
	if err != nil {
		return false
	}
	for _, identity := range r.identities {
		if !accepts(identity.KeyID()) {
			continue
		}
		if _, err := identity.Verify(f.Certificates, leaf.NotBefore); err == nil {
			return true
		}
	}
	return false
}

// derOf is a public key as SubjectPublicKeyInfo.
func derOf(key keys.PublicKey) []byte {
	block, _ := pem.Decode(key.PEM())
	if block == nil {
		return nil
	}
	return block.Bytes
}
