package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of Helm's OCI artifacts.
const (
	helmConfigType = "application/vnd.cncf.helm.config.v1+json"
	helmChartType  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// Developer pushes images, as docker, buildx or helm do.
type Developer struct {
	host     string
	insecure bool
	options  []remote.Option
}

// NewDeveloper makes a developer with the robot's credentials.
func (h *Harbor) NewDeveloper(robot Robot) *Developer {
	return &Developer{
		host:     h.Host,
		insecure: strings.HasPrefix(h.URL, "http://"),
		options: []remote.Option{
			remote.WithAuth(&authn.Basic{Username: robot.Name, Password: robot.Secret}),
			remote.WithTransport(&http.Transport{}), // Without a proxy, whatever the environment says.
			remote.WithUserAgent("harborseal-e2e"),
		},
	}
}

// Pushed is one manifest that was pushed.
type Pushed struct {
	Repository string
	Digest     string
	// Tag is empty for a push by digest.
	Tag string
	// Parent is the digest of the index that names it, if one does.
	Parent string
	// Children are the manifests that an index names.
	Children []Pushed
}

// All gives the manifest and its children.
func (p Pushed) All() []Pushed {
	all := []Pushed{p}
	for _, child := range p.Children {
		all = append(all, child.All()...)
	}
	return all
}

// NewImage makes a small random image, in OCI's or Docker's media types.
func NewImage(docker bool) (v1.Image, error) {
	img, err := random.Image(256, 1)
	if err != nil || docker {
		return img, wrap("making an image", err)
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}

// NewChart makes what helm push makes.
func NewChart() (v1.Image, error) {
	chart := static.NewLayer([]byte(Random("chart ")), helmChartType)
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: chart, MediaType: helmChartType})
	if err != nil {
		return nil, fmt.Errorf("making a chart: %w", err)
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), helmConfigType), nil
}

// NewIndex makes what a multi-platform build of buildx pushes: an image for each platform, and for each image an
// attestation manifest of platform unknown/unknown.
func NewIndex(platforms ...string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			return nil, fmt.Errorf("making an index: %w", err)
		}
		img, err := NewImage(false)
		if err != nil {
			return nil, err
		}
		digest, err := img.Digest()
		if err != nil {
			return nil, fmt.Errorf("making an index: %w", err)
		}
		attestation, err := NewImage(false)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}},
			mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
				Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{
					"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.String(),
				},
			}})
	}
	return index, nil
}

// Push pushes an image or an index under a tag, or by its digest where the tag is empty.
func (d *Developer) Push(ctx context.Context, repository, tag string, what remote.Taggable) (Pushed, error) {
	pushed, err := describe(repository, tag, what)
	if err != nil {
		return Pushed{}, err
	}
	ref, err := d.reference(repository, tag, pushed.Digest)
	if err != nil {
		return Pushed{}, err
	}
	options := append([]remote.Option{remote.WithContext(ctx)}, d.options...)
	switch content := what.(type) {
	case v1.Image:
		err = remote.Write(ref, content, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, content, options...)
	default:
		err = fmt.Errorf("%T is neither an image nor an index", what)
	}
	return pushed, wrap("pushing to "+repository, err)
}

// PutAgain sends a manifest that is there already once more, without asking first, as some clients do.
func (d *Developer) PutAgain(ctx context.Context, p Pushed, what remote.Taggable) error {
	ref, err := d.reference(p.Repository, p.Tag, p.Digest)
	if err != nil {
		return err
	}
	return wrap("pushing again to "+p.Repository, remote.Put(ref, what, append([]remote.Option{remote.WithContext(ctx)}, d.options...)...))
}

// Pull reads a manifest as docker pull does, and reads an image's layers too.
func (d *Developer) Pull(ctx context.Context, p Pushed) error {
	ref, err := d.reference(p.Repository, "", p.Digest)
	if err != nil {
		return err
	}
	descriptor, err := remote.Get(ref, append([]remote.Option{remote.WithContext(ctx)}, d.options...)...)
	if err != nil || descriptor.MediaType.IsIndex() {
		return wrap("pulling", err)
	}
	img, err := descriptor.Image()
	if err != nil {
		return wrap("pulling", err)
	}
	_, err = img.RawConfigFile()
	return wrap("pulling", err)
}

func (d *Developer) reference(repository, tag, digest string) (name.Reference, error) {
	var options []name.Option
	if d.insecure {
		options = append(options, name.Insecure)
	}
	target := d.host + "/" + repository + ":" + tag
	if tag == "" {
		target = d.host + "/" + repository + "@" + digest
	}
	ref, err := name.ParseReference(target, options...)
	return ref, wrap("naming an image", err)
}

func describe(repository, tag string, what remote.Taggable) (Pushed, error) {
	hashed, ok := what.(interface{ Digest() (v1.Hash, error) })
	if !ok {
		return Pushed{}, errors.New("describing a push: no digest")
	}
	digest, err := hashed.Digest()
	if err != nil {
		return Pushed{}, fmt.Errorf("describing a push: %w", err)
	}
	pushed := Pushed{Repository: repository, Digest: digest.String(), Tag: tag}
	index, ok := what.(v1.ImageIndex)
	if !ok {
		return pushed, nil
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return Pushed{}, fmt.Errorf("describing a push: %w", err)
	}
	for _, child := range manifest.Manifests {
		pushed.Children = append(pushed.Children, Pushed{Repository: repository, Digest: child.Digest.String(), Parent: pushed.Digest})
	}
	return pushed, nil
}

// hostOf gives host and port of an address.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	if u.Port() != "" {
		return u.Host
	}
	return u.Hostname() + map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// NewAccessory makes an image into one that refers to another manifest, as attestations and SBOMs do.
func NewAccessory(img v1.Image, subject Pushed) (v1.Image, error) {
	digest, err := v1.NewHash(subject.Digest)
	if err != nil {
		return nil, fmt.Errorf("making an accessory: %w", err)
	}
	refers, ok := mutate.Subject(img, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: 1}).(v1.Image)
	if !ok {
		return nil, errors.New("making an accessory: an image with a subject is no image")
	}
	return refers, nil
}
