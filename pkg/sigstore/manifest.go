package sigstore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	// maxLayers is how many signatures a manifest may carry, as in cosign.
	maxLayers = 1000
	// maxPayload is the largest payload that is read, in bytes. Ours have some 300; annotations make them longer.
	maxPayload = 64 << 10
)

// descriptor is what a manifest says of a piece of its content.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type imageManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// configBlob is the configuration of every signature manifest that this program makes. cosign writes one that differs from
// signature to signature; a constant one is in the repository already from the second signature on.
func configBlob() artifact.Blob {
	raw := []byte("{}")
	return artifact.Blob{Digest: artifact.DigestOf(raw), Raw: raw}
}

// Append gives the manifest that carries a signature besides those of an existing one, which is nil if there is none, and
// the blobs that it needs and may lack: the payload and, if it is the constant one, the configuration. What stands in the
// existing manifest stays, byte for byte. A signature that is there already changes nothing: the result is the existing
// manifest then, without blobs.
//
// The fault is permanent: Malformed if the existing manifest carries something else than signatures, TooLarge if one more
// does not fit.
func (l *Legacy) Append(existing *artifact.Manifest, s artifact.Signature) (artifact.Manifest, []artifact.Blob, error) {
	layer := descriptor{
		MediaType:   types.SimpleSigningMediaType,
		Size:        int64(len(s.Payload)),
		Digest:      artifact.DigestOf(s.Payload),
		Annotations: map[string]string{static.SignatureAnnotationKey: base64.StdEncoding.EncodeToString(s.Bytes)},
	}
	blobs := []artifact.Blob{{Digest: layer.Digest, Raw: s.Payload}}
	config := configBlob()
	if existing == nil {
		raw, err := json.Marshal(imageManifest{
			SchemaVersion: 2, MediaType: manifestType, Layers: []descriptor{layer},
			Config: descriptor{MediaType: configType, Size: int64(len(config.Raw)), Digest: config.Digest},
		})
		if err != nil {
			return artifact.Manifest{}, nil, fmt.Errorf("writing a signature manifest: %w", err)
		}
		return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}, append(blobs, config), nil
	}
	parsed, err := parseManifest(existing.Raw)
	if err != nil {
		return artifact.Manifest{}, nil, err
	}
	for _, have := range parsed.Layers {
		if have.Digest == layer.Digest && have.Annotations[static.SignatureAnnotationKey] == layer.Annotations[static.SignatureAnnotationKey] {
			return *existing, nil, nil
		}
	}
	if len(parsed.Layers) >= maxLayers {
		return artifact.Manifest{}, nil, fault.Newf(fault.Permanent, fault.TooLarge,
			"the signature manifest carries %d signatures already, which is the limit: delete it and sign again", len(parsed.Layers))
	}
	raw, err := spliceLayer(existing.Raw, layer)
	if err != nil {
		return artifact.Manifest{}, nil, err
	}
	if len(raw) > artifact.MaxManifest {
		return artifact.Manifest{}, nil, fault.Newf(fault.Permanent, fault.TooLarge,
			"with one more signature the signature manifest has %d bytes, at most %d are allowed", len(raw), artifact.MaxManifest)
	}
	if parsed.Config.Digest == config.Digest {
		blobs = append(blobs, config)
	}
	return artifact.Manifest{MediaType: existing.MediaType, Digest: artifact.DigestOf(raw), Raw: raw}, blobs, nil
}

// parseManifest reads an image manifest. Its layers can be anything still; one that is no descriptor is an empty one here,
// because it says nothing about the others.
func parseManifest(raw []byte) (imageManifest, error) {
	if len(raw) > artifact.MaxManifest {
		return imageManifest{}, fault.Newf(fault.Permanent, fault.TooLarge, "the signature manifest has %d bytes, at most %d are read",
			len(raw), artifact.MaxManifest)
	}
	var m struct {
		Config    json.RawMessage    `json:"config"`
		Layers    *[]json.RawMessage `json:"layers"`
		Manifests *json.RawMessage   `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return imageManifest{}, malformed(err)
	}
	if m.Layers == nil || m.Manifests != nil {
		return imageManifest{}, malformed(errors.New("it is no image manifest"))
	}
	parsed := imageManifest{Config: parseDescriptor(m.Config), Layers: make([]descriptor, len(*m.Layers))}
	for i, layer := range *m.Layers {
		parsed.Layers[i] = parseDescriptor(layer)
	}
	return parsed, nil
}

func parseDescriptor(raw []byte) descriptor {
	var d descriptor
	if json.Unmarshal(raw, &d) != nil {
		return descriptor{}
	}
	return d
}

func malformed(err error) error {
	return fault.Newf(fault.Permanent, fault.Malformed,
		"what stands under the signature's tag carries no signatures, and is not overwritten: delete it, and a sweep or the next push signs: %w", err)
}

// spliceLayer inserts a layer behind the last one and changes nothing else, because whoever wrote the rest may have meant
// more by it than this program knows.
func spliceLayer(raw []byte, layer descriptor) ([]byte, error) {
	encoded, err := json.Marshal(layer)
	if err != nil {
		return nil, fmt.Errorf("writing a signature layer: %w", err)
	}
	at, empty, err := endOfLayers(raw)
	if err != nil {
		return nil, malformed(err)
	}
	separator := ","
	if empty {
		separator = ""
	}
	return bytes.Join([][]byte{raw[:at], []byte(separator), encoded, raw[at:]}, nil), nil
}

// endOfLayers finds the offset behind the last element of the top-level array "layers". A manifest that could be read in
// two ways, because it has the name twice or in another case, is refused.
func endOfLayers(raw []byte) (at int, empty bool, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := expect(d, '{'); err != nil {
		return 0, false, err
	}
	found := false
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return 0, false, err
		}
		key, ok := name.(string)
		if !ok {
			return 0, false, errors.New("a name is no string")
		}
		if !strings.EqualFold(key, "layers") {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return 0, false, err
			}
			continue
		}
		if found || key != "layers" {
			return 0, false, errors.New("its layers are ambiguous")
		}
		found = true
		if at, empty, err = skipArray(d); err != nil {
			return 0, false, err
		}
	}
	if err := expect(d, '}'); err != nil {
		return 0, false, err
	}
	if !found {
		return 0, false, errors.New("it has no layers")
	}
	return at, empty, nil
}

// skipArray reads an array and gives the offset behind its last element, or behind its bracket if it has none.
func skipArray(d *json.Decoder) (at int, empty bool, err error) {
	if err := expect(d, '['); err != nil {
		return 0, false, err
	}
	at, empty = int(d.InputOffset()), true
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return 0, false, err
		}
		at, empty = int(d.InputOffset()), false
	}
	return at, empty, expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("want %s", want)
	}
	return nil
}
