package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// attempts is how often a change is tried whose compare-and-set others win.
const attempts = 5

// stored is a document as this package writes it: with the address that its last change came from, which stands in the
// change's event and nowhere else.
type stored struct {
	policy.Document
	ChangedFrom string `json:"changed_from,omitempty"`
}

// What one document may have, in bytes. An event holds two of them, before and after, without the blocks that both have, and has
// to fit into one message of the queue: what cannot be recorded must not come into force.
const (
	maxTerms    = 256 << 10 // without blocks
	maxDocument = 900 << 10
)

func (d stored) encode() ([]byte, error) {
	terms := d.Document
	terms.Blocks = nil
	if raw, err := terms.Encode(); err == nil && len(raw) > maxTerms {
		return nil, &policy.FieldError{Field: "policy", Want: fmt.Sprintf("want at most %d KiB: name fewer, or more general, globs and exemptions", maxTerms>>10)}
	}

	raw, err := d.Encode() // validates, and sets the version
	if err != nil {
		return nil, err
	}
	full := stored{}
	if err := json.Unmarshal(raw, &full); err != nil {
		return nil, fmt.Errorf("encoding a policy: %w", err)
	}
	full.ChangedFrom = d.ChangedFrom
	if raw, err = json.Marshal(full); err == nil && len(raw) > maxDocument {
		return nil, &policy.FieldError{Field: "blocks", Want: fmt.Sprintf("want at most %d KiB in all: unblock what is deleted, or give shorter reasons", maxDocument>>10)}
	}
	return raw, err
}

// decodeStored gives nil for an entry without a value.
func decodeStored(e book.Entry) (*stored, error) {
	if len(e.Value) == 0 {
		return nil, nil //nolint:nilnil // no document is an ordinary answer, not an error
	}
	document, err := policy.DecodeDocument(e.Value)
	if err != nil {
		return nil, fmt.Errorf("policy of project %q at revision %d: %w", e.Project, e.Revision, err)
	}
	d := stored{Document: document}
	var head struct {
		ChangedFrom string `json:"changed_from"`
	}
	if err := json.Unmarshal(e.Value, &head); err != nil {
		return nil, fmt.Errorf("policy of project %q at revision %d: %w", e.Project, e.Revision, err)
	}
	d.ChangedFrom = head.ChangedFrom
	return &d, nil
}

// current is what is known of a project at one moment.
type current struct {
	project string
	// rule is the policy that the configuration file declares; nil if it does not name the project.
	rule *policy.Policy
	// document is the API's; nil if there is none. revision is that of its entry, also of a deleted one.
	document *stored
	revision uint64
	state    policy.State
}

// load reads the document and the state from the bucket itself, so that it sees every change that was confirmed.
func (s *Service) load(ctx context.Context, project string) (current, error) {
	if err := artifact.ValidateProject(project); err != nil {
		return current{}, fault.New(fault.Permanent, fault.Malformed, &policy.FieldError{Field: "project", Want: err.Error()})
	}
	c := current{project: project}
	declared, err := s.cfg.Book.Declared()
	if err != nil {
		return current{}, err
	}
	if declared != nil {
		if p, found := declared.Lookup(project); found {
			c.rule = &p
		}
	}
	entry, err := s.cfg.Queue.GetPolicy(ctx, book.Policy, project)
	if err != nil {
		return current{}, fmt.Errorf("reading the policy: %w", err)
	}
	c.revision = entry.Revision
	if c.document, err = decodeStored(entry); err != nil {
		return current{}, err
	}
	c.state, _, err = s.state(ctx, project)
	return c, err
}

// policy gives what counts for the project: the configuration file's word, else the document's.
func (c current) policy() policy.Policy {
	var p policy.Policy
	switch {
	case c.rule != nil:
		p = *c.rule
		if c.document != nil {
			p.Blocks = slices.Concat(p.Blocks, c.document.Blocks)
		}
	case c.document != nil:
		p = c.document.Policy(c.revision)
	}
	p.Project = c.project
	// Where the document is that of the other project already, a crash came before the state was told.
	if p.ProjectID != 0 && p.ProjectID != c.state.SuspendedFor {
		p.SuspendedFor = c.state.SuspendedFor
	}
	return p
}

// working says whether images are signed or observed: the policy is on, and the project the one that it was put for.
func (c current) working() bool { return policy.Admit(c.policy()).Sign }

// put replaces the document. A crash before it leaves everything as it was; from it on the change is in force for signers
// and receivers alike, whatever becomes of the rest.
func (s *Service) put(ctx context.Context, d stored, expect uint64) (book.Entry, error) {
	value, err := d.encode()
	if err != nil {
		return book.Entry{}, err
	}
	revision, err := s.cfg.Queue.PutPolicy(ctx, book.Policy, d.Project, value, expect)
	if err != nil {
		return book.Entry{}, fmt.Errorf("storing the policy: %w", err)
	}
	entry := book.Entry{Kind: book.Policy, Project: d.Project, Value: value, Revision: revision, At: s.cfg.Now()}
	// The watch of the bucket brings it as well; this call's own receiver need not wait for it.
	s.cfg.Book.Apply(entry)
	return entry, nil
}

// state reads what the service keeps about a project.
func (s *Service) state(ctx context.Context, project string) (policy.State, uint64, error) {
	entry, err := s.cfg.Queue.GetPolicy(ctx, book.State, project)
	if err != nil {
		return policy.State{}, 0, fmt.Errorf("reading the project's state: %w", err)
	}
	if len(entry.Value) == 0 {
		return policy.State{Project: project}, entry.Revision, nil
	}
	state, err := policy.DecodeState(entry.Value)
	return state, entry.Revision, err
}

// update changes the state with compare-and-set, and writes nothing if nothing changes. change may be called again, with a
// newer state.
func (s *Service) update(ctx context.Context, project string, change func(*policy.State)) (policy.State, error) {
	for range attempts {
		state, revision, err := s.state(ctx, project)
		if err != nil {
			return policy.State{}, err
		}
		before, err := state.Encode()
		if err != nil {
			return policy.State{}, err
		}
		state.Problems = slices.Clone(state.Problems)
		change(&state)
		after, err := state.Encode()
		if err != nil || bytes.Equal(before, after) {
			return state, err
		}
		revision, err = s.cfg.Queue.PutPolicy(ctx, book.State, project, after, revision)
		if errors.Is(err, policy.ErrConflict) {
			continue
		}
		if err != nil {
			return policy.State{}, fmt.Errorf("storing the project's state: %w", err)
		}
		s.cfg.Book.Apply(book.Entry{Kind: book.State, Project: project, Value: after, Revision: revision, At: s.cfg.Now()})
		return state, nil
	}
	return policy.State{}, fault.Newf(fault.Transient, fault.ConcurrentWriter, "storing the project's state: %w", policy.ErrConflict)
}

// recordChanges makes an event of each change of the policy up to the revision that is not in the ledger yet. The bucket's
// history is the journal: an event that a crash has swallowed is recorded by whoever comes next, with the same id and the
// same words.
func (s *Service) recordChanges(ctx context.Context, project string, revision uint64) error {
	s.mu.Lock()
	done := s.recorded[project]
	s.mu.Unlock()
	if done >= revision {
		return nil
	}
	history, err := s.cfg.Queue.PolicyHistory(ctx, project)
	if err != nil {
		return fmt.Errorf("reading the policy's history: %w", err)
	}
	reached := done
	var before *stored
	for _, entry := range history {
		after, err := decodeStored(entry)
		if err != nil {
			// Written by a newer program, which records it.
			s.cfg.Logger.Warn().Err(err).Str("project", project).Msg("change of a policy cannot be read, and is not recorded")
			before, reached = nil, entry.Revision
			continue
		}
		if entry.Revision > done && after != nil {
			if err := s.recordChange(ctx, entry, before, after); err != nil {
				return err
			}
		}
		before, reached = after, entry.Revision
	}
	if reached < revision {
		return fault.Newf(fault.Transient, fault.QueueUnavailable, "the policy's history ends at revision %d and lacks %d", reached, revision)
	}
	s.remember(project, reached)
	return nil
}

// recordChange records one change, before which all have been recorded.
func (s *Service) recordChange(ctx context.Context, entry book.Entry, before, after *stored) error {
	event, err := changeEvent(entry, before, after)
	if err != nil {
		return err
	}
	if err := s.record(ctx, event); err != nil {
		return err
	}
	s.remember(entry.Project, entry.Revision)
	return nil
}

func (s *Service) remember(project string, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recorded[project] = max(revision, s.recorded[project])
}

func changeEvent(entry book.Entry, before, after *stored) (artifact.Event, error) {
	sum := sha256.Sum256(entry.Value)
	old, err := changed(before, after)
	if err != nil {
		return artifact.Event{}, err
	}
	now, err := changed(after, before)
	if err != nil {
		return artifact.Event{}, err
	}
	id := artifact.EventID(artifact.PolicyChanged, artifact.Ref{}, entry.Project, strconv.FormatUint(entry.Revision, 10), hex.EncodeToString(sum[:]))
	return artifact.Event{
		ID: id, Kind: artifact.PolicyChanged, Project: entry.Project, Time: after.ChangedAt, Actor: after.ChangedBy,
		Origin: artifact.OriginAPI, CorrelationID: id, PolicyRevision: after.Policy(entry.Revision).Revision,
		Change: &artifact.Change{Before: old, After: now, From: after.ChangedFrom},
	}, nil
}

// changed gives the JSON of a document without the blocks that the other one has too: with a thousand of them twice, an event
// would be larger than the queue takes.
func changed(d, other *stored) (json.RawMessage, error) {
	if d == nil {
		return nil, nil
	}
	reduced := d.Document
	if other != nil {
		reduced.Blocks = slices.DeleteFunc(slices.Clone(d.Blocks), func(b policy.Block) bool { return slices.Contains(other.Blocks, b) })
	}
	return reduced.Encode()
}

// record appends an event. It is safe to repeat: the ledger keeps the first event of an id.
func (s *Service) record(ctx context.Context, event artifact.Event) error {
	if _, err := s.cfg.Queue.Record(ctx, event); err != nil {
		return fmt.Errorf("recording the %s event: %w", event.Kind, err)
	}
	return nil
}
