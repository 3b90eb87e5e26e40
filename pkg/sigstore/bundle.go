package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	bundleType      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	emptyConfigType = "application/vnd.oci.empty.v1+json"
	contentNote     = "dev.sigstore.bundle.content"
	predicateNote   = "dev.sigstore.bundle.predicateType"
	// MaxBundle is the largest bundle that is read, in bytes: a payload of the largest size in base64, again so in an entry
	// of a transparency log (in base64 twice), and a certificate, timestamps and proofs.
	MaxBundle = 256 << 10
)

// Bundles is the sigstore bundle as cosign v3 attaches it: each signature is a bundle (v0.3, with an in-toto statement in a
// DSSE envelope) in a manifest of its own that refers to the subject. It is immutable and safe for concurrent use.
type Bundles struct {
	keys *Keyring
}

// NewBundles gives the format with the keys whose signatures count.
func NewBundles(r *Keyring) *Bundles { return &Bundles{keys: r} }

// Candidate says whether a referrer may be a bundle that holds a signature. Harbor's listings show the annotation by which
// attestations are told apart. Where there is none, the type decides and the manifest has to be read; where there is one,
// the type does not matter: some registries list that of the configuration in its place.
func (b *Bundles) Candidate(d artifact.Descriptor) bool {
	if predicate, noted := d.Annotations[predicateNote]; noted {
		return predicate == signPredicate
	}
	return d.ArtifactType == bundleType
}

// Compose gives the manifest of a signature, with its log entry and timestamp, and the blobs that it needs: the bundle and
// the empty configuration. The same arguments give the same bytes: there is no time of creation in them. A signature that is
// none of a bundle over the subject is a permanent fault, Malformed; so is a log entry without an inclusion proof. Whether the
// entry and the timestamp are good is not looked at.
//
// SPEC: sigstore bundle format v0.3; cosign's BUNDLE_SPEC for the manifest. The hint is cosign's: the SHA-256 of the public key.
func (b *Bundles) Compose(s artifact.Signature, subject artifact.Descriptor) (artifact.Manifest, []artifact.Blob, error) {
	id, err := hex.DecodeString(s.KeyID)
	switch {
	case s.Format != artifact.Bundle:
		err = fmt.Errorf("the signature is of the format %.32q", string(s.Format))
	case err != nil || len(id) != sha256.Size:
		err = errors.New("the signature has no key id")
	case artifact.ValidateDigest(subject.Digest) != nil || subject.MediaType == "" || subject.Size <= 0:
		err = fmt.Errorf("the subject %.80q lacks a digest, type or size", subject.Digest)
	case !statementMakes(s.Payload, artifact.Claim{Digest: subject.Digest}):
		err = fmt.Errorf("the signature is not over the subject %.80q", subject.Digest)
	case s.Entry != nil && s.Entry.Proof == nil:
		err = errors.New("its log entry has no inclusion proof")
	}
	if err != nil {
		return artifact.Manifest{}, nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("composing a bundle: %w", err))
	}
	content := protoBundle{MediaType: bundleType}
	content.Material = newMaterial(s, id)
	content.Envelope.Payload, content.Envelope.PayloadType = s.Payload, payloadType
	content.Envelope.Signatures = []dsseSignature{{Signature: s.Bytes}}
	raw, err := encode(content)
	if err != nil {
		return artifact.Manifest{}, nil, fmt.Errorf("composing a bundle: %w", err)
	}
	config := configBlob()
	blob := artifact.Blob{Digest: artifact.DigestOf(raw), Raw: raw}
	m, err := newManifest(imageManifest{
		Config:       descriptor{MediaType: emptyConfigType, Size: int64(len(config.Raw)), Digest: config.Digest, ArtifactType: bundleType},
		Layers:       []descriptor{{MediaType: bundleType, Size: int64(len(raw)), Digest: blob.Digest}},
		Annotations:  map[string]string{contentNote: "dsse-envelope", predicateNote: signPredicate},
		Subject:      &descriptor{MediaType: subject.MediaType, Size: subject.Size, Digest: subject.Digest},
		ArtifactType: bundleType,
	})
	return m, []artifact.Blob{blob, config}, err
}

// Verify gives the signature in a bundle's manifest if it is valid for the claim: the manifest refers to the claim's
// digest, and the bundle holds a statement of the type by which cosign signs, about this digest alone, under exactly one
// signature, which verifies with a key that is known and not revoked, or with a certificate of such an identity, which was
// alive at each time that is proven, of which there is one at least. Attestations are none, whoever signed them. Log entry and
// timestamp come along where they are proven; what is not is as if it were not there.
//
// What cannot be read, has unknown fields or is beyond the limits (a manifest of 4 MiB with one layer, a bundle of
// [MaxBundle], a payload of 64 KiB) holds no signature. A failing fetch is an error, unless it says that the bundle does not
// exist or is too large.
func (b *Bundles) Verify(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) ([]artifact.Signature, error) {
	layer, ok := bundleLayer(m, claim.Digest)
	if !ok {
		return nil, nil
	}
	raw, err := fetchBlob(ctx, layer, fetch)
	if err != nil {
		return nil, err
	}
	f, ok := readBundle(raw)
	if !ok || !statementMakes(f.Payload, claim) {
		return nil, nil
	}
	var s artifact.Signature
	if len(f.Certificates) > 0 {
		s, ok = b.keys.keyless(f.Signature, f.timestamps)
	} else {
		s, ok = b.keys.byKey(f)
	}
	if !ok {
		return nil, nil
	}
	return []artifact.Signature{s}, nil
}

// bundleLayer gives the layer of a manifest that may be a bundle about a digest.
func bundleLayer(m artifact.Manifest, digest string) (descriptor, bool) {
	parsed, err := parseManifest(m.Raw)
	if err != nil || parsed.ArtifactType != bundleType || parsed.Subject == nil || parsed.Subject.Digest != digest || len(parsed.Layers) != 1 {
		return descriptor{}, false
	}
	layer := parsed.Layers[0]
	return layer, layer.MediaType == bundleType && layer.Size > 0 && layer.Size <= MaxBundle && artifact.ValidateDigest(layer.Digest) == nil
}

// readBundle reads a bundle with the library that verifiers read it with, so that none reads something else in it.
func readBundle(raw []byte) (found, bool) {
	var parsed bundle.Bundle
	if parsed.UnmarshalJSON(raw) != nil || parsed.GetMediaType() != bundleType {
		return found{}, false
	}
	envelope := parsed.GetDsseEnvelope()
	if envelope == nil || len(envelope.GetSignatures()) != 1 || envelope.GetPayloadType() != payloadType || len(envelope.GetPayload()) > maxPayload {
		return found{}, false
	}
	f, ok := readMaterial(parsed.GetVerificationMaterial())
	f.Format, f.Payload, f.Bytes = artifact.Bundle, envelope.GetPayload(), envelope.GetSignatures()[0].GetSig()
	return f, ok
}
