package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pushesAtOnce is how many manifests PushMany sends at the same time.
const pushesAtOnce = 8

// rawManifest is a manifest whose blobs are in the registry already.
type rawManifest []byte

// RawManifest implements remote.Taggable.
func (m rawManifest) RawManifest() ([]byte, error) { return m, nil }

// MediaType makes the registry be told of it.
func (rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// PushMany pushes n small images into one repository, a tag each: they share their blobs, so that each costs one request.
func (d *Developer) PushMany(ctx context.Context, repository string, n int) ([]Pushed, error) {
	img, err := NewImage(false)
	if err != nil {
		return nil, err
	}
	// The first one brings the blobs, and is one of them.
	first, err := d.Push(ctx, repository, "n0", img)
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("making images: %w", err)
	}
	pusher, err := remote.NewPusher(d.options...)
	if err != nil {
		return nil, fmt.Errorf("pushing many images: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]Pushed, n)
	all[0] = first
	var workers sync.WaitGroup
	for worker := range pushesAtOnce {
		workers.Go(func() {
			for i := 1 + worker; i < n && ctx.Err() == nil; i += pushesAtOnce {
				one, err := d.pushOne(ctx, pusher, repository, "n"+strconv.Itoa(i), manifest)
				if err != nil {
					cancel(err)
				}
				all[i] = one
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("pushing many images: %w", err)
	}
	return all, nil
}

// pushOne pushes a manifest that only its tag, in an annotation, makes another one.
func (d *Developer) pushOne(ctx context.Context, pusher *remote.Pusher, repository, tag string, like *v1.Manifest) (Pushed, error) {
	manifest := like.DeepCopy()
	manifest.Annotations = map[string]string{"com.example.number": tag}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return Pushed{}, fmt.Errorf("making an image: %w", err)
	}
	ref, err := d.reference(repository, tag, "")
	if err != nil {
		return Pushed{}, err
	}
	if err := pusher.Push(ctx, ref, rawManifest(raw)); err != nil {
		return Pushed{}, err
	}
	return describeRaw(repository, tag, raw)
}

func describeRaw(repository, tag string, raw []byte) (Pushed, error) {
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return Pushed{}, fmt.Errorf("describing a push: %w", err)
	}
	return Pushed{Repository: repository, Digest: digest.String(), Tag: tag}, nil
}
