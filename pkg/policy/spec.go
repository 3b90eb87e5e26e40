package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Limits of a policy. A document has to stay far below the megabyte that the queue takes for one value.
const (
	MaxGlobs       = 100
	MaxExemptions  = 200
	MaxBlocks      = 1000
	MaxReason      = 500 // bytes of a reason that somebody gives
	maxGlob        = 256
	maxAnnotations = 32
	maxAnnotation  = 256
	maxLogName     = 64
)

// Mode is what happens to the images of a project.
type Mode string

// The modes.
const (
	ModeOff Mode = "off"
	// ModeObserve says what would be signed, and signs nothing.
	ModeObserve Mode = "observe"
	ModeSign    Mode = "sign"
)

// Untagged is what happens to manifests that have no tag and are no child of an index in scope.
type Untagged string

// What may happen to untagged manifests.
const (
	UntaggedInclude Untagged = "include"
	UntaggedExclude Untagged = "exclude"
)

// Restore is what happens when a signature vanishes that was there.
type Restore string

// What may happen when a signature vanishes. An event says so in either case.
const (
	RestoreSign  Restore = "sign"  // it is made again
	RestoreAlert Restore = "alert" // nothing but the event
)

// Globs choose names. The syntax is that of Harbor's own rules (doublestar): * stays within one part of a name, ** does not,
// and {a,b} is either.
type Globs struct {
	// Include: one of them matches; none stands for all names.
	Include []string `json:"include,omitempty" key:"include"`
	// Exclude: none of them matches.
	Exclude []string `json:"exclude,omitempty" key:"exclude"`
}

// Matches says whether a name is chosen.
func (g Globs) Matches(name string) bool {
	return (len(g.Include) == 0 || matchAny(g.Include, name)) && !matchAny(g.Exclude, name)
}

// Excludes says whether a name is excluded.
func (g Globs) Excludes(name string) bool { return matchAny(g.Exclude, name) }

func (g Globs) isZero() bool { return len(g.Include) == 0 && len(g.Exclude) == 0 }

// Rate is the budget of one project's pushes in the live lane; what goes beyond it waits in the bulk lane. Zero values stand
// for the defaults of the receiver.
type Rate struct {
	PerSecond float64 `json:"per_second,omitempty" key:"per_second"`
	Burst     int     `json:"burst,omitempty" key:"burst"`
}

// Exemption keeps manifests from being signed until it expires. It names a repository by glob, a digest, or both.
type Exemption struct {
	// Repository is a glob below the project; empty stands for all.
	Repository string `json:"repository,omitempty" key:"repository"`
	Digest     string `json:"digest,omitempty" key:"digest"`
	// Approver and Reason say who allowed it, and why. Both are required, as is Expires.
	Approver string    `json:"approver" key:"approver"`
	Reason   string    `json:"reason" key:"reason"`
	Expires  time.Time `json:"expires" key:"expires"`
}

// names says whether the exemption is about a manifest.
func (e Exemption) names(repository, digest string) bool {
	return (e.Repository == "" || match(e.Repository, repository)) && (e.Digest == "" || e.Digest == digest)
}

// Spec is what an admin asks for, for one project or several.
type Spec struct {
	Mode         Mode  `json:"mode" key:"mode" default:"sign"`
	Repositories Globs `json:"repositories,omitzero" key:"repositories"`
	// Tags: a manifest is in scope if one of its tags is included and none is excluded.
	Tags     Globs    `json:"tags,omitzero" key:"tags"`
	Untagged Untagged `json:"untagged,omitempty" key:"untagged"`
	// Format and Key are those of the signer where they are empty, and Annotations where they are nil: an empty map stands for
	// none at all.
	Format      Format            `json:"format,omitempty" key:"format"`
	Key         string            `json:"key,omitempty" key:"key"`
	Annotations map[string]string `json:"annotations,omitzero" key:"annotations"`
	// Transparency, Log, which is the name of a transparency log, and Timestamp are those of the signer where they are empty.
	Transparency Transparency `json:"transparency,omitempty" key:"transparency"`
	Log          string       `json:"log,omitempty" key:"log"`
	Timestamp    Timestamp    `json:"timestamp,omitempty" key:"timestamp"`
	Rate         Rate         `json:"rate,omitzero" key:"rate"`
	// MaxInFlight is how many digests of the project one signer works on at once; 0 for the signer's own limit.
	MaxInFlight int `json:"max_in_flight,omitempty" key:"max_in_flight"`
	// ResignOnRotation asks for a signature of the active key where only retired or revoked ones have signed.
	ResignOnRotation bool `json:"resign_on_rotation,omitempty" key:"resign_on_rotation"`
	// Restore is RestoreSign if it is empty, Untagged UntaggedInclude.
	Restore    Restore     `json:"restore,omitempty" key:"restore"`
	Exemptions []Exemption `json:"exemptions,omitempty" key:"exemptions"`
	// Canary says that the project is this service's own: signers push images there to try the whole way, and delete them. It is
	// in no report.
	Canary bool `json:"canary,omitempty" key:"canary"`
}

// NeedsTags says whether the tags of a manifest matter.
func (s Spec) NeedsTags() bool { return !s.Tags.isZero() || s.Untagged == UntaggedExclude }

// FieldError says what is wrong with one field, and what would be right. Its text repeats no value: an annotation may be a
// secret in the wrong place.
type FieldError struct{ Field, Want string }

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Want }

// FieldErrors gives the field errors that are joined in err or wrapped by it, in their order.
func FieldErrors(err error) []*FieldError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*FieldError
		for _, e := range joined.Unwrap() {
			all = append(all, FieldErrors(e)...)
		}
		return all
	}
	if wrong, ok := err.(*FieldError); ok { //nolint:errorlint // errors.As would find the first of several
		return []*FieldError{wrong}
	}
	if inner := errors.Unwrap(err); inner != nil {
		return FieldErrors(inner)
	}
	return nil
}

// Validate reports all that is wrong at once; each error is a [*FieldError].
func (s Spec) Validate() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, &FieldError{Field: field, Want: fmt.Sprintf(format, args...)})
	}
	if !slices.Contains([]Mode{ModeOff, ModeObserve, ModeSign}, s.Mode) {
		wrong("mode", "want one of off, observe, sign")
	}
	if !slices.Contains([]Untagged{"", UntaggedInclude, UntaggedExclude}, s.Untagged) {
		wrong("untagged", "want include or exclude")
	}
	if !slices.Contains([]Restore{"", RestoreSign, RestoreAlert}, s.Restore) {
		wrong("restore", "want sign or alert")
	}
	if s.Format != "" && s.Format.Validate() != nil {
		wrong("format", "want one of auto, legacy, bundle, both")
	}
	if s.Transparency != "" && s.Transparency.Validate() != nil {
		wrong("transparency", "want one of off, required, deferred")
	}
	if s.Timestamp != "" && s.Timestamp.Validate() != nil {
		wrong("timestamp", "want one of off, optional, required")
	}
	if len(s.Log) > maxLogName || !isText(s.Log) {
		wrong("log", "want the name of a configured log, of at most %d bytes", maxLogName)
	}
	for field, globs := range map[string][]string{
		"repositories.include": s.Repositories.Include, "repositories.exclude": s.Repositories.Exclude,
		"tags.include": s.Tags.Include, "tags.exclude": s.Tags.Exclude,
	} {
		if len(globs) > MaxGlobs {
			wrong(field, "want at most %d globs", MaxGlobs)
		}
		for i, glob := range globs {
			if !validGlob(glob) {
				wrong(fmt.Sprintf("%s[%d]", field, i), "want a glob such as team/**, of at most %d bytes", maxGlob)
			}
		}
	}
	if !(s.Rate.PerSecond >= 0 && s.Rate.PerSecond <= 10_000) { // written so that NaN is none
		wrong("rate.per_second", "want 0 to 10000")
	}
	if s.Rate.Burst < 0 || s.Rate.Burst > 100_000 {
		wrong("rate.burst", "want 0 to 100000")
	}
	if s.MaxInFlight < 0 || s.MaxInFlight > 1024 {
		wrong("max_in_flight", "want 0 to 1024")
	}
	s.validateAnnotations(wrong)
	s.validateExemptions(wrong)
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (s Spec) validateAnnotations(wrong func(field, format string, args ...any)) {
	if len(s.Annotations) > maxAnnotations {
		wrong("annotations", "want at most %d keys", maxAnnotations)
	}
	for key, value := range s.Annotations {
		if key == "" || len(key) > maxAnnotation || !isText(key) || len(value) > maxAnnotation || !isText(value) {
			wrong("annotations", "want keys of 1 to %d bytes and values of at most %d, without control characters", maxAnnotation, maxAnnotation)
			return
		}
	}
}

func (s Spec) validateExemptions(wrong func(field, format string, args ...any)) {
	if len(s.Exemptions) > MaxExemptions {
		wrong("exemptions", "want at most %d", MaxExemptions)
	}
	for i, e := range s.Exemptions {
		at := fmt.Sprintf("exemptions[%d]", i)
		if e.Repository == "" && e.Digest == "" {
			wrong(at, "want a repository, a digest or both: set the mode to off to exempt everything")
		}
		if e.Repository != "" && !validGlob(e.Repository) {
			wrong(at+".repository", "want a glob such as team/**, of at most %d bytes", maxGlob)
		}
		if e.Digest != "" && artifact.ValidateDigest(e.Digest) != nil {
			wrong(at+".digest", "want sha256: and 64 lower-case hexadecimal digits")
		}
		if !ValidReason(e.Approver) {
			wrong(at+".approver", "want who approved it, in at most %d bytes", MaxReason)
		}
		if !ValidReason(e.Reason) {
			wrong(at+".reason", "want why, in at most %d bytes", MaxReason)
		}
		if e.Expires.IsZero() {
			wrong(at+".expires", "want a time such as 2026-12-31T00:00:00Z: an exemption does not last for ever")
		}
	}
}

// ValidReason says whether a text can stand for a reason or a name that somebody gives: it is there, short, and without
// control characters.
func ValidReason(text string) bool {
	return strings.TrimSpace(text) != "" && len(text) <= MaxReason && isText(text)
}

func isText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.ContainsFunc(s, unicode.IsControl)
}

// validGlob wants each bracket closed: doublestar says that a glob is malformed only when a name leads it that far.
func validGlob(glob string) bool {
	if glob == "" || len(glob) > maxGlob || !isText(glob) {
		return false
	}
	var open rune // the bracket that is waited for
	escaped := false
	for _, r := range glob {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case open != 0:
			switch r {
			case open:
				open = 0
			case '[', '{':
				return false // nested: nobody means that, and not every version of the library reads it
			}
		case r == '[':
			open = ']'
		case r == '{':
			open = '}'
		case r == ']' || r == '}':
			return false
		}
	}
	_, err := doublestar.Match(glob, "x")
	return open == 0 && !escaped && err == nil
}

func matchAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return match(glob, name) })
}

// match never sees a malformed glob: validation refuses them.
func match(glob, name string) bool {
	matched, err := doublestar.Match(glob, name)
	return err == nil && matched
}

func (s Spec) clone() Spec {
	s.Annotations = maps.Clone(s.Annotations)
	s.Repositories = s.Repositories.clone()
	s.Tags = s.Tags.clone()
	s.Exemptions = slices.Clone(s.Exemptions)
	return s
}

func (g Globs) clone() Globs {
	return Globs{Include: slices.Clone(g.Include), Exclude: slices.Clone(g.Exclude)}
}
