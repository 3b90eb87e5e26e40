package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"

	"github.com/harborseal/harborseal/pkg/pubkey"
)

// PublicKey verifies signatures: ECDSA (P-256, P-384), Ed25519 or RSA (2048 to 4096 bits). It is immutable; its zero value
// verifies nothing.
type PublicKey struct {
	key crypto.PublicKey
	id  string
	pem string
}

// ParsePublicKey reads one PEM block of type PUBLIC KEY, as cosign writes it.
func ParsePublicKey(data []byte) (PublicKey, error) {
	key, err := pubkey.Parse(data)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{key: key.Public, id: key.ID, pem: key.PEM}, nil
}

func newPublicKey(public crypto.PublicKey) (PublicKey, error) {
	key, err := pubkey.New(public)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{key: key.Public, id: key.ID, pem: key.PEM}, nil
}

// ID is the lower-case hexadecimal SHA-256 of the key's SubjectPublicKeyInfo in DER.
func (k PublicKey) ID() string { return k.id }

// PEM is the key as a PEM block of type PUBLIC KEY.
func (k PublicKey) PEM() []byte { return []byte(k.pem) }

// IsZero says whether k is no key.
func (k PublicKey) IsZero() bool { return k.key == nil }

// Verifies checks a signature over a payload, by the algorithms that `cosign verify --key` takes: SHA-256 for every curve,
// PKCS #1 v1.5 for RSA, pure Ed25519.
func (k PublicKey) Verifies(payload, signature []byte) bool {
	if key, ok := k.key.(ed25519.PublicKey); ok {
		return ed25519.Verify(key, payload, signature)
	}
	sum := sha256.Sum256(payload)
	return k.VerifiesHash(sum[:], signature)
}

// VerifiesHash checks a signature over the SHA-256 of a payload that need not be known. It is false for keys that sign the
// payload itself; NeedsPayload tells these.
func (k PublicKey) VerifiesHash(sum, signature []byte) bool {
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, signature) == nil
	default:
		return false
	}
}

// NeedsPayload says whether a signature can only be checked with the payload itself.
func (k PublicKey) NeedsPayload() bool {
	_, ok := k.key.(ed25519.PublicKey)
	return ok
}
