package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxManifest is the largest manifest that is read, in bytes: Harbor's own limit.
const MaxManifest = 4 << 20

// ErrUnsupported says that a manifest is of a kind that cannot carry a signature, such as Docker's schema 1.
var ErrUnsupported = errors.New("unsupported manifest")

// Manifest is a manifest as the registry holds it.
type Manifest struct {
	// MediaType is what the registry calls it; it may differ from what the manifest says of itself.
	MediaType string
	// Digest is the digest of Raw.
	Digest string
	Raw    []byte
}

// Blob is a content-addressed piece that a manifest refers to.
type Blob struct {
	Digest string
	Raw    []byte
}

// Descriptor is what a registry's listing says of a manifest that refers to another one.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// DigestOf gives "sha256:…" of the content.
func DigestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Description is what a manifest says of itself, as far as signing needs it.
type Description struct {
	MediaType string
	// Accessory says that the manifest belongs to another one.
	Accessory bool
	// Subject is the digest of that other manifest where the manifest names it.
	Subject string
	// Children are the digests that an index names, without repetition, in its order; nil for an image.
	Children []string
}

// Describe reads a manifest. mediaType is the registry's word for it, used where the manifest says nothing of itself. The
// error wraps [ErrUnsupported] or says what cannot be read. Buildkit's attestation manifests (platform unknown/unknown)
// are children like others, because Harbor's pull policy asks for every manifest.
func Describe(raw []byte, mediaType string) (Description, error) {
	var m struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
		ArtifactType  string `json:"artifactType"`
		Config        *struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Layers []struct {
			MediaType string `json:"mediaType"`
		} `json:"layers"`
		Manifests *[]struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
		Subject *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	if len(raw) > MaxManifest {
		return Description{}, fmt.Errorf("manifest has %d bytes, at most %d are read", len(raw), MaxManifest)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return Description{}, fmt.Errorf("reading the manifest: %w", err)
	}
	if m.SchemaVersion == 1 {
		return Description{}, fmt.Errorf("manifest of schema version 1: push the image with a current client: %w", ErrUnsupported)
	}
	d := Description{MediaType: m.MediaType}
	if d.MediaType == "" {
		d.MediaType = mediaType
	}
	if m.Subject != nil {
		d.Accessory, d.Subject = true, m.Subject.Digest
	}
	types := []string{m.ArtifactType}
	if m.Config != nil {
		types = append(types, m.Config.MediaType)
	}
	// A legacy signature has an ordinary image configuration: its layers alone tell.
	for _, layer := range m.Layers {
		types = append(types, layer.MediaType)
	}
	for _, t := range types {
		d.Accessory = d.Accessory || isSignatureType(t)
	}
	if m.Manifests == nil {
		return d, nil
	}
	d.Children = []string{}
	seen := make(map[string]bool, len(*m.Manifests))
	for i, child := range *m.Manifests {
		if err := ValidateDigest(child.Digest); err != nil {
			return Description{}, fmt.Errorf("manifests[%d]: %w", i, err)
		}
		if !seen[child.Digest] {
			seen[child.Digest] = true
			d.Children = append(d.Children, child.Digest)
		}
	}
	return d, nil
}

// isSignatureType recognises what cosign and sigstore attach.
func isSignatureType(mediaType string) bool {
	for _, prefix := range []string{
		"application/vnd.dev.cosign.",           // simple signing layers, artifact types of the referrer modes
		"application/vnd.dev.cosignproject.",    // older names of the same
		"application/vnd.dev.sigstore.",         // bundles
		"application/vnd.cncf.notary.signature", // another signer's signature is no image either
		"application/vnd.dsse.envelope.v1+json", // legacy attestations
	} {
		if strings.HasPrefix(mediaType, prefix) {
			return true
		}
	}
	return false
}
