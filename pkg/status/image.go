package status

import (
	"errors"
	"fmt"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// maxImage is above what any reference takes, in bytes: a host, a repository, a tag and a digest.
const maxImage = 1024

// latest is the tag of a reference that names none, as for every client of a registry.
const latest = "latest"

// Image is a reference as people write it, checked. The zero value is none.
type Image struct {
	// Repository is the full name, such as demo/team/app.
	Repository string
	// Tag may be empty where there is a digest.
	Tag string
	// Digest is empty for a reference by tag. It counts before the tag.
	Digest string
}

// ParseImage reads host/project/repository[:tag][@digest]. host is the one that images are pulled from, with its port where it has
// one; upper and lower case of it do not matter, and no other host is taken. The error says what is wrong, for the caller.
func ParseImage(host, image string) (Image, error) {
	want := "want " + host + "/project/repository:tag or " + host + "/project/repository@sha256:…"
	switch {
	case image == "":
		return Image{}, errors.New("is empty: " + want)
	case len(image) > maxImage:
		return Image{}, fmt.Errorf("has %d bytes, at most %d are allowed: %s", len(image), maxImage, want)
	case strings.Contains(image, "://"):
		return Image{}, errors.New("has a scheme: " + want)
	}
	got, rest, found := strings.Cut(image, "/")
	switch {
	case !found:
		return Image{}, errors.New("has no repository: " + want)
	case lower(got) != lower(host):
		return Image{}, fmt.Errorf("is of another host: only images of %s are known here", host)
	}
	name, digest, byDigest := strings.Cut(rest, "@")
	i := Image{Repository: name, Digest: digest}
	colon := strings.LastIndexByte(name, ':')
	tagged := colon > strings.LastIndexByte(name, '/')
	if tagged {
		i.Repository, i.Tag = name[:colon], name[colon+1:]
	}
	if err := artifact.ValidateRepository(i.Repository); err != nil {
		return Image{}, err
	}
	if tagged {
		if err := artifact.ValidateTag(i.Tag); err != nil {
			return Image{}, err
		}
	}
	switch {
	case byDigest:
		if err := artifact.ValidateDigest(digest); err != nil {
			return Image{}, err
		}
	case !tagged:
		i.Tag = latest
	}
	return i, nil
}

// Ref names the manifest of a digest in the image's repository.
func (i Image) Ref(digest string) (artifact.Ref, error) { return artifact.NewRef(i.Repository, digest) }

// At writes the reference as it is pulled from a host.
func (i Image) At(host string) string {
	s := host + "/" + i.Repository
	if i.Tag != "" {
		s += ":" + i.Tag
	}
	if i.Digest != "" {
		s += "@" + i.Digest
	}
	return s
}

// lower changes letters of ASCII alone: others have no place in a host, and some of them fold into ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
