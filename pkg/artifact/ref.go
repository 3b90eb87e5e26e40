// Package artifact is the vocabulary that all parts share: which manifest is meant ([Ref]), what is asked for it
// ([Request]) and what happened to it ([Event]).
//
// Everything here is a value without behaviour towards the outside. Whatever enters through a parser of this package is
// valid afterwards: the zero value and the results of the parsers are the only values that exist.
package artifact

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of names, as Harbor and the OCI distribution specification set them, in bytes.
const (
	maxProject    = 255
	maxRepository = 512
	maxTag        = 128
)

// Ref names one manifest: a repository and a digest. It is what is signed; tags are notes on it. Refs are comparable.
type Ref struct {
	repository string
	digest     string
}

// NewRef validates a full repository name (project included, such as "demo/team/app") and a digest
// ("sha256:" and 64 lower-case hexadecimal digits).
func NewRef(repository, digest string) (Ref, error) {
	if err := ValidateRepository(repository); err != nil {
		return Ref{}, err
	}
	if err := ValidateDigest(digest); err != nil {
		return Ref{}, err
	}
	return Ref{repository: repository, digest: digest}, nil
}

// ParseRef reads the form that String writes.
func ParseRef(s string) (Ref, error) {
	repository, digest, found := strings.Cut(s, "@")
	if !found {
		return Ref{}, errors.New("reference has no @: want project/repository@sha256:…")
	}
	return NewRef(repository, digest)
}

// Project is the first component of the repository: Harbor's project.
func (r Ref) Project() string {
	project, _, _ := strings.Cut(r.repository, "/")
	return project
}

// Name is the repository below its project, such as "team/app".
func (r Ref) Name() string {
	_, name, _ := strings.Cut(r.repository, "/")
	return name
}

// Repository is the full name, such as "demo/team/app".
func (r Ref) Repository() string { return r.repository }

// Digest is the manifest's digest, such as "sha256:…".
func (r Ref) Digest() string { return r.digest }

// IsZero says whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Sibling names another manifest of the same repository.
func (r Ref) Sibling(digest string) (Ref, error) { return NewRef(r.repository, digest) }

// String writes "project/repository@sha256:…", and nothing for the zero value.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return r.repository + "@" + r.digest
}

// MarshalText implements encoding.TextMarshaler.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. An empty text is the zero value.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	parsed, err := ParseRef(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// ValidateProject checks the name of a Harbor project.
func ValidateProject(name string) error {
	switch {
	case name == "":
		return errors.New("project name is empty")
	case len(name) > maxProject:
		return fmt.Errorf("project name has %d bytes, at most %d are allowed", len(name), maxProject)
	case !validComponent(name):
		return fmt.Errorf("project name %.64q: only a-z, 0-9 and single separators . _ - between them are allowed", name)
	}
	return nil
}

// ValidateRepository checks a full repository name: a project and at least one further component.
func ValidateRepository(name string) error {
	if len(name) > maxRepository {
		return fmt.Errorf("repository name has %d bytes, at most %d are allowed", len(name), maxRepository)
	}
	project, rest, found := strings.Cut(name, "/")
	if !found {
		return fmt.Errorf("repository %.64q: want project/name", name)
	}
	if err := ValidateProject(project); err != nil {
		return err
	}
	for component := range strings.SplitSeq(rest, "/") {
		if !validComponent(component) {
			return fmt.Errorf("repository %.64q: component %.64q is not valid", name, component)
		}
	}
	return nil
}

// ValidateDigest checks for "sha256:" and 64 lower-case hexadecimal digits, the only algorithm that Harbor gives to
// manifests.
func ValidateDigest(digest string) error {
	hex, found := strings.CutPrefix(digest, "sha256:")
	if !found || len(hex) != 64 || !isHex(hex) {
		return fmt.Errorf("digest %.80q: want sha256: and 64 lower-case hexadecimal digits", digest)
	}
	return nil
}

// ValidateTag checks a tag by the grammar of the OCI distribution specification.
func ValidateTag(tag string) error {
	if tag == "" || len(tag) > maxTag {
		return fmt.Errorf("tag has %d bytes, want 1 to %d", len(tag), maxTag)
	}
	for i, c := range []byte(tag) {
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("tag %.64q: character %q is not allowed at position %d", tag, c, i)
		}
	}
	return nil
}

// IsAccessoryTag says whether a tag is one that cosign gives to what it attaches: sha256-<hex>.sig, .att or .sbom.
func IsAccessoryTag(tag string) bool {
	rest, found := strings.CutPrefix(tag, "sha256-")
	if !found || len(rest) < 64 || !isHex(rest[:64]) {
		return false
	}
	switch rest[64:] {
	case ".sig", ".att", ".sbom":
		return true
	default:
		return false
	}
}

// validComponent checks one component of a name.
//
// SPEC: OCI distribution specification, "Pulling manifests": [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	if s == "" || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		switch {
		case isAlphanumeric(c), c == '-' && (s[i-1] == '-' || isAlphanumeric(s[i-1])):
		case c == '.' && isAlphanumeric(s[i-1]):
		case c == '_' && (isAlphanumeric(s[i-1]) || s[i-1] == '_' && isAlphanumeric(s[i-2])):
		default:
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
