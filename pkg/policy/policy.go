// Package policy decides, purely, whether a manifest is signed, and says why.
//
// It reads nothing and remembers nothing: the caller brings the policy of the project as it is now and what it knows of
// the manifest. The same input gives the same decision, so the receiver's guess and the signer's decision differ only if
// the policy or the manifest did. Package policy/book keeps the policies of all projects as they are now.
package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Reason is why a manifest is not signed, from a closed set: it may be a metric label and stands in the report.
type Reason string

// The reasons. They are part of the ledger's vocabulary: a reason is added, never renamed.
const (
	NotEnabled    Reason = "project_not_enabled"
	Suspended     Reason = "project_suspended" // another project stands under the name for which signing was enabled
	IsAccessory   Reason = "accessory"
	NotAPush      Reason = "not_a_push"    // an event of another type
	OwnPush       Reason = "own_signature" // the event of a signature that this service attached
	Blocked       Reason = "blocked"
	Exempt        Reason = "exempt"
	OutOfScope    Reason = "repository_out_of_scope"
	TagOutOfScope Reason = "tag_out_of_scope" // no tag is included
	TagExcluded   Reason = "tag_excluded"     // one of the tags is excluded
	NoTag         Reason = "untagged"
	NotBackfilled Reason = "not_backfilled" // pushed before the time from which on images are signed
	Observed      Reason = "observed"       // it would be signed if the mode were not observe
)

// Manager is who may change a policy.
type Manager string

// The managers.
const (
	ByAPI    Manager = "api"
	ByConfig Manager = "config" // the receiver's configuration file: the API only reads it
)

// Policy is what one project asks for, now.
type Policy struct {
	Project string
	// Mode is ModeOff if it is empty.
	Mode Mode
	// Manager is empty for a project that nobody enabled.
	Manager Manager
	// Revision names the version of the policy that this one was read from; every event carries it.
	Revision string
	// Terms are how manifests are signed.
	Terms Terms
	// Repositories, Tags, Untagged, Exemptions and Blocks say which. They must not be changed.
	Repositories Globs
	Tags         Globs
	Untagged     Untagged
	Exemptions   []Exemption
	Blocks       []Block
	// From is the push time from which on manifests are signed that nobody pushed just now; zero for all.
	From    time.Time
	Restore Restore
	Rate    Rate
	// MaxInFlight is how many digests of the project one signer works on at once; 0 for the signer's own limit.
	MaxInFlight int
	// ProjectID is Harbor's id of the project for which signing was enabled; 0 if the policy goes by the name alone.
	ProjectID int64
	// SuspendedFor is the id of another project that was found under the name.
	SuspendedFor int64
	// Canary says that the project's images are this service's own, and in no report.
	Canary bool
	// Pause is set while signing is paused. Requests wait then.
	Pause *Pause
	// ResumedAt is when signing was resumed last: requests have waited until then without a fault.
	ResumedAt time.Time
}

// Enabled says whether anything is done for the project, be it observing.
func (p Policy) Enabled() bool { return p.Mode == ModeSign || p.Mode == ModeObserve }

// NeedsTags says whether the tags of a manifest matter.
func (p Policy) NeedsTags() bool { return Spec{Tags: p.Tags, Untagged: p.Untagged}.NeedsTags() }

// Subject is what is known of a manifest.
type Subject struct {
	Ref artifact.Ref
	// Accessory says that the manifest belongs to another one: a signature, an attestation, an SBOM.
	Accessory bool
	// Tags are those that the manifest has now. They matter if the policy says so.
	Tags []string
	// Child says that an index names the manifest that is in scope itself: its own tags do not matter then.
	Child bool
	// Signed says that the manifest was signed before: it stays in scope when its tags move.
	Signed bool
	// PushedAt is when Harbor got the manifest, for one that nobody pushed just now; zero for one that was.
	PushedAt time.Time
	// Now is when it is decided.
	Now time.Time
}

// Decision is the answer for one manifest.
type Decision struct {
	Sign   bool
	Reason Reason // why not; empty if Sign
	// Detail is for people, where there is more to say: who exempted it, and why.
	Detail string
}

// Admit decides for a project, before anything is known of the manifest. It is what a policy in the mode observe says as
// well: only Decide tells what would be signed.
func Admit(p Policy) Decision {
	switch {
	case !p.Enabled():
		return Decision{Reason: NotEnabled}
	case p.SuspendedFor != 0:
		return Decision{Reason: Suspended, Detail: "another project stands under this name now: enable signing for it anew if that is meant"}
	default:
		return Decision{Sign: true}
	}
}

// Decide decides for a manifest. What keeps it from being signed for good comes first.
func Decide(p Policy, s Subject) Decision {
	if d := Admit(p); !d.Sign {
		return d
	}
	if s.Accessory {
		return Decision{Reason: IsAccessory}
	}
	if d := p.barred(s); d.Reason != "" {
		return d
	}
	if reason := p.outOfScope(s); reason != "" {
		return Decision{Reason: reason}
	}
	if !s.Signed && !s.PushedAt.IsZero() && s.PushedAt.Before(p.From) {
		return Decision{Reason: NotBackfilled, Detail: "pushed before " + p.From.Format(time.RFC3339) + ", from when on the policy signs: enable the project with another backfill"}
	}
	if p.Mode == ModeObserve {
		return Decision{Reason: Observed}
	}
	return Decision{Sign: true}
}

// barred looks at blocks and exemptions.
func (p Policy) barred(s Subject) Decision {
	for _, b := range p.Blocks {
		if b.Digest == s.Ref.Digest() {
			return Decision{Reason: Blocked, Detail: "blocked by " + b.By + ": " + b.Reason}
		}
	}
	name := below(s.Ref)
	for _, e := range p.Exemptions {
		if s.Now.Before(e.Expires) && e.names(name, s.Ref.Digest()) {
			return Decision{Reason: Exempt, Detail: "exempted by " + e.Approver + " until " + e.Expires.UTC().Format(time.RFC3339) + ": " + e.Reason}
		}
	}
	return Decision{}
}

// outOfScope gives the reason for which a manifest is not in scope; empty if it is.
func (p Policy) outOfScope(s Subject) Reason {
	switch {
	case !p.Repositories.Matches(below(s.Ref)):
		return OutOfScope
	case s.Signed, s.Child, !p.NeedsTags():
		return ""
	case len(s.Tags) == 0 && p.Untagged == UntaggedExclude:
		return NoTag
	case len(s.Tags) == 0:
		return ""
	case slices.ContainsFunc(s.Tags, p.Tags.Excludes):
		return TagExcluded
	case !slices.ContainsFunc(s.Tags, p.Tags.Matches):
		return TagOutOfScope
	default:
		return ""
	}
}

// below gives the repository's name without the project.
func below(ref artifact.Ref) string {
	return strings.TrimPrefix(ref.Repository(), ref.Project()+"/")
}
