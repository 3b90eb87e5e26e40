package signing

import (
	"context"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Registry is the OCI registry. Each method makes one attempt and returns a fault: Gone if the registry said that the
// thing is not there, and never if it only failed to say. Implementations are safe for concurrent use.
type Registry interface {
	// Manifest reads a manifest by tag or digest. Its content is checked against the digest that was asked for.
	Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error)
	// Blob reads a blob of at most limit bytes and checks its digest.
	Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error)
	// PushBlob is idempotent: a blob that is there already is a success.
	PushBlob(ctx context.Context, repository string, b artifact.Blob) error
	// PutManifest is idempotent. It fails with fault.BlobUnknown if a blob that the manifest names is missing, with
	// fault.Immutable if a rule locks the tag.
	PutManifest(ctx context.Context, repository, reference string, m artifact.Manifest) error
	// Referrers lists the manifests that refer to a digest, also those that Harbor takes for signatures because of their
	// tag. None is no error.
	Referrers(ctx context.Context, repository, digest string) ([]artifact.Descriptor, error)
}

// Keys makes signatures and says which count. It is safe for concurrent use.
type Keys interface {
	// Sign makes a signature with the key of this name. The fault is transient if the key does not answer, and also if there
	// is none that signs by this name: that is no fault of the digest. It is permanent if the claim cannot be signed.
	Sign(ctx context.Context, key string, format artifact.Format, claim artifact.Claim) (artifact.Signature, error)
	// Valid checks a signature: it verifies with a key that is known and not revoked, over a payload that makes this claim.
	// Annotations, and what is beside the signature, do not matter.
	Valid(s artifact.Signature, claim artifact.Claim) bool
	// Proven gives s with its log entry and timestamp as far as they verify, and are about it.
	Proven(s artifact.Signature) artifact.Signature
	// Keyless says whether the key of this name is an identity, whose certificates live for minutes.
	Keyless(key string) bool
	// Accepts says whether signatures of the key with this id count where the key of this name signs.
	Accepts(key, keyID string) bool
	// Deterministic says whether the key of this name makes the same signature of the same claim each time.
	Deterministic(key string) bool
	// KeyID is the id of the key of this name; false if there is none.
	KeyID(key string) (string, bool)
	// KeySet names the keys whose signatures count anywhere: it is another one whenever one of them comes or goes.
	KeySet() string
}

// Fetch reads a blob of the subject's repository by its digest.
type Fetch = func(ctx context.Context, digest string) ([]byte, error)

// LegacyFormat is the format in which all signatures of a subject stand in one manifest under a tag. It does no input or
// output of its own.
type LegacyFormat interface {
	// Tag is where the registry keeps the signatures of a digest.
	Tag(digest string) string
	// Candidate says whether a referrer may be a manifest that holds, or held, signatures under the tag: others are not read.
	Candidate(d artifact.Descriptor) bool
	// Append adds s to what existing holds, which stays as it is; nil stands for nothing. The blobs are those that the
	// manifest needs and the registry may lack. If existing holds the same signature without a log entry or a timestamp that
	// s has, it gets them; if it lacks nothing, m equals existing.
	Append(existing *artifact.Manifest, s artifact.Signature) (m artifact.Manifest, blobs []artifact.Blob, err error)
	// Merge adds what the other manifests hold and current lacks; nil stands for nothing. Its result depends on the set of
	// the others alone. If there is nothing to add, it equals current. What carries no signatures is passed over.
	Merge(current *artifact.Manifest, others []artifact.Manifest) (artifact.Manifest, error)
	// Verify gives the signatures in m that are valid for the claim and by a key that is accepted, by its id, with log entry
	// and timestamp as far as they are proven. A failing fetch is an error unless one was found without it.
	Verify(ctx context.Context, m artifact.Manifest, claim artifact.Claim, accepts func(keyID string) bool, fetch Fetch) ([]artifact.Signature, error)
}

// BundleFormat is the format in which each signature has a manifest of its own that refers to the subject. It does no
// input or output of its own.
type BundleFormat interface {
	// Candidate says whether a referrer may be a bundle that holds a signature: others are not read.
	Candidate(d artifact.Descriptor) bool
	// Compose gives the manifest of a signature and the blobs that it needs. The same arguments give the same bytes.
	Compose(s artifact.Signature, subject artifact.Descriptor) (m artifact.Manifest, blobs []artifact.Blob, err error)
	// Verify gives the signature in m if it is valid for the claim, and none otherwise, with log entry and timestamp as far as
	// they are proven. A failing fetch is an error.
	Verify(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) ([]artifact.Signature, error)
}

// LogTypes says which transparency logs take entries.
type LogTypes interface {
	// Type is that of the log of this name; false if there is none that takes entries, and for the empty name.
	Type(name string) (policy.LogType, bool)
}

// Logs are the transparency logs. They are safe for concurrent use.
type Logs interface {
	LogTypes
	// Submit makes the entry of a signature, or gives the one that is there already, with what proves it: it was verified to
	// be of this log and about this very signature. It makes one attempt, may take seconds, and returns a fault; after one
	// there may be an entry.
	Submit(ctx context.Context, log string, s artifact.Signature) (artifact.LogEntry, error)
}

// Timestamps is the timestamp authority. It is safe for concurrent use.
type Timestamps interface {
	// Stamp asks for a timestamp of a signature, once, and returns it after it has verified it. The error is a fault.
	Stamp(ctx context.Context, s artifact.Signature) (response []byte, at time.Time, err error)
}

// Harbor is what is asked of Harbor beside its registry. Each method makes one attempt and returns a fault.
type Harbor interface {
	// ProjectExists says whether there is a project. Harbor gives no right on a project that is not there, so that a
	// deleted one looks like a missing right to everything else.
	ProjectExists(ctx context.Context, project string) (bool, error)
	// ProjectID gives Harbor's id of the project, which may be some seconds old. The fault is Gone if there is none,
	// or none that the account may see.
	ProjectID(ctx context.Context, project string) (int64, error)
	// Project gives the project as it is now; the fault is as that of ProjectID.
	Project(ctx context.Context, project string) (artifact.Project, error)
	// Artifact gives what Harbor lists about a manifest; its tags are asked for. The fault is Gone if Harbor does not list it.
	Artifact(ctx context.Context, ref artifact.Ref) (artifact.Listed, error)
	// Bundles says whether Harbor takes a bundle for a signature, and which version it is.
	Bundles(ctx context.Context) (can bool, version string, err error)
	// LockedBy gives the immutability rule, in one line for people, that locks a tag; empty if none does. The fault is Denied
	// if the account may not list rules.
	LockedBy(ctx context.Context, repository, tag string) (rule string, err error)
}

// Queue is where requests and records go. Record, Enqueue and EnqueueDebt have returned nil only if the message is stored
// durably; after an error it may or may not be. They are safe to repeat: an event has an id, a request that waits already is
// a duplicate.
type Queue interface {
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// EnqueueDebt is Enqueue for a debt, of which one waits for each reference.
	EnqueueDebt(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// LastReceived gives the newest received event of ref and its sequence, 0 if there is none.
	LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, event artifact.Event, err error)
	// LastQueued gives the sequence of the newest queued event of ref, 0 if there is none: no index in scope names it then.
	LastQueued(ctx context.Context, ref artifact.Ref) (seq uint64, err error)
	// LedgerSeq is the sequence of the newest event.
	LedgerSeq(ctx context.Context) (uint64, error)
	// Keep stores a signature before it is attached, and gives the one that was kept before for the same digest, format and
	// key if there is one: who comes second attaches the first one's. Signatures without log entry and timestamp are kept
	// beside those with, and may be beside those with one of them. Signatures are kept for an hour at least.
	Keep(ctx context.Context, ref artifact.Ref, s artifact.Signature) (artifact.Signature, error)
	// ClearDead removes the dead letter of ref; none is a success.
	ClearDead(ctx context.Context, ref artifact.Ref) error
}

// Policies gives the policy of a project as it is now. An error means that it could not be read, never "not enabled".
type Policies interface {
	// Policy may be behind a change that somebody has just been told of, by milliseconds.
	Policy(ctx context.Context, project string) (policy.Policy, error)
	// Fresh is behind no change that was confirmed before. It costs some questions to the queue.
	Fresh(ctx context.Context, project string) (policy.Policy, error)
}

// Delivery is one attempt at one request or debt. Exactly one of Done, Retry and Bury ends it; until then the queue gives the
// request to nobody else.
type Delivery interface {
	Request() artifact.Request
	// Attempts counts this attempt: it is 1 for the first.
	Attempts() uint64
	// Tries is Attempts without those that were given back before anything was tried, as far as this process knows.
	Tries() uint64
	// FirstSeen is when the queue took the request.
	FirstSeen() time.Time
	// Aside runs fn without the worker's slot: for waiting. It gives fn's error, or its own if fn was not run.
	Aside(ctx context.Context, fn func(ctx context.Context) error) error
	// Done removes the request. It has returned nil only if the queue has confirmed it.
	Done(ctx context.Context) error
	// Retry gives the request back, to be delivered again after the delay.
	Retry(ctx context.Context, delay time.Duration) error
	// Bury keeps the request as a dead letter and removes it from the queue, in this order.
	Bury(ctx context.Context, event artifact.Event) error
}
