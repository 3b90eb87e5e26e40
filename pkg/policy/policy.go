// Package policy decides, purely, whether a manifest is signed, and says why.
//
// It reads nothing and remembers nothing: the caller brings the policy of the project as it is now and what it knows of
// the manifest. The same input gives the same decision, so the receiver's guess and the signer's decision differ only if
// the policy or the manifest did.
package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Reason is why a manifest is not signed, from a closed set: it may be a metric label and stands in the report.
type Reason string

// The reasons. They are part of the ledger's vocabulary: a reason is added, never renamed.
const (
	NotEnabled  Reason = "project_not_enabled"
	IsAccessory Reason = "accessory"
	NotAPush    Reason = "not_a_push"    // an event of another type
	OwnPush     Reason = "own_signature" // the event of a signature that this service attached
)

// Policy is what one project asks for.
type Policy struct {
	// Enabled says whether manifests of the project are signed.
	Enabled bool
	// Revision names the version of the policies that this one was read from; every event carries it.
	Revision string
}

// Subject is what the signer knows of a manifest after it has read it.
type Subject struct {
	Ref artifact.Ref
	// Accessory says that the manifest belongs to another one: a signature, an attestation, an SBOM.
	Accessory bool
}

// Decision is the answer for one manifest.
type Decision struct {
	Sign   bool
	Reason Reason // why not; empty if Sign
}

// Admit decides for a project, before anything is known of the manifest.
func Admit(p Policy) Decision {
	if !p.Enabled {
		return Decision{Reason: NotEnabled}
	}
	return Decision{Sign: true}
}

// Decide decides for a manifest.
func Decide(p Policy, s Subject) Decision {
	if d := Admit(p); !d.Sign {
		return d
	}
	if s.Accessory {
		return Decision{Reason: IsAccessory}
	}
	return Decision{Sign: true}
}

// Set holds the policies of all projects, by name and by glob. It is immutable and safe for concurrent use.
type Set struct {
	patterns []string
	revision string
}

// NewSet makes a set in which the projects that a pattern names are enabled. A pattern is a project's name, or a glob in
// the syntax of path.Match.
func NewSet(patterns []string) (*Set, error) {
	var errs []error
	for i, p := range patterns {
		err := artifact.ValidateProject(p)
		if IsGlob(p) {
			_, err = path.Match(p, "")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("projects[%d] %.64q: want a Harbor project's name, or a glob: %w", i, p, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(patterns)
	if err != nil {
		return nil, fmt.Errorf("computing the revision: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return &Set{patterns: patterns, revision: hex.EncodeToString(sum[:6])}, nil
}

// Lookup gives the policy of a project. A project that nothing names has a policy that is not enabled.
func (s *Set) Lookup(project string) Policy {
	p := Policy{Revision: s.revision}
	for _, pattern := range s.patterns {
		if match(pattern, project) {
			p.Enabled = true
			break
		}
	}
	return p
}

// Patterns gives the names and globs that the set was made of. It must not be changed.
func (s *Set) Patterns() []string { return s.patterns }

// IsGlob says whether a pattern can match more than one project.
func IsGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[\\`) }

// match never sees a malformed pattern: NewSet refuses them.
func match(pattern, name string) bool {
	matched, err := path.Match(pattern, name)
	return err == nil && matched
}

// Policy is Lookup in the form that use cases ask for: theirs may come from elsewhere, wait and fail.
func (s *Set) Policy(_ context.Context, project string) (Policy, error) {
	return s.Lookup(project), nil
}
