package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	// layerType and signatureNote are what cosign calls a legacy signature and its bytes. Its packages have constants for
	// them, and hundreds of dependencies.
	layerType     = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureNote = "dev.cosignproject.cosign/signature"
	// maxLayers is how many signatures a manifest may carry, as in cosign.
	maxLayers = 1000
	// ordinarySize is the most bytes that the manifest of some signatures has.
	ordinarySize = 64 << 10
	// maxSignature is the longest signature that is looked at, in bytes: RSA with 4096 bits has 512.
	maxSignature = 1024
)

// descriptor is what a manifest says of a piece of its content.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Size         int64             `json:"size"`
	Digest       string            `json:"digest"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`

	// raw is what was read, where it was asked for.
	raw json.RawMessage
}

// imageManifest has its fields in the order in which cosign writes them.
type imageManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
}

// configBlob is the configuration of every signature manifest that this program makes. cosign writes one that differs from
// signature to signature into the legacy format; a constant one is in the repository already from the second signature on.
func configBlob() artifact.Blob {
	raw := []byte("{}")
	return artifact.Blob{Digest: artifact.DigestOf(raw), Raw: raw}
}

// parseManifest reads an image manifest. Its layers can be anything still; one that is no descriptor is an empty one here,
// because it says nothing about the others.
func parseManifest(raw []byte) (imageManifest, error) {
	if len(raw) > artifact.MaxManifest {
		return imageManifest{}, fault.Newf(fault.Permanent, fault.TooLarge, "the signature manifest has %d bytes, at most %d are read",
			len(raw), artifact.MaxManifest)
	}
	if !namesLayersOnce(raw) {
		if _, err := endOfLayers(raw); err != nil {
			return imageManifest{}, malformed(err)
		}
	}
	if m, ok := parseOrdinary(raw); ok {
		return m, nil
	}
	return parseStrange(raw)
}

// parseOrdinary reads a manifest all of whose parts are what they should be, which nearly all are, in one pass. A long one
// might be made of millions of layers: these are to be counted before they are read.
func parseOrdinary(raw []byte) (imageManifest, bool) {
	if len(raw) > ordinarySize {
		return imageManifest{}, false
	}
	var m struct {
		imageManifest

		Manifests *json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(raw, &m) != nil || m.Layers == nil || len(m.Layers) > maxLayers || m.Manifests != nil {
		return imageManifest{}, false
	}
	return m.imageManifest, true
}

func parseStrange(raw []byte) (imageManifest, error) {
	var m struct {
		Config       json.RawMessage    `json:"config"`
		Layers       *[]json.RawMessage `json:"layers"`
		Manifests    *json.RawMessage   `json:"manifests"`
		Subject      json.RawMessage    `json:"subject"`
		ArtifactType json.RawMessage    `json:"artifactType"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return imageManifest{}, malformed(err)
	}
	if m.Layers == nil || m.Manifests != nil {
		return imageManifest{}, malformed(errors.New("it is no image manifest"))
	}
	if len(*m.Layers) > maxLayers {
		return imageManifest{}, fault.Newf(fault.Permanent, fault.TooLarge, "the signature manifest has %d layers, at most %d are read: delete it and sign again",
			len(*m.Layers), maxLayers)
	}
	var p imageManifest
	p.Config = parseDescriptor(m.Config)
	p.Layers = make([]descriptor, len(*m.Layers))
	for i, layer := range *m.Layers {
		p.Layers[i] = parseDescriptor(layer)
	}
	var subject *descriptor
	if len(m.Subject) > 0 && json.Unmarshal(m.Subject, &subject) == nil {
		p.Subject = subject
	}
	if len(m.ArtifactType) > 0 && json.Unmarshal(m.ArtifactType, &p.ArtifactType) != nil {
		p.ArtifactType = ""
	}
	return p, nil
}

func parseDescriptor(raw []byte) descriptor {
	var d descriptor
	if len(raw) == 0 || json.Unmarshal(raw, &d) != nil {
		return descriptor{}
	}
	return d
}

// rawLayers gives the layers of a manifest that was parsed as they were written.
func rawLayers(raw []byte) ([]json.RawMessage, error) {
	var m struct {
		Layers []json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, malformed(err)
	}
	return m.Layers, nil
}

func malformed(err error) error {
	return fault.Newf(fault.Permanent, fault.Malformed,
		"what stands under the signature's tag carries no signatures, and is not overwritten: delete it, and a sweep or the next push signs: %w", err)
}

// splice inserts layers behind the last one and changes nothing else, because whoever wrote the rest may have meant more by
// it than this program knows.
func (p imageManifest) splice(raw []byte, layers ...[]byte) ([]byte, error) {
	if have := len(p.Layers); have+len(layers) > maxLayers {
		return nil, fault.Newf(fault.Permanent, fault.TooLarge,
			"the signature manifest carries %d signatures and would get %d more, at most %d are allowed: delete it and sign again",
			have, len(layers), maxLayers)
	}
	end, err := endOfLayers(raw)
	if err != nil {
		return nil, malformed(err)
	}
	separator := []byte(",")
	added := bytes.Join(layers, separator)
	if len(p.Layers) == 0 {
		separator = nil
	}
	spliced := slices.Concat(raw[:end], separator, added, raw[end:])
	if len(spliced) > artifact.MaxManifest {
		return nil, fault.Newf(fault.Permanent, fault.TooLarge,
			"with %d more signatures the signature manifest has %d bytes, at most %d are allowed: delete it and sign again",
			len(layers), len(spliced), artifact.MaxManifest)
	}
	return spliced, nil
}

// namesLayersOnce says that nothing in a manifest can be taken for a second "layers", without reading it as JSON once more:
// there is neither an escape nor a letter beyond ASCII that would fold into one. A false alarm costs no more than that.
func namesLayersOnce(raw []byte) bool {
	plain := !bytes.ContainsFunc(raw, func(r rune) bool { return r == '\\' || r >= utf8.RuneSelf })
	return plain && bytes.Contains(raw, []byte(`"layers"`)) && bytes.Count(bytes.ToLower(raw), []byte(`"layers"`)) == 1
}

// endOfLayers finds the offset behind the last element of the top-level array "layers", or behind its bracket if it has
// none. A manifest that could be read in two ways, because it has the name twice or in another case, is refused.
func endOfLayers(raw []byte) (int, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := expect(d, '{'); err != nil {
		return 0, err
	}
	end := 0
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return 0, err
		}
		key, ok := name.(string)
		if !ok {
			return 0, errors.New("a name is no string")
		}
		if !strings.EqualFold(key, "layers") {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return 0, err
			}
			continue
		}
		if end > 0 || key != "layers" {
			return 0, errors.New("its layers are ambiguous")
		}
		if end, err = skipArray(d); err != nil {
			return 0, err
		}
	}
	if end == 0 {
		return 0, errors.New("it has no layers")
	}
	return end, expect(d, '}')
}

// skipArray reads an array and gives the offset behind its last element, or behind its bracket if it has none.
func skipArray(d *json.Decoder) (int, error) {
	if err := expect(d, '['); err != nil {
		return 0, err
	}
	end := d.InputOffset()
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return 0, err
		}
		end = d.InputOffset()
	}
	return int(end), expect(d, ']')
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
