// Package pubkey reads public keys for signatures.
//
// It guarantees that every part of the project takes the same keys and calls a key by the same id: what is published can
// be verified with, and the other way round. It knows nothing of signatures.
package pubkey

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
	pemType = "PUBLIC KEY"
	// maxSize bounds what is read as a key, in bytes.
	maxSize = 64 << 10

	minRSABits = 2048
	maxRSABits = 4096
)

// Key is a public key: ECDSA (P-256, P-384), Ed25519 or RSA (2048 to 4096 bits).
type Key struct {
	// Public is an *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey.
	Public crypto.PublicKey
	// ID is the lower-case hexadecimal SHA-256 of the SubjectPublicKeyInfo in DER.
	ID string
	// PEM is one block of type PUBLIC KEY and nothing else.
	PEM string
}

// Parse reads one PEM block of type PUBLIC KEY, as cosign writes it. Text before the block is passed over.
func Parse(data []byte) (Key, error) {
	if len(data) > maxSize {
		return Key{}, fmt.Errorf("public key has %d bytes, at most %d are read", len(data), maxSize)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return Key{}, errors.New("public key: want a PEM block of type PUBLIC KEY")
	case block.Type != pemType:
		return Key{}, fmt.Errorf("public key: want a PEM block of type PUBLIC KEY, got %.64q", block.Type)
	case len(block.Headers) > 0:
		return Key{}, errors.New("public key: want a PEM block without headers")
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, errors.New("public key: something follows the PEM block; want one key a file")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	return New(public)
}

// New takes a key that was read or made elsewhere.
func New(public crypto.PublicKey) (Key, error) {
	if err := checkStrength(public); err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return Key{
		Public: public,
		ID:     hex.EncodeToString(sum[:]),
		PEM:    string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})),
	}, nil
}

func checkStrength(public crypto.PublicKey) error {
	switch k := public.(type) {
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
		return fmt.Errorf("key of type %T: want ECDSA, Ed25519 or RSA", public)
	}
	return nil
}
