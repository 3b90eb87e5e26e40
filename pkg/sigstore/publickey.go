package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	publicKeyType = "PUBLIC KEY"
	// maxKeyFile bounds what is read as a key, in bytes.
	maxKeyFile = 64 << 10

	minRSABits = 2048
	maxRSABits = 4096
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
	if len(data) > maxKeyFile {
		return PublicKey{}, fmt.Errorf("public key has %d bytes, at most %d are read", len(data), maxKeyFile)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return PublicKey{}, errors.New("public key: want a PEM block of type PUBLIC KEY")
	case block.Type != publicKeyType:
		return PublicKey{}, fmt.Errorf("public key: want a PEM block of type PUBLIC KEY, got %.64q", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return PublicKey{}, errors.New("public key: something follows the PEM block; want one key a file")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: %w", err)
	}
	return newPublicKey(key)
}

func newPublicKey(key crypto.PublicKey) (PublicKey, error) {
	if err := checkStrength(key); err != nil {
		return PublicKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return PublicKey{}, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return PublicKey{
		key: key,
		id:  hex.EncodeToString(sum[:]),
		pem: string(pem.EncodeToMemory(&pem.Block{Type: publicKeyType, Bytes: der})),
	}, nil
}

func checkStrength(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return errors.New("ECDSA key: want the curve P-256 or P-384")
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("RSA key has %d bits, want %d to %d", bits, minRSABits, maxRSABits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("key of type %T: want ECDSA, Ed25519 or RSA", key)
	}
	return nil
}

// ID is the lower-case hexadecimal SHA-256 of the key's SubjectPublicKeyInfo in DER.
func (k PublicKey) ID() string { return k.id }

// PEM is the key as a PEM block of type PUBLIC KEY.
func (k PublicKey) PEM() []byte { return []byte(k.pem) }

// IsZero says whether k is no key.
func (k PublicKey) IsZero() bool { return k.key == nil }

// verifies checks a signature over a payload, by the algorithms that `cosign verify --key` takes: SHA-256 for every curve,
// PKCS #1 v1.5 for RSA, pure Ed25519.
func (k PublicKey) verifies(payload, signature []byte) bool {
	if key, ok := k.key.(ed25519.PublicKey); ok {
		return ed25519.Verify(key, payload, signature)
	}
	sum := sha256.Sum256(payload)
	return k.verifiesHash(sum[:], signature)
}

// verifiesHash checks a signature over the SHA-256 of a payload that need not be known. It is false for keys that sign the
// payload itself; needsPayload tells these.
func (k PublicKey) verifiesHash(sum, signature []byte) bool {
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, signature) == nil
	default:
		return false
	}
}

func (k PublicKey) needsPayload() bool {
	_, ok := k.key.(ed25519.PublicKey)
	return ok
}
