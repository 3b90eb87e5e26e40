//go:build azurekms

package keys

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"

	"github.com/sigstore/sigstore/pkg/signature/kms/azure"
)

func azurekmsProvider() provider {
	return provider{scheme: "azurekms", build: "with the tag azurekms", open: func(ctx context.Context, s Source) (remote, error) {
		if err := azure.ValidReference(s.KMS); err != nil {
			return nil, err
		}
		// The provider keeps this context for calls of its own, which must outlive Open's.
		signer, err := azure.LoadSignerVerifier(context.WithoutCancel(ctx), s.KMS)
		if err != nil {
			return nil, redactedText(err)
		}
		return &sigstoreKey{signer: signer, refuse: refuseAzure}, nil
	}}
}

// refuseAzure knows the hash that sigstore's provider takes by the size of the key: SHA-256 for P-256 and for RSA with 2048
// bits alone.
func refuseAzure(public crypto.PublicKey) error {
	key, isRSA := public.(*rsa.PublicKey)
	if isP384(public) || isRSA && key.N.BitLen() != 2048 {
		return errors.New("sigstore's provider for Azure signs with SHA-256 for P-256 and RSA of 2048 bits alone, and `cosign verify --key` " +
			"expects SHA-256: take one of these")
	}
	return nil
}
