package checker

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// ParseKey reads a public key in PEM: ECDSA, Ed25519 or RSA.
func ParseKey(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading the public key: no PEM block")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	switch parsed.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
		return parsed, nil
	default:
		return nil, fmt.Errorf("reading the public key: want ECDSA, Ed25519 or RSA, got %T", parsed)
	}
}

// KeyID is the SHA-256 of the key's SPKI in hexadecimal digits.
func KeyID(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("computing the key's id: %w", err)
	}
	digest := sha256.Sum256(spki)
	return hex.EncodeToString(digest[:]), nil
}

// verifies checks a signature over a message, by the algorithms of cosign verify --key: SHA-256 for every curve, PKCS #1
// v1.5 for RSA, pure Ed25519.
func verifies(key crypto.PublicKey, message, signature []byte) bool {
	hash := sha256.Sum256(message)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, hash[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], signature) == nil
	default:
		return false
	}
}
