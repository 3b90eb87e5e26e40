//go:build pkcs11 && cgo

package keys

import "crypto"

// ECKey is ecKey.
func ECKey(params, point []byte) (crypto.PublicKey, error) { return ecKey(params, point) }

// DERSignature is derSignature.
func DERSignature(raw []byte) ([]byte, error) { return derSignature(raw) }

// CloseWhileALoginHangs closes an HSM's key that cannot be closed as long as the login holds what close needs.
func CloseWhileALoginHangs() error {
	k := &hsmKey{token: new(token)}
	k.token.entry.Lock()
	return k.close()
}
