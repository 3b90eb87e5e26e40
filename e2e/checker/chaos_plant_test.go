package checker_test

import (
	"crypto/ecdsa"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/harborseal/harborseal/e2e/checker"
)

// run is a run of one image that was pushed, signed in both formats and reported, all as it should be, until something is
// planted.
type run struct {
	*garden
	checker.Chaos

	digest string
	// pushed is the step of the push.
	pushed checker.Step
	// layer is the legacy signature, tagged and bundled are the digests of the signatures' manifests.
	layer           mutate.Addendum
	tagged, bundled string
	keyID           string
}

const (
	project = "demo"
	ourKey  = "ours"
)

// at is a time of the run, in seconds.
func at(seconds int) time.Time { return time.Unix(1_800_000_000+int64(seconds), 0).UTC() }

// step is one that took a second and was acknowledged.
func step(kind checker.StepKind, began int) checker.Step {
	return checker.Step{Kind: kind, Began: at(began), Ended: at(began + 1), Accepted: true}
}

func policy(began int, formats ...checker.Format) checker.Step {
	s := step(checker.StepPolicy, began)
	s.Project, s.Formats, s.Enabled = project, formats, len(formats) > 0
	return s
}

func push(began int, digest string) checker.Step {
	s := step(checker.StepPush, began)
	s.Repository, s.Digest, s.Tag = repository, digest, "v1"
	return s
}

func faultStep(kind string, began, ended int) checker.Step {
	return checker.Step{Kind: checker.StepFault, Fault: kind, Began: at(began), Ended: at(ended)}
}

func newRun(t *testing.T) *run {
	t.Helper()
	g := newGarden(t)
	id, err := checker.KeyID(&g.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{garden: g, digest: g.image(t), keyID: id}
	r.Checkers = map[string]*checker.Checker{ourKey: g.checker}
	r.pushed = push(100, r.digest)
	r.Journal = []checker.Step{policy(0, checker.Formats()...), r.pushed}
	r.layer = r.garden.layer(t, r.digest, claim{})
	r.tagged = r.sign(t, r.digest, r.layer)
	r.bundled, _ = r.bundle(t, r.digest, statement{})
	r.tell(r.digest, "signed", "", 110, r.evidence()...)
	return r
}

func (r *run) evidence() []checker.RowSignature {
	return []checker.RowSignature{
		{Format: checker.Legacy, KeyID: r.keyID, Digest: r.tagged}, {Format: checker.Bundle, KeyID: r.keyID, Digest: r.bundled},
	}
}

// tell makes an event of a digest and its row.
func (r *run) tell(digest, state, reason string, stored int, signatures ...checker.RowSignature) {
	r.event(digest, state, reason, stored, signatures...)
	r.Rows = append(r.Rows, checker.Row{Repository: repository, Digest: digest, State: state, Reason: reason, Signatures: signatures})
}

func (r *run) event(digest, kind, reason string, stored int, signatures ...checker.RowSignature) {
	r.Ledger = append(r.Ledger, checker.LedgerEvent{
		Seq: uint64(len(r.Ledger) + 1), Stored: at(stored), Kind: kind, Ref: repository + "@" + digest, Reason: reason, Signatures: signatures,
	})
}

// another pushes one more image, which nobody signs, and tells of it.
func (r *run) another(t *testing.T, state, reason string) string {
	t.Helper()
	digest := r.image(t)
	r.Journal = append(r.Journal, push(200, digest))
	if state != "" {
		r.tell(digest, state, reason, 210)
	}
	return digest
}

// dead is another that was given up, with its letter.
func (r *run) dead(t *testing.T, reason string) {
	t.Helper()
	digest := r.another(t, "dead", reason)
	r.Letters = append(r.Letters, checker.Letter{Repository: repository, Digest: digest, Reason: reason})
}

// by is another party's signature in the journal, and the key.
func (r *run) by(t *testing.T, format checker.Format) (checker.Step, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	return checker.Step{
		Kind: checker.StepForeign, Began: at(300), Ended: at(301), Accepted: true,
		Repository: repository, Digest: r.digest, Format: format, Key: string(publicPEM(t, key)),
	}, key
}

// theirs is the layer that another party makes, which names the registry as that reaches it.
func (r *run) theirs(t *testing.T, key *ecdsa.PrivateKey) mutate.Addendum {
	t.Helper()
	return r.garden.layer(t, r.digest, claim{key: key, identity: "127.0.0.1:80/" + repository})
}

// planted is one change of a good run, and the rules that it breaks.
type planted struct {
	name  string
	plant func(t *testing.T, r *run)
	want  []checker.Rule
}

func try(t *testing.T, tests []planted) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t)
			tt.plant(t, r)
			found, err := r.Check(t.Context())
			if err != nil {
				t.Fatalf("checking: %v", err)
			}
			if got := rules(found.Violations); !slices.Equal(got, tt.want) {
				t.Errorf("broken rules are %q, want %q: %v", got, tt.want, found.Violations)
			}
		})
	}
}

const absent = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
