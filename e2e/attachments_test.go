//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	ociname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// reading are the options for looking at the registry with the developer's credentials.
func (w *world) reading(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(&http.Transport{DisableKeepAlives: true}),
		remote.WithAuth(&authn.Basic{Username: w.site.Developer.Name, Password: w.site.Developer.Secret}),
	}
}

func (w *world) repository(t *testing.T, name string) ociname.Repository {
	t.Helper()
	var options []ociname.Option
	if strings.HasPrefix(w.site.Harbor.URL, "http://") {
		options = append(options, ociname.Insecure)
	}
	repository, err := ociname.NewRepository(w.site.Harbor.Host+"/"+name, options...)
	if err != nil {
		t.Fatal(err)
	}
	return repository
}

const (
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	predicateNote = "dev.sigstore.bundle.predicateType"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	signatureNote = "dev.cosignproject.cosign/signature"
)

// legacyLayers are the signatures that stand under the .sig tag.
func (w *world) legacyLayers(ctx context.Context, t *testing.T, p harness.Pushed) ([]v1.Descriptor, error) {
	t.Helper()
	img, err := remote.Image(w.repository(t, p.Repository).Tag(checker.SignatureTag(p.Digest)), w.reading(ctx)...)
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(manifest.Layers, func(d v1.Descriptor) bool { return d.MediaType != simpleSigning }), nil
}

// referrers are the manifests that refer to another one.
func (w *world) referrers(t *testing.T, p harness.Pushed) []v1.Descriptor {
	t.Helper()
	index, err := remote.Referrers(w.repository(t, p.Repository).Digest(p.Digest), w.reading(t.Context())...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests
}

// signatureBundles are the referrers that are bundles with a signature.
func (w *world) signatureBundles(t *testing.T, p harness.Pushed) []v1.Descriptor {
	t.Helper()
	return slices.DeleteFunc(w.referrers(t, p), func(d v1.Descriptor) bool {
		return d.ArtifactType != bundleType || d.Annotations[predicateNote] != signPredicate
	})
}

// blob reads a blob.
func (w *world) blob(t *testing.T, repository string, digest v1.Hash) []byte {
	t.Helper()
	layer, err := remote.Layer(w.repository(t, repository).Digest(digest.String()), w.reading(t.Context())...)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // everything was read
	raw, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// layers are those of a manifest.
func (w *world) layers(t *testing.T, repository, digest string) []v1.Descriptor {
	t.Helper()
	img, err := remote.Image(w.repository(t, repository).Digest(digest), w.reading(t.Context())...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Layers
}

// rawManifest is a manifest as it is written.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// put uploads blobs and a manifest, whatever is in it, under a tag, or by its digest where that is empty.
func (w *world) put(t *testing.T, repository, tag string, manifest any, blobs ...[]byte) {
	t.Helper()
	to, options := w.repository(t, repository), w.reading(t.Context())
	for _, raw := range blobs {
		if err := remote.WriteLayer(to, static.NewLayer(raw, types.OCIUncompressedLayer), options...); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var ref ociname.Reference = to.Tag(tag)
	if tag == "" {
		ref = to.Digest(describeBlob("", raw, nil).Digest.String())
	}
	if err := remote.Put(ref, rawManifest(raw), options...); err != nil {
		t.Fatal(err)
	}
}

// describeBlob gives the descriptor of a blob.
func describeBlob(mediaType string, raw []byte, annotations map[string]string) v1.Descriptor {
	digest, size, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		panic(err) // a buffer can be read
	}
	return v1.Descriptor{MediaType: types.MediaType(mediaType), Digest: digest, Size: size, Annotations: annotations}
}

// manifestOf is an OCI manifest with the configuration "{}".
func manifestOf(layers ...v1.Descriptor) map[string]any {
	return map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": describeBlob(string(types.OCIConfigJSON), emptyConfig(), nil), "layers": layers,
	}
}

// bundleOf is the manifest of a bundle that refers to a subject.
func bundleOf(subject harness.Pushed, bundle []byte) (map[string]any, error) {
	digest, err := v1.NewHash(subject.Digest)
	if err != nil {
		return nil, err
	}
	m := manifestOf(describeBlob(bundleType, bundle, nil))
	m["artifactType"] = bundleType
	m["subject"] = v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: 1}
	m["annotations"] = map[string]string{predicateNote: signPredicate}
	return m, nil
}

func emptyConfig() []byte { return []byte("{}") }
