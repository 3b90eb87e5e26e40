//go:build pkcs11 && cgo

package keys_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// FuzzPKCS11ECKey gives what a module may say of a public key. What is taken as a key must be one.
func FuzzPKCS11ECKey(f *testing.F) {
	oid := func(id ...int) []byte {
		der, err := asn1.Marshal(asn1.ObjectIdentifier(id))
		if err != nil {
			f.Fatal(err)
		}
		return der
	}
	f.Add(oid(1, 2, 840, 10045, 3, 1, 7), []byte{4, 1, 2})
	f.Add(oid(1, 3, 132, 0, 34), []byte{4, 97, 4})
	f.Add(oid(1, 3, 101, 112), make([]byte, 32))
	f.Add([]byte("\x13\x0cedwards25519"), make([]byte, 32))
	if key, ok := rawKeys()["p256"].(*ecdsa.PrivateKey); ok {
		point, err := key.PublicKey.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(oid(1, 2, 840, 10045, 3, 1, 7), point)
	}
	f.Fuzz(func(t *testing.T, params, point []byte) {
		public, err := keys.ECKey(params, point)
		if err != nil {
			return
		}
		switch key := public.(type) {
		case *ecdsa.PublicKey:
			if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
				t.Errorf("got the curve %s", key.Curve.Params().Name)
			}
		case ed25519.PublicKey:
			if len(key) != ed25519.PublicKeySize {
				t.Errorf("got an Ed25519 key of %d bytes", len(key))
			}
		default:
			t.Errorf("got a key of type %T", public)
		}
		if _, err := x509.MarshalPKIXPublicKey(public); err != nil {
			t.Errorf("the key cannot be encoded: %v", err)
		}
	})
}

// FuzzPKCS11Signature takes a signature apart again.
func FuzzPKCS11Signature(f *testing.F) {
	f.Add([]byte{1, 2})
	f.Add([]byte{0, 0x80, 0, 1})
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		der, err := keys.DERSignature(raw)
		if err != nil {
			if len(raw) > 0 && len(raw)%2 == 0 {
				t.Errorf("DERSignature(%x) = %v", raw, err)
			}
			return
		}
		var got struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(der, &got); err != nil || len(rest) > 0 {
			t.Fatalf("DERSignature(%x) = %x, which is no sequence: %v", raw, der, err)
		}
		half := len(raw) / 2
		if got.R.Cmp(new(big.Int).SetBytes(raw[:half])) != 0 || got.S.Cmp(new(big.Int).SetBytes(raw[half:])) != 0 {
			t.Errorf("DERSignature(%x) = %x, want its two halves", raw, der)
		}
	})
}
