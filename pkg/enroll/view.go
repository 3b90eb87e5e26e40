package enroll

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/preflight"
)

var (
	// ErrPreconditionRequired says that the change of a policy that exists has to name the version that it replaces.
	ErrPreconditionRequired = errors.New("the project has a policy already: read it, and send its ETag as If-Match")
	// ErrManagedByConfig says that a policy stands in the receiver's configuration file and is only read here.
	ErrManagedByConfig = errors.New("the policy of this project stands in the receiver's configuration file: change it there")
	// ErrNoPolicy says that nobody has enabled the project through the API.
	ErrNoPolicy = errors.New("the project has no policy: enable it first")
	// ErrNotEnabled says that what was asked for makes no sense while the project's policy is off, or suspended.
	ErrNotEnabled = errors.New("the project is not enabled")
	// ErrNoHarbor says that the receiver has no account in Harbor.
	ErrNoHarbor = errors.New("this receiver has no Harbor account (harbor.url): projects are enabled in its configuration file, and webhooks made by hand")
)

// RefusedError says that a project cannot be enabled as things are, with everything that is wrong at once.
type RefusedError struct {
	// Checks are those that have failed.
	Checks []preflight.Check
}

// Error implements error.
func (e *RefusedError) Error() string {
	all := make([]string, len(e.Checks))
	for i, c := range e.Checks {
		all[i] = fmt.Sprintf("%s: %s", c.Name, c.Detail)
	}
	return "the project cannot be enabled: " + strings.Join(all, "; ")
}

// Unknown says that nothing is known to be wrong: what has failed could not be told, and may be asked again.
func (e *RefusedError) Unknown() bool {
	return !slices.ContainsFunc(e.Checks, func(c preflight.Check) bool { return !c.Unknown })
}

// Actor is who asks for a change. It prints without its credentials.
type Actor struct {
	Name string
	// From is the address that the request came from.
	From string
	// Authorization is the header of the request, handed on to Harbor and to nobody else; empty for an API token, which is
	// nobody in Harbor.
	Authorization string
}

// String implements fmt.Stringer.
func (a Actor) String() string { return a.Name + " from " + a.From }

// GoString implements fmt.GoStringer.
func (a Actor) GoString() string { return a.String() }

// PutRequest is what an admin asks for.
type PutRequest struct {
	// Spec is the whole policy. Its mode is sign if it is empty.
	policy.Spec
	// Backfill is none, all, or since: and a time, as in policy.ParseBackfill. It is required wherever signing or observing
	// begins, and may be left out of other changes.
	Backfill string `json:"backfill,omitempty"`
}

// View is a project as this service sees it.
type View struct {
	Project   string `json:"project"`
	ProjectID int64  `json:"project_id,omitempty"`
	// Enabled says whether something is done for the project, be it observing.
	Enabled bool `json:"enabled"`
	// ManagedBy is api or config; empty if nobody enabled the project.
	ManagedBy policy.Manager `json:"managed_by,omitempty"`
	// ETag is that of the policy, quoted; empty if there is none that the API could change.
	ETag     string `json:"etag,omitempty"`
	Revision string `json:"revision,omitempty"`
	// Policy and Backfill are there if somebody enabled the project, now or earlier.
	Policy    *policy.Spec     `json:"policy,omitempty"`
	Backfill  *policy.Backfill `json:"backfill,omitempty"`
	Blocks    []policy.Block   `json:"blocks,omitempty"`
	ChangedBy string           `json:"changed_by,omitempty"`
	ChangedAt time.Time        `json:"changed_at,omitzero"`
	// SuspendedFor is the id of another project that stands under the name now: nothing is signed.
	SuspendedFor int64         `json:"suspended_for,omitempty"`
	Paused       *policy.Pause `json:"paused,omitempty"`
	Webhook      *WebhookView  `json:"webhook,omitempty"`
	// Problems are what is wrong in Harbor, as the last drift check found it at CheckedAt.
	Problems  []policy.Problem `json:"problems,omitempty"`
	CheckedAt time.Time        `json:"checked_at,omitzero"`
	// Warnings are what the pre-checks of this change found beside.
	Warnings []preflight.Check `json:"warnings,omitempty"`
}

// WebhookView is the state of our webhook.
type WebhookView struct {
	Address string `json:"address"`
	// OK says that Harbor has it, and that nothing is known to be wrong with it.
	OK bool `json:"ok"`
	// SecretVersion counts the rotations. PreviousUntil is there while the version before is accepted as well.
	SecretVersion int       `json:"secret_version,omitempty"`
	PreviousUntil time.Time `json:"previous_until,omitzero"`
}
