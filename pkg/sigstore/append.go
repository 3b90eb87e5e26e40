package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Append gives the manifest that carries a signature, with its log entry, timestamp and certificates, besides those of an
// existing one, which is nil if there is none, and the blobs that it needs and may lack: the payload and, if it is the constant
// one, the configuration. What stands in the existing manifest stays, byte for byte.
//
// If the signature is there already, its layer, and nothing else, gets what it lacks; what it has, and is proven, stays although
// s has another. Only where there is something in the place of a log entry or timestamp that is not proven, a second layer
// carries the same signature. If nothing is lacking, the result is the existing manifest. There are no blobs in these cases but
// for the second layer. An entry of Rekor v2 has no place in this format and is left out.
//
// The fault is permanent: Malformed if the existing manifest is something else, such as an image, TooLarge if one more
// does not fit.
func (l *Legacy) Append(existing *artifact.Manifest, s artifact.Signature) (artifact.Manifest, []artifact.Blob, error) {
	notes, err := notesOf(s)
	if err != nil {
		return artifact.Manifest{}, nil, err
	}
	layer := descriptor{MediaType: layerType, Size: int64(len(s.Payload)), Digest: artifact.DigestOf(s.Payload), Annotations: notes}
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
	at, missing, there := l.standing(parsed.Layers, layer, s)
	switch {
	case there && len(missing) == 0:
		return *existing, nil, nil
	case there && completable(existing.Raw)[at]:
		raw, err := parsed.complete(existing.Raw, completions{at: missing})
		return artifact.Manifest{MediaType: existing.MediaType, Digest: artifact.DigestOf(raw), Raw: raw}, nil, err
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

// standing finds the layer that carries a signature already and lacks least of its notes; false if there is none, or none that
// could be completed.
func (l *Legacy) standing(layers []descriptor, want descriptor, s artifact.Signature) (at int, missing map[string]string, there bool) {
	for i, have := range layers {
		if !carriesSignature(have) || identityOf(have) != identityOf(want) {
			continue
		}
		lacks, ok := l.lacks(have, want, s)
		if ok && (!there || len(lacks) < len(missing)) {
			at, missing, there = i, lacks, true
		}
	}
	return at, missing, there
}

// lacks gives the notes that a layer has not of those that it should have; false if it has something else in such a place
// that is not proven.
func (l *Legacy) lacks(have, want descriptor, s artifact.Signature) (missing map[string]string, ok bool) {
	missing = make(map[string]string)
	for name, text := range want.Annotations {
		there, noted := have.Annotations[name]
		switch {
		case !noted:
			missing[name] = text
		case there != text && !l.asGood(name, have, s):
			return nil, false
		}
	}
	return missing, true
}

// asGood says whether what a layer has under a name does for a signature what the signature's own would.
func (l *Legacy) asGood(name string, have descriptor, s artifact.Signature) bool {
	there := readNotes(have.Annotations)
	switch name {
	case entryNote:
		s.Entry = there.Entry
		return l.keys.trust.entry(s) != nil
	case timestampNote:
		stamp, _ := l.keys.trust.stamped(there.timestamps, s.Bytes)
		return stamp != nil
	case certificateNote:
		return len(there.Certificates) > 0 && bytes.Equal(there.Certificates[0], s.Certificates[0])
	case chainNote:
		return len(there.Certificates) > 1
	default:
		return false
	}
}

// isImageLayer recognises a layer of a file system. What else may stand beside signatures is left to whoever put it there.
func isImageLayer(layer descriptor) bool {
	return strings.HasPrefix(layer.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(layer.MediaType, "application/vnd.docker.image.")
}

// Merge gives the manifest that carries the signatures of the current one, which is nil if there is none, and those that
// only the others carry. What stands in the current manifest stays, byte for byte; what is added has all the annotations
// that it had, and stands in an order that depends on the set of the others alone. Where a signature has different further
// annotations in two of the others, the layer with more material (log entry, timestamp, certificates), then that with more of
// them, is taken. A layer gets the material that it has not and another one of the same signature has, so that a writer who
// knew nothing of a log entry cannot undo it; material that does not fit is left out. If nothing is to be added, the result is
// the current manifest; the zero Manifest, if there is none.
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
	raw := current.Raw
	if missing := lacking(parsed.Layers, readable); len(missing) > 0 {
		if raw, err = parsed.splice(raw, missing...); err != nil {
			return artifact.Manifest{}, err
		}
		if parsed, err = parseManifest(raw); err != nil {
			return artifact.Manifest{}, err
		}
	}
	completed, err := parsed.complete(raw, lackingMaterial(raw, parsed.Layers, readable))
	switch {
	case err == nil:
		raw = completed
	case fault.Of(err).Reason != fault.TooLarge: // which must keep no signature from coming back
		return artifact.Manifest{}, err
	}
	if len(raw) == len(current.Raw) { // both only add
		return *current, nil
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
			case fuller(layer, missing[at]):
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

func fuller(a, b descriptor) bool {
	if m, n := materialOf(a), materialOf(b); m != n {
		return m > n
	}
	return len(a.Annotations) > len(b.Annotations)
}

// lackingMaterial gives the material that the others have for the layers, the first one of each kind, and these have not. Each
// note is read once, however many copies of a signature there are.
func lackingMaterial(raw []byte, layers []descriptor, others []signed) completions {
	wanted := make(map[identity]map[string]string, len(layers)) // what there is for a signature
	for _, layer := range layers {
		if carriesSignature(layer) {
			wanted[identityOf(layer)] = make(map[string]string)
		}
	}
	for _, other := range others {
		for _, from := range other.layers {
			if notes := wanted[identityOf(from)]; notes != nil {
				offer(notes, from)
			}
		}
	}
	more := make(completions)
	for i, layer := range layers {
		if carriesSignature(layer) {
			more.add(i, layer, wanted[identityOf(layer)])
		}
	}
	if len(more) > 0 {
		ends := completable(raw)
		maps.DeleteFunc(more, func(i int, _ map[string]string) bool { return !ends[i] })
	}
	return more
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
