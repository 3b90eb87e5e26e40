package canary

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Image is a tiny image that nobody has pushed before: one layer without files.
type Image struct {
	Manifest artifact.Manifest
	// Blobs are to be pushed before the manifest.
	Blobs []artifact.Blob
}

// NewImage makes an image. The title says to people what it is for.
//
// SPEC: OCI image specification, image manifest and configuration.
func NewImage(title string, now time.Time) (Image, error) {
	layer, diff, err := emptyLayer()
	if err != nil {
		return Image{}, fmt.Errorf("making an image: %w", err)
	}
	configuration, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": now.UTC().Format(time.RFC3339),
		"config": map[string]any{"Labels": map[string]string{"org.opencontainers.image.title": title + " " + rand.Text()}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff}},
	})
	if err != nil {
		return Image{}, fmt.Errorf("making an image: %w", err)
	}
	describe := func(mediaType string, raw []byte) artifact.Descriptor {
		return artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaType,
		"config": describe("application/vnd.oci.image.config.v1+json", configuration),
		"layers": []artifact.Descriptor{describe("application/vnd.oci.image.layer.v1.tar+gzip", layer)},
	})
	if err != nil {
		return Image{}, fmt.Errorf("making an image: %w", err)
	}
	i := Image{Manifest: artifact.Manifest{MediaType: mediaType, Digest: artifact.DigestOf(raw), Raw: raw}}
	for _, blob := range [][]byte{layer, configuration} {
		i.Blobs = append(i.Blobs, artifact.Blob{Digest: artifact.DigestOf(blob), Raw: blob})
	}
	return i, nil
}

// emptyLayer gives an archive without files, compressed, and the digest of what it is compressed of.
func emptyLayer() (layer []byte, diff string, err error) {
	empty := make([]byte, 1024)
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(empty); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), artifact.DigestOf(empty), nil
}
