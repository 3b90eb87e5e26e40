package sigstore

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Append gives the manifest that carries a signature besides those of an existing one, which is nil if there is none, and
// the blobs that it needs and may lack: the payload and, if it is the constant one, the configuration. What stands in the
// existing manifest stays, byte for byte. A signature that is there already changes nothing: the result is the existing
// manifest then, without blobs.
//
// The fault is permanent: Malformed if the existing manifest is something else, such as an image, TooLarge if one more
// does not fit.
func (l *Legacy) Append(existing *artifact.Manifest, s artifact.Signature) (artifact.Manifest, []artifact.Blob, error) {
	layer := descriptor{
		MediaType:   layerType,
		Size:        int64(len(s.Payload)),
		Digest:      artifact.DigestOf(s.Payload),
		Annotations: map[string]string{signatureNote: base64.StdEncoding.EncodeToString(s.Bytes)},
	}
	blobs := []artifact.Blob{{Digest: layer.Digest, Raw: s.Payload}}
	config := configBlob()
	if existing == nil {
		m, err := newManifest(imageManifest{
			Layers: []descriptor{layer},
			Config: descriptor{MediaType: configType, Size: int64(len(config.Raw)), Digest: config.Digest},
		})
		return m, append(blobs, config), err
	}
	parsed, err := parseManifest(existing.Raw)
	if err != nil {
		return artifact.Manifest{}, nil, err
	}
	if slices.ContainsFunc(parsed.Layers, isImageLayer) {
		return artifact.Manifest{}, nil, malformed(errors.New("it is an image"))
	}
	if slices.ContainsFunc(parsed.Layers, func(have descriptor) bool { return carriesSignature(have) && identityOf(have) == identityOf(layer) }) {
		return *existing, nil, nil
	}
	encoded, err := json.Marshal(layer)
	if err != nil {
		return artifact.Manifest{}, nil, fmt.Errorf("writing a signature layer: %w", err)
	}
	raw, err := parsed.splice(existing.Raw, encoded)
	if err != nil {
		return artifact.Manifest{}, nil, err
	}
	if parsed.Config.Digest == config.Digest {
		blobs = append(blobs, config)
	}
	return artifact.Manifest{MediaType: existing.MediaType, Digest: artifact.DigestOf(raw), Raw: raw}, blobs, nil
}

// isImageLayer recognises a layer of a file system. What else may stand beside signatures is left to whoever put it there.
func isImageLayer(layer descriptor) bool {
	return strings.HasPrefix(layer.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(layer.MediaType, "application/vnd.docker.image.")
}

// Merge gives the manifest that carries the signatures of the current one, which is nil if there is none, and those that
// only the others carry. What stands in the current manifest stays, byte for byte; what is added has all the annotations
// that it had, and stands in an order that depends on the set of the others alone. Where a signature has different further
// annotations in two of the others, the layer with more of them is taken. If nothing is to be added, the result is the
// current manifest; the zero Manifest, if there is none.
//
// Others that cannot be read, are beyond the limits of [Legacy.Verify] or carry no signature are passed over. The fault is
// permanent, as in [Legacy.Append]. The blobs are those of the others, so that nothing is to be uploaded.
func (l *Legacy) Merge(current *artifact.Manifest, others []artifact.Manifest) (artifact.Manifest, error) {
	readable := readSigned(others)
	if current == nil {
		if len(readable) == 0 {
			return artifact.Manifest{}, nil
		}
		current = &readable[0].manifest
	}
	parsed, err := parseManifest(current.Raw)
	if err != nil {
		return artifact.Manifest{}, err
	}
	if slices.ContainsFunc(parsed.Layers, isImageLayer) {
		return artifact.Manifest{}, malformed(errors.New("it is an image"))
	}
	missing := lacking(parsed.Layers, readable)
	if len(missing) == 0 {
		return *current, nil
	}
	raw, err := parsed.splice(current.Raw, missing...)
	if err != nil {
		return artifact.Manifest{}, err
	}
	return artifact.Manifest{MediaType: current.MediaType, Digest: artifact.DigestOf(raw), Raw: raw}, nil
}

// lacking gives the layers of the others whose signatures are not among the layers, in the order of the others.
func lacking(layers []descriptor, others []signed) [][]byte {
	have := make(map[identity]bool, len(layers))
	for _, layer := range layers {
		have[identityOf(layer)] = carriesSignature(layer) || have[identityOf(layer)]
	}
	var missing []descriptor
	place := make(map[identity]int)
	for _, other := range others {
		for _, layer := range other.layers {
			id := identityOf(layer)
			at, seen := place[id]
			switch {
			case have[id]:
			case !seen:
				place[id] = len(missing)
				missing = append(missing, layer)
			case len(layer.Annotations) > len(missing[at].Annotations):
				missing[at] = layer
			}
		}
	}
	raw := make([][]byte, len(missing))
	for i, layer := range missing {
		raw[i] = layer.raw
	}
	return raw
}

// identity is what makes two layers the same signature, whatever else is noted beside it. A wrong size keeps verifiers from
// reading the payload: such a layer must not stand for the right one.
type identity struct {
	payload, signature string
	size               int64
}

func identityOf(layer descriptor) identity {
	return identity{payload: layer.Digest, signature: layer.Annotations[signatureNote], size: layer.Size}
}

// signed is a manifest and its layers that are signatures.
type signed struct {
	manifest artifact.Manifest
	layers   []descriptor
}

// readSigned gives the manifests that carry signatures, sorted by their digests.
func readSigned(manifests []artifact.Manifest) []signed {
	var readable []signed
	for _, m := range manifests {
		parsed, err := parseManifest(m.Raw)
		if err != nil {
			continue
		}
		raw, err := rawLayers(m.Raw)
		if err != nil {
			continue
		}
		m.Digest = artifact.DigestOf(m.Raw)
		s := signed{manifest: m}
		for i, layer := range parsed.Layers {
			if carriesSignature(layer) {
				layer.raw = raw[i]
				s.layers = append(s.layers, layer)
			}
		}
		if len(s.layers) > 0 {
			readable = append(readable, s)
		}
	}
	slices.SortFunc(readable, func(a, b signed) int {
		// Two media types for the same bytes: the set decides here too.
		if order := strings.Compare(a.manifest.Digest, b.manifest.Digest); order != 0 {
			return order
		}
		return strings.Compare(a.manifest.MediaType, b.manifest.MediaType)
	})
	return readable
}

// newManifest writes a manifest of this program's own.
func newManifest(m imageManifest) (artifact.Manifest, error) {
	m.SchemaVersion, m.MediaType = 2, manifestType
	raw, err := json.Marshal(m)
	if err != nil {
		return artifact.Manifest{}, fmt.Errorf("writing a signature manifest: %w", err)
	}
	return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}, nil
}
