package reconcile

import (
	"context"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Harbor lists projects and what they hold. Each method makes one attempt and returns a fault; Gone if Harbor said that the
// thing is not there.
type Harbor interface {
	// AllProjects gives all projects that the account may see.
	AllProjects(ctx context.Context) ([]artifact.Project, error)
	Project(ctx context.Context, name string) (artifact.Project, error)
	// Population gives every manifest of the project that is no accessory, page by page and oldest first, from a place on. An
	// error of each ends it and is returned.
	Population(ctx context.Context, project string, from artifact.Cursor, each func(context.Context, artifact.Page) error) error
	// PushedSince gives the manifests of the project that Harbor got since a time of its own clock.
	PushedSince(ctx context.Context, project string, since time.Time, each func(context.Context, []artifact.Listed) error) error
	// Feed gives the pushes in the whole Harbor. available is false if there is no such feed, or if it is always empty.
	Feed(ctx context.Context, since, until time.Time, each func(context.Context, []artifact.Pushed) error) (available bool, err error)
	// Artifact gives one manifest as the listing shows it.
	Artifact(ctx context.Context, ref artifact.Ref) (artifact.Listed, error)
	System(ctx context.Context) (artifact.SystemInfo, error)
}

// Queue takes requests, events and ticks. All of them may be repeated: a request that waits already is a duplicate, an event
// has an id, a tick that was proposed before is refused, even after its work is done. nil means that it is stored durably.
type Queue interface {
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// EnqueueDebt asks for the log entries that a signed manifest owes.
	EnqueueDebt(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
	// DeadSince says when the dead letter of ref was written; found is false if there is none.
	DeadSince(ctx context.Context, ref artifact.Ref) (since time.Time, found bool, err error)
	// LedgerSeq is the sequence of the newest event.
	LedgerSeq(ctx context.Context) (uint64, error)
	// ClearDead removes the dead letter of ref; none is a success.
	ClearDead(ctx context.Context, ref artifact.Ref) error
	Propose(ctx context.Context, kind, key string, slot int64) (accepted bool, err error)
}

// State keeps small values under a kind and a key, durably and for all workers.
type State interface {
	// LoadState gives nothing, and a revision to save by, where there is nothing.
	LoadState(ctx context.Context, kind, key string) (value []byte, revision uint64, err error)
	// SaveState replaces the value of that revision. The error is policy.ErrConflict if there is another one by now; after any
	// other error the value may be saved or not.
	SaveState(ctx context.Context, kind, key string, value []byte, expect uint64) (revision uint64, err error)
}

// Policies are the policies of all projects as they are now; an error means that they could not be read. A book and its bucket are one.
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
	// Fresh is Policy, behind no change that was confirmed before.
	Fresh(ctx context.Context, project string) (policy.Policy, error)
	// Projects gives the names of those that are named somewhere, and says whether others may be meant, by globs.
	Projects() (names []string, globs bool, err error)
	// Enabled gives the names of those for which something is done, also beside an error; listed are those that globs may mean.
	Enabled(listed []string) ([]string, error)
}

// Memory is what the ledger knows. An error means that it did not answer.
type Memory interface {
	// Known gives one answer for each reference, in the same order, of at most [MaxBatch].
	Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error)
	// Units gives the digests of a project that are not known to be gone or accessories, by repository and digest; next is
	// empty at the end.
	Units(ctx context.Context, project, after string, limit int) (refs []artifact.Ref, next string, err error)
}

// Verifier is what the signers decide "signed" by.
type Verifier interface {
	// Sufficient says whether signatures that were verified before are all that the policy asks for now, without reading them.
	// retired says that no active key made any of them.
	Sufficient(ctx context.Context, p policy.Policy, evidence []artifact.Evidence) (ok, retired bool, err error)
	// Owes gives the formats in which a log entry is still to be made for signatures that are enough, without reading them.
	Owes(ctx context.Context, p policy.Policy, evidence []artifact.Evidence) ([]artifact.Format, error)
	// Verify reads and checks the signatures of a manifest, and brings back what concurrent writers have overwritten. note is
	// for people.
	Verify(ctx context.Context, p policy.Policy, l artifact.Listed) (evidence []artifact.Evidence, note string, signed bool, err error)
	// Tag gives the digest that stands under the tag of the legacy format; empty if there is none.
	Tag(ctx context.Context, ref artifact.Ref) (digest string, err error)
	// KeySet names the keys that are accepted.
	KeySet() string
}
