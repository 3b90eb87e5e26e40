package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/cosign/v2/pkg/cosign"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

// Key signs. It is safe for concurrent use. It holds the key decrypted, out of reach of anything that prints
// values.
type Key struct {
	public PublicKey
	// sign closes over the key itself, so that no print of this struct can show it.
	sign func(payload []byte) ([]byte, error)
}

// LoadFile reads a private key that cosign encrypted (a PEM block of type ENCRYPTED SIGSTORE PRIVATE KEY or
// ENCRYPTED COSIGN PRIVATE KEY) with the password in a second file, whose final line break is ignored. Files that the
// group or others may use are refused. Decryption takes some tenths of a second by design and happens here alone. The key
// has signed something that verifies when LoadFile returns.
func LoadFile(path, passwordFile string) (*Key, error) {
	data, err := secretfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("signing key %s is no PEM file: want an encrypted cosign key, as `signer generate-key` or `cosign generate-key-pair` "+
			"writes it", path)
	case block.Type != cosign.SigstorePrivateKeyPemType && block.Type != cosign.CosignPrivateKeyPemType:
		return nil, fmt.Errorf("signing key %s is a PEM block of type %.64q, want %q: encrypt it with `cosign import-key-pair`",
			path, block.Type, cosign.SigstorePrivateKeyPemType)
	}
	password, err := readPassword(passwordFile)
	if err != nil {
		return nil, err
	}
	defer clear(password)
	der, err := encrypted.Decrypt(block.Bytes, password)
	if err != nil {
		// The library's error tells a wrong password and a damaged file apart as little as the cipher does.
		return nil, fmt.Errorf("signing key %s cannot be decrypted: the password in %s is wrong, or the file is damaged", path, passwordFile)
	}
	defer clear(der)
	key, err := parsePrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return key, nil
}

// parsePrivateKey never repeats what a parser said about key material.
func parsePrivateKey(der []byte) (*Key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("it decrypts, but to no PKCS #8 private key")
	}
	return newKey(parsed)
}

// newKey makes signers that are deterministic: the same payload gets the same signature. For ECDSA that is RFC 6979,
// which Go uses when there is no source of randomness; SignASN1 and sigstore's own signers stay random.
func newKey(parsed any) (*Key, error) {
	k := &Key{}
	var public crypto.PublicKey
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		public = key.Public()
		k.sign = func(payload []byte) ([]byte, error) {
			sum := sha256.Sum256(payload)
			return key.Sign(nil, sum[:], crypto.SHA256)
		}
	case *rsa.PrivateKey:
		public = key.Public()
		k.sign = func(payload []byte) ([]byte, error) {
			sum := sha256.Sum256(payload)
			return rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		}
	case ed25519.PrivateKey:
		public = key.Public()
		k.sign = func(payload []byte) ([]byte, error) { return ed25519.Sign(key, payload), nil }
	default:
		return nil, fmt.Errorf("key of type %T: want ECDSA, Ed25519 or RSA", parsed)
	}
	var err error
	if k.public, err = newPublicKey(public); err != nil {
		return nil, err
	}
	probe := []byte("harborseal: the signing key works")
	signature, err := k.sign(probe)
	if err != nil || !k.public.Verifies(probe, signature) {
		return nil, errors.New("a trial signature failed: private and public part do not belong together")
	}
	return k, nil
}

// Public is the key that verifies.
func (k *Key) Public() PublicKey { return k.public }

// PublicPEM is the public key as a PEM block of type PUBLIC KEY.
func (k *Key) PublicPEM() []byte { return k.public.PEM() }

// ID is the lower-case hexadecimal SHA-256 of the public key's SubjectPublicKeyInfo in DER.
func (k *Key) ID() string { return k.public.ID() }

// Sign signs a payload with SHA-256: ECDSA in ASN.1 DER, RSA PKCS #1 v1.5, or Ed25519. The same payload always gets the same
// signature.
func (k *Key) Sign(ctx context.Context, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	signature, err := k.sign(payload)
	if err != nil {
		return nil, fault.New(fault.Transient, fault.KeyUnavailable, fmt.Errorf("signing: %w", err))
	}
	return signature, nil
}

func readPassword(path string) ([]byte, error) {
	data, err := secretfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("password of the signing key: %w", err)
	}
	password := bytes.TrimRight(data, "\r\n")
	if len(password) == 0 {
		return nil, fmt.Errorf("password of the signing key: %s is empty", path)
	}
	return password, nil
}
