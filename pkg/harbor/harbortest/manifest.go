package harbortest

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Media types that the registry treats specially.
const (
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeHelmConfig     = "application/vnd.cncf.helm.config.v1+json"
	typeSimpleSigning  = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeCosignArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
	typeBundle         = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeNotation       = "application/vnd.cncf.notary.signature"
)

// Artifact and accessory types, as the API names them.
const (
	kindImage           = "IMAGE"
	kindChart           = "CHART"
	kindUnknown         = "UNKNOWN"
	accessoryCosign     = "signature.cosign"
	accessoryNotation   = "signature.notation"
	accessorySubject    = "subject.accessory"
	iconImage           = "sha256:0048162a053eef4d4ce3fe7518615bef084403614f8bca43b40ae2e762e11e06"
	iconChart           = "sha256:61cf3a178ff0f75bf08a25d96b75cf7355dc197749a9f128ed3ef34b0df05518"
	iconUnknown         = "sha256:da834479c923584f4cbcdecc0dac61f32bef1d51e8aae598cf16bd154efab49f"
	iconCosignSignature = "sha256:20401d5b3a0f6dbc607c8d732eb08471af4ae6b19811a4efce8c6a724aed2882"
)

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *platformJSON     `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
}

type platformJSON struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// manifest is an image manifest or an index, OCI's or Docker's.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Manifests     []descriptor      `json:"manifests"`
	Subject       *descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// parseManifest reads a manifest whose media type the request names.
func parseManifest(mediaType string, raw []byte) (*manifest, error) {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	m := new(manifest)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, errManifestInvalid(err.Error())
	}
	if m.MediaType == "" {
		m.MediaType = mediaType
	}
	if mediaType != "" && mediaType != m.MediaType {
		return nil, errManifestInvalid("mediaType in manifest should be '" + mediaType + "' not '" + m.MediaType + "'")
	}
	switch m.MediaType {
	case typeOCIManifest, typeDockerManifest:
		if m.Config.Digest == "" {
			return nil, errManifestInvalid("manifest has no config")
		}
	case typeOCIIndex, typeDockerList:
	default:
		return nil, errManifestInvalid("unknown manifest media type " + m.MediaType)
	}
	return m, nil
}

func (m *manifest) isIndex() bool {
	return m.MediaType == typeOCIIndex || m.MediaType == typeDockerList
}

// blobs lists what the manifest needs in its repository.
func (m *manifest) blobs() []descriptor {
	if m.isIndex() {
		return nil
	}
	return append([]descriptor{m.Config}, m.Layers...)
}

// accessoryKind is how a release of Harbor classifies a manifest with a subject: by its type alone, nothing is verified.
func (m *manifest) accessoryKind(r release) string {
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	switch {
	case kind == typeCosignArtifact, kind == typeBundle && r.has(minorBundles):
		return accessoryCosign
	case kind == typeNotation:
		return accessoryNotation
	default:
		return accessorySubject
	}
}

// legacySubject tells which digest a push to a cosign tag (sha256-<hex>.sig) signs.
func (m *manifest) legacySubject(tagName string) (digest.Digest, bool) {
	match := regexp.MustCompile(`^sha256-([0-9a-f]{64})\.sig$`).FindStringSubmatch(tagName)
	if match == nil {
		return "", false
	}
	for _, layer := range m.Layers {
		if layer.MediaType == typeSimpleSigning {
			return digest.NewDigestFromEncoded(digest.SHA256, match[1]), true
		}
	}
	return "", false
}

// describe fills an artifact with what Harbor reads out of the manifest and its config blob.
func (m *manifest) describe(a *artifact, config []byte) {
	a.manifestType, a.annotations, a.kind = m.MediaType, m.Annotations, kindUnknown
	if m.isIndex() {
		a.mediaType, a.artifactType, a.kind = m.MediaType, m.ArtifactType, kindImage
		return
	}
	a.mediaType, a.artifactType = m.Config.MediaType, m.ArtifactType
	if a.artifactType == "" {
		a.artifactType = m.Config.MediaType
	}
	switch m.Config.MediaType {
	case typeOCIConfig, typeDockerConfig:
		a.kind, a.extra = kindImage, imageAttributes(config)
	case typeHelmConfig:
		a.kind = kindChart
		if json.Unmarshal(config, &a.extra) != nil {
			a.extra = nil // A chart whose config is no JSON shows nothing of it.
		}
	default:
		custom := regexp.MustCompile(`^application/vnd\.[^.]*\.(.*)\.config\.[^.]*`)
		if match := custom.FindStringSubmatch(a.mediaType); match != nil {
			a.kind = strings.ToUpper(match[1])
		}
	}
}

// imageAttributes are the fields of an image config that Harbor shows.
func imageAttributes(config []byte) map[string]any {
	var fields struct {
		Architecture string         `json:"architecture"`
		Author       string         `json:"author"`
		Created      *time.Time     `json:"created"`
		OS           string         `json:"os"`
		Config       map[string]any `json:"config"`
	}
	if json.Unmarshal(config, &fields) != nil {
		return nil // Harbor takes any bytes for a config and shows what it understands.
	}
	if fields.Config == nil {
		fields.Config = map[string]any{}
	}
	if labels, ok := fields.Config["Labels"].(map[string]any); ok && fields.Author == "" {
		fields.Author, _ = labels["maintainer"].(string)
	}
	return map[string]any{
		"architecture": fields.Architecture, "author": fields.Author, "config": fields.Config,
		"created": fields.Created, "os": fields.OS,
	}
}

func validDigest(raw string) (digest.Digest, bool) {
	d := digest.Digest(raw)
	return d, d.Validate() == nil
}
