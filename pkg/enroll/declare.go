package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// configActor stands in the events of what the configuration file says, as who and as from where.
const configActor = "config"

// Declare publishes the policies of the configuration file, if they differ from those in the bucket, with an event. It is
// called at each start, and from then on by Run. Of receivers with different files the one that starts last is right.
//
// A crash after the entry was stored, and before the event: the next start records it, with the same id.
func (s *Service) Declare(ctx context.Context, declared *policy.Declared) error {
	value, err := declared.Encode()
	if err != nil {
		return fmt.Errorf("declaring the policies: %w", err)
	}
	s.declared.Store(declared)
	for range attempts {
		entry, err := s.cfg.Queue.GetPolicy(ctx, book.Declared, "")
		if err != nil {
			return fmt.Errorf("reading the declared policies: %w", err)
		}
		before := json.RawMessage(entry.Value)
		switch {
		case len(entry.Value) == 0 && len(declared.Rules()) == 0:
			return nil // there were none, and there are none
		case bytes.Equal(entry.Value, value):
			before = nil // it is recorded with the event, unless a crash came between
		default:
			entry.Revision, err = s.cfg.Queue.PutPolicy(ctx, book.Declared, "", value, entry.Revision)
			if errors.Is(err, policy.ErrConflict) {
				continue
			}
			if err != nil {
				return fmt.Errorf("storing the declared policies: %w", err)
			}
			s.hurry.Store(true)
			s.cfg.Logger.Info().Str("policy_revision", declared.Revision()).Msg("policies of the configuration file published")
		}
		s.cfg.Book.Apply(book.Entry{Kind: book.Declared, Value: value, Revision: entry.Revision, At: s.cfg.Now()})
		id := artifact.EventID(artifact.PolicyChanged, artifact.Ref{}, "", configActor, strconv.FormatUint(entry.Revision, 10), declared.Revision())
		return s.record(ctx, artifact.Event{
			ID: id, Kind: artifact.PolicyChanged, Time: s.cfg.Now().UTC(), Actor: configActor, Origin: artifact.OriginConfig,
			CorrelationID: id, PolicyRevision: declared.Revision(),
			Change: recordable(before, value),
		})
	}
	return fault.Newf(fault.Transient, fault.ConcurrentWriter, "storing the declared policies: %w", policy.ErrConflict)
}

// recordable leaves out what would keep the event from fitting into a message of the queue.
func recordable(before, after json.RawMessage) *artifact.Change {
	change := &artifact.Change{Before: before, After: after, From: configActor}
	for _, part := range []*json.RawMessage{&change.Before, &change.After} {
		if len(change.Before)+len(change.After) > maxDocument {
			sum := sha256.Sum256(*part)
			*part = json.RawMessage(strconv.Quote("too large to be kept; SHA-256 " + hex.EncodeToString(sum[:])))
		}
	}
	return change
}

// declaredSpec gives what the rule for a project says, as it is shown; nothing if there is none.
func (s *Service) declaredSpec(project string) (*policy.Spec, *policy.Backfill) {
	declared, err := s.cfg.Book.Declared()
	if err != nil || declared == nil {
		return nil, nil
	}
	rule, found := declared.Rule(project)
	if !found {
		return nil, nil
	}
	return &rule.Spec, &rule.Backfill
}
