package main

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/harborseal/harborseal/e2e/chaos/plan"
	"github.com/harborseal/harborseal/e2e/harness"
)

// contentOf makes what an action speaks of. The same number in the same project and run is the same content.
func contentOf(seed uint64, a plan.Action) (remote.Taggable, error) {
	name := fmt.Sprintf("%d %s/%s %d", seed, a.Project, a.Repository, a.Number)
	if !a.Index {
		return image(name)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range []string{"amd64", "arm64"} {
		img, err := image(name + " " + architecture)
		if err != nil {
			return nil, err
		}
		platform := v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: platform})
	}
	return index, nil
}

// image makes a small image of a text.
func image(text string) (v1.Image, error) {
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer: static.NewLayer([]byte(text), types.OCIUncompressedLayer), MediaType: types.OCIUncompressedLayer,
	})
	if err != nil {
		return nil, fmt.Errorf("making an image: %w", err)
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
}

// subject describes what an action speaks of, without pushing it.
func (w *world) subject(a plan.Action) (harness.Pushed, error) {
	content, err := contentOf(w.seed, a)
	if err != nil {
		return harness.Pushed{}, err
	}
	hashed, ok := content.(interface{ Digest() (v1.Hash, error) })
	if !ok {
		return harness.Pushed{}, fmt.Errorf("%T has no digest", content)
	}
	digest, err := hashed.Digest()
	if err != nil {
		return harness.Pushed{}, fmt.Errorf("describing an image: %w", err)
	}
	p := harness.Pushed{Repository: a.Project + "/" + a.Repository, Digest: digest.String()}
	index, ok := content.(v1.ImageIndex)
	if !ok {
		return p, nil
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return harness.Pushed{}, fmt.Errorf("describing an index: %w", err)
	}
	for _, child := range manifest.Manifests {
		p.Children = append(p.Children, harness.Pushed{Repository: p.Repository, Digest: child.Digest.String(), Parent: p.Digest})
	}
	return p, nil
}
