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
	// Terms are how they are signed.
	Terms Terms
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
	cfg      SetConfig
	revision string
}

// SetConfig is what a Set is made of.
type SetConfig struct {
	// Projects are the names and globs, in the syntax of path.Match, of the projects that are enabled.
	Projects []string
	// Default are the terms of projects that no rule names, and what rules leave open.
	Default Terms
	// Rules: the first one that names a project is its rule. A rule enables nothing.
	Rules []Rule
}

// NewSet validates the configuration and reports all that is wrong at once.
func NewSet(cfg SetConfig) (*Set, error) {
	errs := []error{checkPatterns("projects", cfg.Projects)}
	cfg.Default = cfg.Default.or(Terms{Format: FormatAuto}).clone()
	errs = append(errs, cfg.Default.Format.Validate())
	rules := make([]Rule, len(cfg.Rules))
	for i, rule := range cfg.Rules {
		errs = append(errs, checkPatterns(fmt.Sprintf("rules[%d].projects", i), rule.Projects))
		rules[i] = Rule{Projects: rule.Projects, Terms: rule.Terms.or(cfg.Default).clone()}
		if err := rules[i].Terms.Format.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("rules[%d]: %w", i, err))
		}
	}
	cfg.Rules = rules
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("computing the revision: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return &Set{cfg: cfg, revision: hex.EncodeToString(sum[:6])}, nil
}

// Lookup gives the policy of a project. A project that nothing names has a policy that is not enabled.
func (s *Set) Lookup(project string) Policy {
	p := Policy{Revision: s.revision, Terms: s.cfg.Default}
	for _, pattern := range s.cfg.Projects {
		if match(pattern, project) {
			p.Enabled = true
			break
		}
	}
	for _, rule := range s.cfg.Rules {
		if rule.names(project) {
			p.Terms = rule.Terms
			break
		}
	}
	return p
}

// Terms gives all terms that a project may have: the default ones, then those of the rules.
func (s *Set) Terms() []Terms {
	all := []Terms{s.cfg.Default}
	for _, rule := range s.cfg.Rules {
		all = append(all, rule.Terms)
	}
	return all
}

// Patterns gives the names and globs of the projects that are enabled. It must not be changed.
func (s *Set) Patterns() []string { return s.cfg.Projects }

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
