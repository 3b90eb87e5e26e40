package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Rule is the policy of some projects as a configuration file declares it.
type Rule struct {
	// Projects are names and globs, in the syntax of path.Match. Projects that come later are meant as well.
	Projects []string `json:"projects"`
	Spec
	Backfill Backfill `json:"backfill"`
	Blocks   []Block  `json:"blocks,omitempty"`
}

// Declared are the policies that a configuration file declares. The first rule that names a project is its policy, whatever
// the API keeps for it. It is immutable and safe for concurrent use.
type Declared struct {
	rules    []Rule
	revision string
}

// declaredDocument is the JSON form.
type declaredDocument struct {
	Version int    `json:"v"`
	Rules   []Rule `json:"rules"`
}

// NewDeclared validates the rules and reports all that is wrong at once.
func NewDeclared(rules []Rule) (*Declared, error) {
	d := &Declared{}
	var errs []error
	for i, r := range rules {
		at := fmt.Sprintf("policies[%d]", i)
		if len(r.Projects) == 0 {
			errs = append(errs, &FieldError{Field: at + ".projects", Want: "want at least one entry"})
		}
		errs = append(errs, checkPatterns(at+".projects", r.Projects))
		if err := r.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		if r.Backfill.Choice == "" || r.Backfill.Choice == "none" {
			errs = append(errs, &FieldError{Field: at + ".backfill", Want: "want all, or since: and a time such as since:2026-01-31T00:00:00Z: a file does not tell when it came into force"})
		}
		for j, b := range r.Blocks {
			errs = append(errs, b.validate(fmt.Sprintf("%s.blocks[%d]", at, j)))
		}
		d.rules = append(d.rules, Rule{
			Projects: slices.Clone(r.Projects), Spec: r.clone(), Backfill: r.Backfill, Blocks: slices.Clone(r.Blocks),
		})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	canonical, err := d.Encode()
	if err != nil {
		return nil, fmt.Errorf("computing the revision: %w", err)
	}
	sum := sha256.Sum256(canonical)
	d.revision = "config-" + hex.EncodeToString(sum[:6])
	return d, nil
}

// Encode gives the JSON form. The same rules give the same bytes.
func (d *Declared) Encode() ([]byte, error) {
	return json.Marshal(declaredDocument{Version: documentVersion, Rules: d.rules})
}

// DecodeDeclared reads the JSON form of this version and older ones.
func DecodeDeclared(data []byte) (*Declared, error) {
	var doc declaredDocument
	if err := decode(data, &doc); err != nil {
		return nil, fmt.Errorf("decoding the declared policies: %w", err)
	}
	return NewDeclared(doc.Rules)
}

// Revision names the content.
func (d *Declared) Revision() string { return d.revision }

// Rules gives the rules. They must not be changed.
func (d *Declared) Rules() []Rule { return d.rules }

// Rule gives the rule for a project.
func (d *Declared) Rule(project string) (Rule, bool) {
	i := slices.IndexFunc(d.rules, func(r Rule) bool { return r.names(project) })
	if i < 0 {
		return Rule{}, false
	}
	return d.rules[i], true
}

// Lookup gives the policy that the file declares for a project.
func (d *Declared) Lookup(project string) (Policy, bool) {
	r, found := d.Rule(project)
	if !found {
		return Policy{}, false
	}
	p := r.policy(project)
	p.Manager, p.Revision, p.From, p.Blocks = ByConfig, d.revision, r.Backfill.From, r.Blocks
	return p, true
}

// Names gives the names of projects that are no globs.
func (d *Declared) Names() []string {
	var names []string
	for _, r := range d.rules {
		for _, pattern := range r.Projects {
			if !IsGlob(pattern) {
				names = append(names, pattern)
			}
		}
	}
	return names
}

// HasGlobs says whether projects are meant that the file does not name.
func (d *Declared) HasGlobs() bool {
	return slices.ContainsFunc(d.rules, func(r Rule) bool { return slices.ContainsFunc(r.Projects, IsGlob) })
}

// Policy gives the policy of a document in the bucket at a revision.
func (d Document) Policy(revision uint64) Policy {
	p := d.policy(d.Project)
	p.Manager, p.Revision, p.From = ByAPI, fmt.Sprintf("api-%d", revision), d.Backfill.From
	p.Blocks, p.ProjectID = d.Blocks, d.ProjectID
	return p
}

// policy gives what a specification says; where it is from is left to the caller.
func (s Spec) policy(project string) Policy {
	return Policy{
		Project: project, Mode: s.Mode,
		Terms: Terms{
			Format: s.Format, Key: s.Key, Annotations: s.Annotations, Transparency: s.Transparency, Log: s.Log, Timestamp: s.Timestamp,
			ActiveKeyOnly: s.ResignOnRotation,
		},
		Repositories: s.Repositories, Tags: s.Tags, Untagged: s.Untagged, Exemptions: s.Exemptions,
		Restore: s.Restore, Rate: s.Rate, MaxInFlight: s.MaxInFlight, Canary: s.Canary,
	}
}

// IsGlob says whether a pattern can match more than one project.
func IsGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[\\`) }

func (r Rule) names(project string) bool {
	return slices.ContainsFunc(r.Projects, func(pattern string) bool {
		// Never malformed: NewDeclared refuses those.
		matched, err := path.Match(pattern, project)
		return err == nil && matched
	})
}

// ValidatePattern says whether a pattern is a Harbor project's name, or a glob.
func ValidatePattern(pattern string) error {
	err := artifact.ValidateProject(pattern)
	if IsGlob(pattern) {
		_, err = path.Match(pattern, "")
	}
	if err != nil {
		return fmt.Errorf("%.64q: want a Harbor project's name, or a glob: %w", pattern, err)
	}
	return nil
}

func checkPatterns(name string, patterns []string) error {
	var errs []error
	for i, p := range patterns {
		if err := ValidatePattern(p); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d] %w", name, i, err))
		}
	}
	return errors.Join(errs...)
}
