//go:build pkcs11 && cgo

package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// SPEC: PKCS #11 v3.0, 2.3.14: EdDSA, which the library does not name.
const mechanismEdDSA = 0x1057

// mechanismFor gives the mechanism that signs as cosign verifies.
func mechanismFor(public crypto.PublicKey) uint {
	switch public.(type) {
	case ed25519.PublicKey:
		return mechanismEdDSA
	case *ecdsa.PublicKey:
		return pkcs11.CKM_ECDSA
	default:
		return pkcs11.CKM_SHA256_RSA_PKCS
	}
}

// readPublic reads a public key object.
func readPublic(module *pkcs11.Ctx, handle pkcs11.SessionHandle, object pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	get := func(kinds ...uint) ([][]byte, error) {
		var template []*pkcs11.Attribute
		for _, kind := range kinds {
			template = append(template, pkcs11.NewAttribute(kind, nil))
		}
		attributes, err := module.GetAttributeValue(handle, object, template)
		if err != nil {
			return nil, fmt.Errorf("reading the public key: %w", err)
		}
		var values [][]byte
		for _, a := range attributes {
			values = append(values, a.Value)
		}
		return values, nil
	}
	rsaParts, err := get(pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
	if err == nil {
		return rsaKey(rsaParts[0], rsaParts[1])
	}
	ecParts, ecErr := get(pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT)
	if ecErr != nil {
		return nil, errors.Join(err, ecErr)
	}
	return ecKey(ecParts[0], ecParts[1])
}

func rsaKey(modulus, exponent []byte) (crypto.PublicKey, error) {
	e := new(big.Int).SetBytes(exponent)
	if !e.IsInt64() || e.Int64() > 1<<31-1 {
		return nil, errors.New("RSA key: its public exponent is too large")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}, nil
}

// ecKey reads the parameters and the point of an elliptic curve.
//
// SPEC: PKCS #11 v3.0, 2.3.3 and 2.3.5: the parameters are an OID, for Edwards curves also a printable string; the point is an
// OCTET STRING around the X9.62 point or the Edwards key. Some modules leave the OCTET STRING out.
func ecKey(params, point []byte) (crypto.PublicKey, error) {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) > 0 {
		inner = point
	}
	var oid asn1.ObjectIdentifier
	var name string
	if rest, err := asn1.Unmarshal(params, &oid); err == nil && len(rest) == 0 {
		name = oid.String()
	} else if _, err := asn1.Unmarshal(params, &name); err != nil {
		return nil, errors.New("elliptic curve: the curve is not named")
	}
	switch name {
	case "1.2.840.10045.3.1.7":
		return ecdsaKey(elliptic.P256(), inner)
	case "1.3.132.0.34":
		return ecdsaKey(elliptic.P384(), inner)
	case "1.3.101.112", "1.3.6.1.4.1.11591.15.1", "edwards25519":
		if len(inner) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("key of %d bytes for Ed25519, want %d", len(inner), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(inner), nil
	default:
		return nil, fmt.Errorf("elliptic curve %.40q: want P-256, P-384 or Ed25519", name)
	}
}

func ecdsaKey(curve elliptic.Curve, point []byte) (crypto.PublicKey, error) {
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("ECDSA key: %w", err)
	}
	return key, nil
}

// derSignature encodes the two halves of a signature.
//
// SPEC: PKCS #11 v3.0, 2.3.1: an ECDSA signature is r and s, each as long as the order of the curve.
func derSignature(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("ECDSA signature of %d bytes: want an even number", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}
