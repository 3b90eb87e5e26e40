package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// The topics under which workers ask for the ledger's memory, which receivers keep.
const (
	TopicKnown = "known"
	TopicUnits = "units"
)

// MaxBatch is how many references one question has at most.
const MaxBatch = 100

type knownQuestion struct {
	Refs []artifact.Ref `json:"refs"`
}

type knownAnswer struct {
	Known []artifact.Known `json:"known"`
}

type unitsQuestion struct {
	Project string `json:"project"`
	After   string `json:"after,omitempty"`
	Limit   int    `json:"limit"`
}

type unitsAnswer struct {
	Refs []artifact.Ref `json:"refs"`
	Next string         `json:"next,omitempty"`
}

// Asker carries a question to whoever answers, and the answer back.
type Asker interface {
	Ask(ctx context.Context, topic string, request []byte) ([]byte, error)
}

// RemoteMemory is a [Memory] that asks over the queue. An answer that does not fit its question is a transient fault.
type RemoteMemory struct{ asker Asker }

// NewRemoteMemory makes a RemoteMemory.
func NewRemoteMemory(asker Asker) (*RemoteMemory, error) {
	if asker == nil {
		return nil, errors.New("remote memory: who is asked is required")
	}
	return &RemoteMemory{asker: asker}, nil
}

// Known implements [Memory].
func (m *RemoteMemory) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	answer, err := ask[knownAnswer](ctx, m.asker, TopicKnown, knownQuestion{Refs: refs})
	if err != nil {
		return nil, fmt.Errorf("asking what the ledger knows: %w", err)
	}
	return answer.Known, fits(refs, answer.Known)
}

// Units implements [Memory].
func (m *RemoteMemory) Units(ctx context.Context, project, after string, limit int) ([]artifact.Ref, string, error) {
	answer, err := ask[unitsAnswer](ctx, m.asker, TopicUnits, unitsQuestion{Project: project, After: after, Limit: limit})
	if err != nil {
		return nil, "", fmt.Errorf("asking for the digests that the ledger knows: %w", err)
	}
	if answer.Next != "" && answer.Next == after {
		return nil, "", fault.Newf(fault.Transient, fault.BadAnswer, "the ledger's list of digests does not go on")
	}
	return answer.Refs, answer.Next, nil
}

func ask[T any](ctx context.Context, asker Asker, topic string, question any) (T, error) {
	var answer T
	data, err := json.Marshal(question)
	if err != nil {
		return answer, fault.New(fault.Permanent, fault.Malformed, err)
	}
	if data, err = asker.Ask(ctx, topic, data); err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fault.New(fault.Transient, fault.BadAnswer, err)
	}
	return answer, nil
}

// fits refuses an answer in which what belongs to one reference could be taken for another's.
func fits(refs []artifact.Ref, known []artifact.Known) error {
	if len(known) != len(refs) {
		return fault.Newf(fault.Transient, fault.BadAnswer, "the ledger answers for %d digests, want %d", len(known), len(refs))
	}
	for i, k := range known {
		if k.Ref != refs[i] {
			return fault.Newf(fault.Transient, fault.BadAnswer, "the ledger answers for %s, want %s", k.Ref, refs[i])
		}
	}
	return nil
}

// AnswerKnown gives the function that answers questions of [TopicKnown] from a memory.
func AnswerKnown(m Memory) func(ctx context.Context, question []byte) ([]byte, error) {
	return func(ctx context.Context, question []byte) ([]byte, error) {
		var q knownQuestion
		if err := json.Unmarshal(question, &q); err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("reading the question: %w", err))
		}
		if len(q.Refs) > MaxBatch {
			return nil, fault.Newf(fault.Permanent, fault.TooLarge, "a question about %d digests, at most %d are answered", len(q.Refs), MaxBatch)
		}
		for _, ref := range q.Refs {
			if ref.IsZero() {
				return nil, fault.Newf(fault.Permanent, fault.Malformed, "a question about nothing")
			}
		}
		known, err := m.Known(ctx, q.Refs)
		if err != nil {
			return nil, err
		}
		return json.Marshal(knownAnswer{Known: known})
	}
}

// AnswerUnits gives the function that answers questions of [TopicUnits] from a memory.
func AnswerUnits(m Memory) func(ctx context.Context, question []byte) ([]byte, error) {
	return func(ctx context.Context, question []byte) ([]byte, error) {
		var q unitsQuestion
		if err := json.Unmarshal(question, &q); err != nil {
			return nil, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("reading the question: %w", err))
		}
		if err := artifact.ValidateProject(q.Project); err != nil || q.Limit < 1 {
			return nil, fault.Newf(fault.Permanent, fault.Malformed, "want a project and a limit of at least 1")
		}
		refs, next, err := m.Units(ctx, q.Project, q.After, min(q.Limit, MaxBatch))
		if err != nil {
			return nil, err
		}
		return json.Marshal(unitsAnswer{Refs: refs, Next: next})
	}
}
