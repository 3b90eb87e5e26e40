package canary

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Registry is where images are pushed to, with the canary's own account: that of the signer is known as the one whose pushes
// are signatures.
type Registry interface {
	PushBlob(ctx context.Context, repository string, b artifact.Blob) error
	PutManifest(ctx context.Context, repository, reference string, m artifact.Manifest) error
}

// Harbor lists and removes what the canary has pushed, with the canary's own account.
type Harbor interface {
	Population(ctx context.Context, project string, from artifact.Cursor, each func(context.Context, artifact.Page) error) error
	// RemoveArtifact removes a manifest and the signatures beside it. One that is not there is a Gone fault.
	RemoveArtifact(ctx context.Context, ref artifact.Ref) error
}

// Queue tells which pushes a receiver was told of, and shares the ticks among all signers.
type Queue interface {
	// LastReceived gives the sequence of the newest received event of ref, 0 if there is none.
	LastReceived(ctx context.Context, ref artifact.Ref) (seq uint64, event artifact.Event, err error)
	Propose(ctx context.Context, kind, key string, slot int64) (accepted bool, err error)
	// Owing says whether log entries of ref wait to be made, or are being made.
	Owing(ctx context.Context, ref artifact.Ref) (bool, error)
}

// Verifier says whether a manifest has what its policy asks for, from what the registry answers now.
type Verifier interface {
	Verify(ctx context.Context, p policy.Policy, l artifact.Listed) (evidence []artifact.Evidence, note string, signed bool, err error)
	// Owes gives the formats in which an entry of a transparency log is still to be made for signatures that were verified.
	Owes(ctx context.Context, p policy.Policy, evidence []artifact.Evidence) ([]artifact.Format, error)
}

// Policies are those of all projects as they are now.
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
	// Canaries names the projects whose policy says that they are canaries, and signs.
	Canaries() ([]string, error)
}
