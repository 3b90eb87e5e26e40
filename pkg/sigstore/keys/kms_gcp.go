//go:build gcpkms

package keys

import (
	"context"
	"crypto"
	"errors"

	"github.com/sigstore/sigstore/pkg/signature/kms/gcp"
)

func gcpkmsProvider() provider {
	return provider{scheme: "gcpkms", build: "with the tag gcpkms", open: func(ctx context.Context, s Source) (remote, error) {
		if err := gcp.ValidReference(s.KMS); err != nil {
			return nil, err
		}
		// The provider keeps this context for calls of its own, which must outlive Open's.
		signer, err := gcp.LoadSignerVerifier(context.WithoutCancel(ctx), s.KMS)
		if err != nil {
			return nil, redactedText(err)
		}
		return &sigstoreKey{signer: signer, refuse: refuseGCP}, nil
	}}
}

// refuseGCP knows what the curve tells; an RSA key for SHA-512 or PSS fails at the trial signature.
//
// SPEC: Cloud KMS, Key purposes and algorithms: P-384 signs with SHA-384 alone.
func refuseGCP(public crypto.PublicKey) error {
	if isP384(public) {
		return errors.New("with the curve P-384, Cloud KMS signs a SHA-384, and `cosign verify --key` expects a SHA-256: take EC_SIGN_P256_SHA256 or " +
			"RSA_SIGN_PKCS1_…_SHA256")
	}
	return nil
}
