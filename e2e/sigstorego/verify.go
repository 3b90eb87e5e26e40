package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
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

	// maxBlob bounds what is read of one signature, in bytes.
	maxBlob = 1 << 20
)

// verifier verifies with one key.
type verifier struct {
	sigstore *verify.Verifier
}

func newVerifier(pem []byte) (*verifier, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	// The key is trusted at all times and whatever a bundle's hint says: the hint is the signer's word.
	always := root.NewExpiringKey(key, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil })
	v, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("preparing sigstore-go: %w", err)
	}
	return &verifier{sigstore: v}, nil
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
	result, err := v.sigstore.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest(digest.Algorithm, sum), verify.WithKey()))
	if err != nil {
		return fmt.Errorf("sigstore-go refuses the bundle: %w", err)
	}
	if got := result.Statement.GetPredicateType(); got != signPredicate {
		return fmt.Errorf("the bundle is an attestation (%s), no signature", got)
	}
	return nil
}

// legacy looks for one layer of the .sig tag. sigstore-go knows nothing of that format, but verifies a signature over the
// payload; that the payload names the image is looked for here.
func (v *verifier) legacy(subject name.Digest, digest v1.Hash, options []remote.Option) error {
	img, err := remote.Image(subject.Context().Tag(strings.Replace(digest.String(), ":", "-", 1)+".sig"), options...)
	if err != nil {
		return fmt.Errorf("asking for the .sig tag: %w", err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("reading the .sig tag: %w", err)
	}
	refused := []error{errors.New("no signature under the .sig tag verifies")}
	for _, layer := range manifest.Layers {
		if string(layer.MediaType) != payloadType {
			continue
		}
		payload, err := blob(subject.Context().Digest(layer.Digest.String()), options)
		if err == nil {
			err = v.payload(payload, layer.Annotations[signatureAnnotation], digest)
		}
		if err == nil {
			return nil
		}
		refused = append(refused, fmt.Errorf("%s: %w", layer.Digest, err))
	}
	return errors.Join(refused...)
}

func (v *verifier) payload(payload []byte, encoded string, digest v1.Hash) error {
	signed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("reading a signature: %w", err)
	}
	hash, _, err := v1.SHA256(bytes.NewReader(payload))
	if err != nil {
		return fmt.Errorf("hashing a payload: %w", err)
	}
	sum, err := hex.DecodeString(hash.Hex)
	if err != nil {
		return fmt.Errorf("hashing a payload: %w", err)
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: bundleType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum},
			Signature:     signed,
		}},
	})
	if err != nil {
		return fmt.Errorf("reading a signature: %w", err)
	}
	if _, err := v.sigstore.Verify(b, verify.NewPolicy(verify.WithArtifact(bytes.NewReader(payload)), verify.WithKey())); err != nil {
		return fmt.Errorf("sigstore-go refuses the signature: %w", err)
	}
	var claim struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &claim); err != nil {
		return fmt.Errorf("reading a payload: %w", err)
	}
	if claim.Critical.Type != "cosign container image signature" || claim.Critical.Image.Digest != digest.String() {
		return fmt.Errorf("the signature is over %q", claim.Critical.Image.Digest)
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
