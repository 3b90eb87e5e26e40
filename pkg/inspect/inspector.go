package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/signing"
)

const (
	// within bounds one question: less than whoever asks waits for an answer.
	within = 4500 * time.Millisecond
	// maxSignatures is how many signatures of each format are read.
	maxSignatures = 40
	// maxBlob is the largest blob of a signature that is read, in bytes.
	maxBlob = 256 << 10
)

// Fetch reads a blob of the subject's repository by its digest.
type Fetch = func(ctx context.Context, digest string) ([]byte, error)

// Reading is one signature as it was read, with what verifies of it: see package sigstore's, which has the same fields.
type Reading struct {
	Read                     artifact.Signature
	Blob                     string
	Document                 []byte
	Notes                    map[string]string
	Claim                    artifact.Claim
	Why                      string
	KeyID, KeyName, KeyState string
	Proven                   artifact.Signature
	Authority                string
}

// Formats reads signatures, whatever they are worth. It does no input or output of its own and is safe for concurrent use. A
// failing fetch is an error, unless it says that there is nothing to be had.
type Formats interface {
	// Tag is where the registry keeps the legacy signatures of a digest.
	Tag(digest string) string
	// Legacy reads those in a manifest under the tag, at most so many; more says that there are others.
	Legacy(ctx context.Context, m artifact.Manifest, claim artifact.Claim, limit int, fetch Fetch) (all []Reading, more bool, err error)
	// IsBundle says whether a referrer may be a bundle that holds a signature.
	IsBundle(d artifact.Descriptor) bool
	// Bundle reads the one in a bundle's manifest; false if it holds none.
	Bundle(ctx context.Context, m artifact.Manifest, claim artifact.Claim, fetch Fetch) (r Reading, ok bool, err error)
	// Key gives the name of the key that has this name or this id; false if there is none.
	Key(nameOrID string) (name string, known bool)
}

// Policies gives the policy of a project as it is now. An error means that it could not be read, never "not enabled".
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Config is what an Inspector needs. All of it is required, but for Now, which is time.Now otherwise.
type Config struct {
	Registry Registry
	Verifier *signing.Verifier
	Formats  Formats
	Policies Policies
	Now      func() time.Time
}

// Inspector answers questions about manifests. It is safe for concurrent use and remembers nothing.
type Inspector struct{ cfg Config }

// New validates the configuration.
func New(cfg Config) (*Inspector, error) {
	if cfg.Registry == nil || cfg.Verifier == nil || cfg.Formats == nil || cfg.Policies == nil {
		return nil, errors.New("inspector: registry, verifier, formats and policies are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Inspector{cfg}, nil
}

// AnswerVerify answers [VerifyTopic]. The errors are faults: Gone if the registry has no such manifest, Transient if something
// could not be read.
func (i *Inspector) AnswerVerify(ctx context.Context, request []byte) ([]byte, error) {
	return i.answer(ctx, request, false)
}

// AnswerEvidence answers [EvidenceTopic]; its errors are those of AnswerVerify.
func (i *Inspector) AnswerEvidence(ctx context.Context, request []byte) ([]byte, error) {
	return i.answer(ctx, request, true)
}

func (i *Inspector) answer(ctx context.Context, request []byte, documents bool) ([]byte, error) {
	q, err := readQuestion(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	report, err := i.look(ctx, q, documents)
	if err != nil {
		return nil, err
	}
	return json.Marshal(report)
}

// look reads a manifest with its signatures and gives the verdict.
func (i *Inspector) look(ctx context.Context, q Question, documents bool) (Report, error) {
	project, _, _ := strings.Cut(q.Repository, "/")
	p, err := i.cfg.Policies.Policy(ctx, project)
	if err != nil {
		return Report{}, fmt.Errorf("reading the policy: %w", err)
	}
	seen := newView(i.cfg.Registry)
	m, err := seen.Manifest(ctx, q.Repository, q.Reference)
	if err != nil {
		return Report{}, fmt.Errorf("reading the manifest: %w", err)
	}
	ref, err := artifact.NewRef(q.Repository, m.Digest)
	if err != nil {
		return Report{}, fault.New(fault.Permanent, fault.BadAnswer, err)
	}
	r := Report{
		Repository: ref.Repository(), Digest: ref.Digest(), MediaType: m.MediaType, Problems: []Problem{}, Children: []string{},
		Missing: []artifact.Format{}, Owed: []artifact.Format{}, Signatures: []Signature{}, CheckedAt: i.cfg.Now().UTC(),
	}
	r.describe(m)
	if err := i.judge(ctx, seen, ref, q, p, &r); err != nil {
		return Report{}, err
	}
	if err := i.read(ctx, seen, ref, &r, documents); err != nil {
		if err := r.unmet(err); err != nil {
			return Report{}, err
		}
		r.MoreSignatures = true
	}
	r.Verified = len(r.Problems) == 0
	return r, nil
}

// describe adds what the manifest says of itself.
func (r *Report) describe(m artifact.Manifest) {
	d, err := artifact.Describe(m.Raw, m.MediaType)
	if err != nil {
		r.problem(Unreadable, "the manifest cannot be read: %.300v", err)
		return
	}
	r.MediaType, r.ChildrenTotal = d.MediaType, len(d.Children)
	r.Children = append(r.Children, d.Children[:min(len(d.Children), signing.MaxChildren)]...)
}

func (r *Report) problem(reason Reason, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{Reason: reason, Detail: fmt.Sprintf(format, args...)})
}

// judge adds the verdict.
func (i *Inspector) judge(ctx context.Context, seen *view, ref artifact.Ref, q Question, p policy.Policy, r *Report) error {
	key := ""
	if q.Key != "" {
		var known bool
		if key, known = i.cfg.Formats.Key(q.Key); !known {
			r.problem(UnknownKey, "the signer's configuration has no key with the name or the id %.200q", q.Key)
			return nil
		}
	}
	p = q.terms(p, key)
	verifier := i.cfg.Verifier.Over(seen)
	need, err := verifier.Require(ctx, p)
	if err != nil {
		return r.unmet(err)
	}
	r.Asked = &Asked{
		Enabled: p.Enabled(), Mode: p.Mode, PolicyRevision: p.Revision, Formats: need.Formats, Key: need.Key,
		ActiveKeyOnly: need.ActiveOnly, Transparency: need.Transparency, Log: need.Log, Timestamp: need.Timestamp,
	}
	verdict, err := verifier.Verify(ctx, ref, need)
	if err != nil {
		return r.unmet(fmt.Errorf("verifying: %w", err))
	}
	r.Missing, r.Owed = append(r.Missing, verdict.Missing...), append(r.Owed, verdict.Owed...)
	r.LockedBy = verdict.LockedBy
	if !verdict.Signed() {
		missing := verdict.Missing
		if len(missing) == 0 {
			missing = need.Formats
		}
		for _, format := range missing {
			r.problem(MissingSignature, "no signature in the format %s is what is asked for: signatures says what stands there", format)
		}
	}
	return nil
}

// unmet adds why what is asked for cannot be, or be told within the limits; other errors it gives back.
func (r *Report) unmet(err error) error {
	switch fault.Of(err).Reason {
	case fault.UnsupportedFormat:
		r.problem(UnsupportedFormat, "%.500v", err)
	case fault.Unverifiable:
		r.problem(Unverifiable, "%.500v", err)
	case fault.TooLarge:
		r.problem(TooMuch, "%.500v", err)
	default:
		return err
	}
	return nil
}

// read adds the signatures of both formats, also where one alone is asked for.
func (i *Inspector) read(ctx context.Context, seen *view, ref artifact.Ref, r *Report, documents bool) error {
	claim := i.cfg.Verifier.Claim(ref, signing.Requirement{})
	fetch := func(ctx context.Context, digest string) ([]byte, error) {
		return seen.Blob(ctx, ref.Repository(), digest, maxBlob)
	}
	var left *budget
	if documents {
		left = newBudget()
	}
	tag, err := seen.Manifest(ctx, ref.Repository(), i.cfg.Formats.Tag(ref.Digest()))
	switch {
	case fault.Is(err, fault.Gone):
	case err != nil:
		return fmt.Errorf("reading the signatures: %w", err)
	default:
		found, more, err := i.cfg.Formats.Legacy(ctx, tag, claim, maxSignatures, fetch)
		if err != nil {
			return fmt.Errorf("reading the signatures: %w", err)
		}
		r.MoreSignatures = more
		for _, reading := range found {
			r.Signatures = append(r.Signatures, describe(reading, tag.Digest, claim, left))
		}
	}
	return i.readBundles(ctx, seen, ref, claim, r, fetch, left)
}

func (i *Inspector) readBundles(
	ctx context.Context, seen *view, ref artifact.Ref, claim artifact.Claim, r *Report, fetch Fetch, left *budget,
) error {
	listed, err := seen.Referrers(ctx, ref.Repository(), ref.Digest())
	if err != nil && !fault.Is(err, fault.Gone) {
		return fmt.Errorf("listing what refers to the manifest: %w", err)
	}
	read := 0
	for _, d := range listed {
		if !i.cfg.Formats.IsBundle(d) {
			continue
		}
		if read == maxSignatures {
			r.MoreSignatures = true
			return nil
		}
		read++
		m, err := seen.Manifest(ctx, ref.Repository(), d.Digest)
		if err != nil {
			if f := fault.Of(err); f.Kind == fault.Gone || f.Reason == fault.TooLarge {
				continue // as the verdict passes over it
			}
			return fmt.Errorf("reading a bundle's manifest: %w", err)
		}
		reading, ok, err := i.cfg.Formats.Bundle(ctx, m, claim, fetch)
		if err != nil {
			return fmt.Errorf("reading a bundle: %w", err)
		}
		if ok {
			r.Signatures = append(r.Signatures, describe(reading, d.Digest, claim, left))
		}
	}
	return nil
}
