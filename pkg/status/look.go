package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// LookTopic is the topic on which receivers without an account in Harbor ask signers what is in the registry.
const LookTopic = "look"

// lookQuestion asks for one manifest, by tag or digest.
type lookQuestion struct {
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
}

// lookAnswer is what there is. Digest is empty if there is nothing.
type lookAnswer struct {
	Digest   string   `json:"digest,omitempty"`
	Children []string `json:"children,omitempty"`
}

// manifests reads from the registry. It is safe for concurrent use, makes one attempt, and its errors are faults: Gone if there is no
// such manifest.
type manifests interface {
	Manifest(ctx context.Context, repository, reference string) (artifact.Manifest, error)
}

// AnswerLook is the signer's side: it answers questions of LookTopic.
func AnswerLook(m manifests) func(ctx context.Context, question []byte) ([]byte, error) {
	return func(ctx context.Context, question []byte) ([]byte, error) {
		var q lookQuestion
		if err := json.Unmarshal(question, &q); err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("reading the question: %w", err))
		}
		if err := errors.Join(artifact.ValidateRepository(q.Repository), validateReference(q.Reference)); err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, err)
		}
		var answer lookAnswer
		found, err := m.Manifest(ctx, q.Repository, q.Reference)
		switch {
		case fault.Is(err, fault.Gone):
		case err != nil:
			return nil, fmt.Errorf("reading a manifest for a receiver: %w", err)
		default:
			answer.Digest = found.Digest
			// What cannot be read is no index, and is there all the same.
			if d, err := artifact.Describe(found.Raw, found.MediaType); err == nil {
				answer.Children = d.Children
			}
		}
		return json.Marshal(answer)
	}
}

func validateReference(reference string) error {
	if artifact.ValidateDigest(reference) == nil {
		return nil
	}
	return artifact.ValidateTag(reference)
}

// Asking looks into the registry by asking signers, for a receiver that has no account in Harbor.
type Asking struct {
	// Ask asks a signer, and gives its answer. Its errors are faults.
	Ask func(ctx context.Context, topic string, question []byte) ([]byte, error)
}

// Resolve gives the manifest that a tag or a digest names now, with its children.
func (a Asking) Resolve(ctx context.Context, repository, reference string) (artifact.Listed, error) {
	question, err := json.Marshal(lookQuestion{Repository: repository, Reference: reference})
	if err != nil {
		return artifact.Listed{}, fault.New(fault.Permanent, fault.Malformed, err)
	}
	raw, err := a.Ask(ctx, LookTopic, question)
	if err != nil {
		return artifact.Listed{}, fmt.Errorf("asking a signer for a manifest: %w", err)
	}
	var answer lookAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return artifact.Listed{}, fault.New(fault.Transient, fault.BadAnswer, fmt.Errorf("reading a signer's answer: %w", err))
	}
	if answer.Digest == "" {
		return artifact.Listed{}, fault.Newf(fault.Gone, fault.NotFound, "a signer does not find the manifest")
	}
	ref, err := artifact.NewRef(repository, answer.Digest)
	if err == nil && artifact.ValidateDigest(reference) == nil && answer.Digest != reference {
		err = errors.New("it is about another manifest")
	}
	if err != nil {
		return artifact.Listed{}, fault.New(fault.Transient, fault.BadAnswer, fmt.Errorf("reading a signer's answer: %w", err))
	}
	return artifact.Listed{Ref: ref, Children: answer.Children}, nil
}

// Answers says whether the registry hands out a manifest.
func (a Asking) Answers(ctx context.Context, ref artifact.Ref) (bool, error) {
	_, err := a.Resolve(ctx, ref.Repository(), ref.Digest())
	if fault.Is(err, fault.Gone) {
		return false, nil
	}
	return err == nil, err
}
