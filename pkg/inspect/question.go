package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// Where signers answer a [Question]. The second also gives the documents themselves.
const (
	VerifyTopic   = "verify"
	EvidenceTopic = "evidence"
)

// Workers is how many questions of each topic one signer works on at once: so few that signing does not feel them.
const Workers = 2

// maxKey is the longest name or id of a key, in bytes.
const maxKey = 200

// Question asks about one manifest.
type Question struct {
	// Repository is the full name, and Reference a digest or a tag.
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	// Formats and Key, the name or the id of a key, take the place of what the policy asks for, where they are not empty: one
	// signature in each of these formats, and by this very key.
	Formats []artifact.Format `json:"formats,omitempty"`
	Key     string            `json:"key,omitempty"`
}

// Of asks about a manifest by what its policy asks for.
func Of(ref artifact.Ref) Question {
	return Question{Repository: ref.Repository(), Reference: ref.Digest()}
}

// Validate says what is wrong with a question. The error is a [*policy.FieldError].
func (q Question) Validate() error {
	if err := artifact.ValidateRepository(q.Repository); err != nil {
		return &policy.FieldError{Field: "image", Want: err.Error()}
	}
	validate := artifact.ValidateTag
	if strings.Contains(q.Reference, ":") {
		validate = artifact.ValidateDigest
	}
	if err := validate(q.Reference); err != nil {
		return &policy.FieldError{Field: "image", Want: err.Error()}
	}
	for i, f := range q.Formats {
		if f != artifact.Legacy && f != artifact.Bundle || slices.Contains(q.Formats[:i], f) {
			return &policy.FieldError{Field: "formats", Want: "want legacy, bundle or both of them, each once"}
		}
	}
	if len(q.Key) > maxKey {
		return &policy.FieldError{Field: "key", Want: fmt.Sprintf("want the name or the id of a key, of at most %d bytes", maxKey)}
	}
	return nil
}

// terms gives the policy with what the question asks for in its place. key is the name of the key that is asked for.
func (q Question) terms(p policy.Policy, key string) policy.Policy {
	switch {
	case len(q.Formats) == 2:
		p.Terms.Format = policy.FormatBoth
	case slices.Equal(q.Formats, []artifact.Format{artifact.Legacy}):
		p.Terms.Format = policy.FormatLegacy
	case slices.Equal(q.Formats, []artifact.Format{artifact.Bundle}):
		p.Terms.Format = policy.FormatBundle
	}
	if key != "" {
		p.Terms.Key, p.Terms.ActiveKeyOnly = key, true
	}
	return p
}

// Asker carries a question to one of the programs that answer a topic, and their answer or error back.
type Asker interface {
	Ask(ctx context.Context, topic string, request []byte) ([]byte, error)
}

// ask has one signer look. The error means that none has: it keeps the fault of the Asker.
func (q Question) ask(ctx context.Context, topic string, signers Asker) (Report, error) {
	request, err := json.Marshal(q)
	if err != nil {
		return Report{}, fmt.Errorf("asking the signers: %w", err)
	}
	raw, err := signers.Ask(ctx, topic, request)
	if err != nil {
		return Report{}, fmt.Errorf("asking the signers: %w", err)
	}
	return q.read(raw)
}

// read reads an answer. One about something else than what was asked for is none.
func (q Question) read(raw []byte) (Report, error) {
	var r Report
	err := json.Unmarshal(raw, &r)
	if err == nil {
		_, err = artifact.NewRef(r.Repository, r.Digest)
	}
	if err == nil && (r.Repository != q.Repository || strings.Contains(q.Reference, ":") && r.Digest != q.Reference) {
		err = fmt.Errorf("it is about %.600s@%.80s", r.Repository, r.Digest)
	}
	for _, child := range r.Children {
		if err == nil {
			err = artifact.ValidateDigest(child)
		}
	}
	if err != nil {
		return Report{}, fault.Newf(fault.Transient, fault.BadAnswer, "reading a signer's answer: %w", err)
	}
	// What is never nil is an empty list in an answer.
	r.Problems, r.Signatures = append([]Problem{}, r.Problems...), append([]Signature{}, r.Signatures...)
	r.Missing, r.Owed = append([]artifact.Format{}, r.Missing...), append([]artifact.Format{}, r.Owed...)
	r.Children = append([]string{}, r.Children...)
	return r, nil
}

// readQuestion reads what came over the queue.
func readQuestion(raw []byte) (Question, error) {
	var q Question
	if err := json.Unmarshal(raw, &q); err != nil {
		return Question{}, fault.Newf(fault.Permanent, fault.Malformed, "reading a question about an image: %w", err)
	}
	if err := q.Validate(); err != nil {
		return Question{}, fault.New(fault.Permanent, fault.Malformed, err)
	}
	return q, nil
}
