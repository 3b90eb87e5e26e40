package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

const (
	formatBundle = "bundle"
	formatLegacy = "legacy"

	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// signPredicate is what cosign signs with. Any other type is an attestation, which says something else about the image.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	// SPEC: cosign, specs/SIGNATURE_SPEC.md: the legacy format's layers.
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	// The annotations beside it.
	entryAnnotation       = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	certificateAnnotation = "dev.sigstore.cosign/certificate"

	// maxBlob bounds what is read of one signature, in bytes.
	maxBlob = 1 << 20
)

// verifier verifies by one key or identity.
type verifier struct {
	sigstore *verify.Verifier
	by       verify.PolicyOption
}

// verify gives the digest that the image's name stands for, once a signature over it was found in the format.
func (v *verifier) verify(ctx context.Context, image, format string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("reading the name: %w", err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	head, err := remote.Head(ref, options...)
	if err != nil {
		return "", fmt.Errorf("asking for the image: %w", err)
	}
	subject := ref.Context().Digest(head.Digest.String())
	check := v.bundles
	switch format {
	case formatBundle:
	case formatLegacy:
		check = v.legacy
	default:
		return "", fmt.Errorf("format %q: want bundle or legacy", format)
	}
	return head.Digest.String(), check(subject, head.Digest, options)
}

// bundles looks for one bundle that is a signature: others may have attached bundles of their own.
func (v *verifier) bundles(subject name.Digest, digest v1.Hash, options []remote.Option) error {
	index, err := remote.Referrers(subject, options...)
	if err != nil {
		return fmt.Errorf("asking for referrers: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("reading the referrers: %w", err)
	}
	refused := []error{errors.New("no bundle of the image verifies")}
	for _, referrer := range manifest.Manifests {
		if referrer.ArtifactType != bundleType {
			continue
		}
		raw, err := onlyLayer(subject.Context().Digest(referrer.Digest.String()), options)
		if err == nil {
			err = v.bundle(raw, digest)
		}
		if err == nil {
			return nil
		}
		refused = append(refused, fmt.Errorf("%s: %w", referrer.Digest, err))
	}
	return errors.Join(refused...)
}

func (v *verifier) bundle(raw []byte, digest v1.Hash) error {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return fmt.Errorf("reading a bundle: %w", err)
	}
	sum, err := hex.DecodeString(digest.Hex)
	if err != nil {
		return fmt.Errorf("reading the digest: %w", err)
	}
	result, err := v.sigstore.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest(digest.Algorithm, sum), v.by))
	if err != nil {
		return fmt.Errorf("sigstore-go refuses the bundle: %w", err)
	}
	if got := result.Statement.GetPredicateType(); got != signPredicate {
		return fmt.Errorf("the bundle is an attestation (%s), no signature", got)
	}
	return nil
}

// onlyLayer gives the content of an artifact's one layer.
func onlyLayer(ref name.Digest, options []remote.Option) ([]byte, error) {
	img, err := remote.Image(ref, options...)
	if err != nil {
		return nil, fmt.Errorf("asking for a bundle: %w", err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("reading a bundle's manifest: %w", err)
	}
	if len(manifest.Layers) != 1 {
		return nil, fmt.Errorf("a bundle's manifest has %d layers", len(manifest.Layers))
	}
	return blob(ref.Context().Digest(manifest.Layers[0].Digest.String()), options)
}

// blob reads a blob; the library compares it with its digest.
func blob(ref name.Digest, options []remote.Option) ([]byte, error) {
	layer, err := remote.Layer(ref, options...)
	if err != nil {
		return nil, fmt.Errorf("asking for a blob: %w", err)
	}
	reader, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("reading a blob: %w", err)
	}
	defer func() { _ = reader.Close() }()
	raw, err := io.ReadAll(io.LimitReader(reader, maxBlob+1))
	if err == nil && len(raw) > maxBlob {
		err = fmt.Errorf("it has more than %d bytes", maxBlob)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a blob: %w", err)
	}
	return raw, nil
}
