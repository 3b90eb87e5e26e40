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
	// PutManifest is idempotent. It fails with fault.BlobUnknown if a blob that the manifest names is missing.
	PutManifest(ctx context.Context, repository, reference string, m artifact.Manifest) error
}

// Format is a way in which signatures are made and kept. It does no input or output of its own but for the key.
type Format interface {
	// Name is the format's name in events.
	Name() string
	// KeyID is the id of the key that signs.
	KeyID() string
	// Reference is where the registry keeps the signatures of a digest.
	Reference(digest string) string
	// Sign is deterministic where the key allows it: a repetition after a crash gives the same bytes.
	Sign(ctx context.Context, identity, digest string) (artifact.Signature, error)
	// Append adds s to what existing holds, which stays as it is; nil stands for nothing. The blobs are those that the
	// manifest needs and the registry may lack. If existing holds s already, m equals it.
	Append(existing *artifact.Manifest, s artifact.Signature) (m artifact.Manifest, blobs []artifact.Blob, err error)
	// Verify gives the signatures in m that are valid for digest under identity. A failing fetch is an error unless a
	// valid signature was found without it.
	Verify(ctx context.Context, m artifact.Manifest, identity, digest string,
		fetch func(ctx context.Context, digest string) ([]byte, error)) ([]artifact.Signature, error)
}

// Queue is where requests and records go. Record and Enqueue have returned nil only if the message is stored durably;
// after an error it may or may not be. Both are safe to repeat: an event has an id, a request that waits already is a
// duplicate.
type Queue interface {
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// LastReceived gives the newest received event of ref and its sequence, 0 if there is none.
	LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, event artifact.Event, err error)
	// ClearDead removes the dead letter of ref; none is a success.
	ClearDead(ctx context.Context, ref artifact.Ref) error
}

// Policies gives the policy of a project as it is now. An error means that it could not be read, never "not enabled".
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Delivery is one attempt at one request. Exactly one of Done, Retry and Bury ends it; until then the queue gives the
// request to nobody else.
type Delivery interface {
	Request() artifact.Request
	// Attempts counts this attempt: it is 1 for the first.
	Attempts() uint64
	// FirstSeen is when the queue took the request.
	FirstSeen() time.Time
	// Done removes the request. It has returned nil only if the queue has confirmed it.
	Done(ctx context.Context) error
	// Retry gives the request back, to be delivered again after the delay.
	Retry(ctx context.Context, delay time.Duration) error
	// Bury keeps the request as a dead letter and removes it from the queue, in this order.
	Bury(ctx context.Context, event artifact.Event) error
}
