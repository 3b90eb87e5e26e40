//go:build gcpkms || azurekms

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"

	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/harborseal/harborseal/pkg/redact"
)

// sigstoreKey is a key of a KMS whose provider dials by itself. Its credentials are the provider's own, from the environment
// of the program, and not known here.
type sigstoreKey struct {
	signer kms.SignerVerifier
	refuse func(crypto.PublicKey) error
}

func (k *sigstoreKey) publicKey(ctx context.Context) (crypto.PublicKey, error) {
	public, err := k.signer.PublicKey(options.WithContext(ctx))
	return public, explainPlain(err)
}

func (k *sigstoreKey) fits(public crypto.PublicKey) error { return k.refuse(public) }

func (k *sigstoreKey) sign(ctx context.Context, _ crypto.PublicKey, payload []byte) ([]byte, error) {
	signed, err := k.signer.SignMessage(bytes.NewReader(payload), options.WithContext(ctx))
	return signed, explainPlain(err)
}

// close has nothing to close: these providers offer no way.
func (k *sigstoreKey) close() error { return nil }

// explainPlain knows of these providers' errors those of the network alone: where they wait for somebody who does not answer, the
// timeout of the call tells the same.
func explainPlain(err error) error {
	return byNetwork(err, redactedText(err))
}

func redactedText(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(redact.New().Text(err.Error(), maxText))
}

func isP384(public crypto.PublicKey) bool {
	key, ok := public.(*ecdsa.PublicKey)
	return ok && key.Curve == elliptic.P384()
}
