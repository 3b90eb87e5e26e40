package inspect

import (
	"context"
	"sync"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// maxRequests and maxBytes bound what one question may cost the registry.
	maxRequests = 300
	maxBytes    = 32 << 20
)

// Registry is the OCI registry. Each method makes one attempt and returns a fault: Gone if the registry said that the thing is
// not there. Implementations are safe for concurrent use.
type Registry interface {
	// Manifest reads a manifest by tag or digest. Its content is checked against the digest that was asked for.
	Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error)
	// Blob reads a blob of at most limit bytes and checks its digest.
	Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error)
	// Referrers lists the manifests that refer to a digest.
	Referrers(ctx context.Context, repository, digest string) ([]artifact.Descriptor, error)
}

// view is the registry as one question sees it: each thing is read once, so that the verdict and what is shown rest on the same
// bytes, and nothing can be written. What fails is not asked for again either.
type view struct {
	registry Registry

	mu        sync.Mutex // held while the registry is asked: one thing at a time
	requests  int
	bytes     int
	manifests map[string]answered[artifact.Manifest]
	blobs     map[string]answered[[]byte]
	referrers map[string]answered[[]artifact.Descriptor]
}

type answered[T any] struct {
	value T
	err   error
}

func newView(registry Registry) *view {
	return &view{
		registry: registry, manifests: map[string]answered[artifact.Manifest]{}, blobs: map[string]answered[[]byte]{},
		referrers: map[string]answered[[]artifact.Descriptor]{},
	}
}

func (v *view) Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error) {
	return once(v, v.manifests, reference, func() (artifact.Manifest, int, error) {
		m, err := v.registry.Manifest(ctx, repository, reference)
		return m, len(m.Raw), err
	})
}

func (v *view) Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error) {
	return once(v, v.blobs, digest, func() ([]byte, int, error) {
		raw, err := v.registry.Blob(ctx, repository, digest, limit)
		return raw, len(raw), err
	})
}

func (v *view) Referrers(ctx context.Context, repository, digest string) ([]artifact.Descriptor, error) {
	return once(v, v.referrers, digest, func() ([]artifact.Descriptor, int, error) {
		listed, err := v.registry.Referrers(ctx, repository, digest)
		return listed, 0, err
	})
}

// PushBlob and PutManifest implement the registry of package signing: who only looks writes nothing.
func (v *view) PushBlob(context.Context, string, artifact.Blob) error { return errReadOnly() }

// PutManifest refuses, as PushBlob.
func (v *view) PutManifest(context.Context, string, string, artifact.Manifest) error {
	return errReadOnly()
}

func errReadOnly() error {
	return fault.Newf(fault.Permanent, fault.Denied, "who looks at an image writes nothing")
}

// once reads what was not read before.
func once[T any](v *view, known map[string]answered[T], name string, read func() (T, int, error)) (T, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a, found := known[name]; found {
		return a.value, a.err
	}
	if v.requests >= maxRequests || v.bytes >= maxBytes {
		var none T
		return none, fault.Newf(fault.Permanent, fault.TooLarge,
			"looking at the image takes more than %d requests or %d bytes: delete signatures and bundles of others that are not needed", maxRequests, maxBytes)
	}
	v.requests++
	var a answered[T]
	var size int
	a.value, size, a.err = read()
	v.bytes += size
	known[name] = a
	return a.value, a.err
}
