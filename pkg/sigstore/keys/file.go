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

	"github.com/harborseal/harborseal/pkg/secretfile"
)

// pkcs8Type is the PEM type of a PKCS #8 key that is not encrypted.
const pkcs8Type = "PRIVATE KEY"

// LoadFile reads a private key from a PEM file. Files that the group or others may use are refused.
//
//   - A key that cosign encrypted (type ENCRYPTED SIGSTORE PRIVATE KEY or ENCRYPTED COSIGN PRIVATE KEY) is decrypted with the
//     password in a second file, whose final line break is ignored. That takes some tenths of a second by design and happens
//     here alone.
//   - A PKCS #8 key (type PRIVATE KEY) is not encrypted: passwordFile must be empty. The file's mode is all that guards it.
//
// The key is deterministic, and has signed something that verifies when LoadFile returns.
func LoadFile(path, passwordFile string) (*Key, error) {
	data, err := secretfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer clear(data)
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("signing key %s is no PEM file: want an encrypted cosign key, as `signer generate-key` or `cosign generate-key-pair` "+
			"writes it, or PKCS #8", path)
	}
	defer clear(block.Bytes)
	der := block.Bytes
	switch block.Type {
	case cosign.SigstorePrivateKeyPemType, cosign.CosignPrivateKeyPemType:
		if der, err = decrypt(path, passwordFile, block.Bytes); err != nil {
			return nil, err
		}
		defer clear(der)
	case pkcs8Type:
		if passwordFile != "" {
			return nil, fmt.Errorf("signing key %s is not encrypted, yet there is a password file for it: leave that out, or encrypt the key with "+
				"`cosign import-key-pair`", path)
		}
	default:
		return nil, fmt.Errorf("signing key %s is a PEM block of type %.64q: %s", path, block.Type, adviceFor(block.Type))
	}
	key, err := parsePrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return key, nil
}

func adviceFor(pemType string) string {
	switch pemType {
	case "ENCRYPTED PRIVATE KEY":
		return "encrypted PKCS #8 is not read: turn it into a cosign key with `cosign import-key-pair`"
	case "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return "turn it into a cosign key with `cosign import-key-pair`, or into PKCS #8 with `openssl pkcs8 -topk8 -nocrypt`"
	default:
		return fmt.Sprintf("want %q or %q", cosign.SigstorePrivateKeyPemType, pkcs8Type)
	}
}

func decrypt(path, passwordFile string, data []byte) ([]byte, error) {
	if passwordFile == "" {
		return nil, fmt.Errorf("signing key %s is encrypted: name the file that holds its password", path)
	}
	password, err := readPassword(passwordFile)
	if err != nil {
		return nil, err
	}
	defer clear(password)
	der, err := encrypted.Decrypt(data, password)
	if err != nil {
		// The library's error tells a wrong password and a damaged file apart as little as the cipher does.
		return nil, fmt.Errorf("signing key %s cannot be decrypted: the password in %s is wrong, or the file is damaged", path, passwordFile)
	}
	return der, nil
}

// parsePrivateKey never repeats what a parser said about key material.
func parsePrivateKey(der []byte) (*Key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("it holds no PKCS #8 private key of a known kind")
	}
	return newKey(parsed)
}

// newKey makes signers that are deterministic: the same payload gets the same signature. For ECDSA that is RFC 6979,
// which Go uses when there is no source of randomness; SignASN1 and sigstore's own signers stay random.
func newKey(parsed any) (*Key, error) {
	k := &Key{deterministic: true}
	var public crypto.PublicKey
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		public = key.Public()
		k.sign = func(_ context.Context, payload []byte) ([]byte, error) {
			sum := sha256.Sum256(payload)
			return key.Sign(nil, sum[:], crypto.SHA256)
		}
	case *rsa.PrivateKey:
		public = key.Public()
		k.sign = func(_ context.Context, payload []byte) ([]byte, error) {
			sum := sha256.Sum256(payload)
			return rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		}
	case ed25519.PrivateKey:
		public = key.Public()
		k.sign = func(_ context.Context, payload []byte) ([]byte, error) { return ed25519.Sign(key, payload), nil }
	default:
		return nil, fmt.Errorf("key of type %T: want ECDSA, Ed25519 or RSA", parsed)
	}
	var err error
	if k.public, err = newPublicKey(public); err != nil {
		return nil, err
	}
	if err := prove(k.public, func(probe []byte) ([]byte, error) { return k.sign(context.Background(), probe) }); err != nil {
		return nil, err
	}
	return k, nil
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
