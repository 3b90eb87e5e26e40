package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// SetPause stops signing at once everywhere, or lets it go on. Requests wait meanwhile, and nothing is lost. An empty project
// stands for all. It needs nothing but the journal, so that it works without a receiver.
//
// The entry decides. A crash after it, and before the event: a repetition records the event, with the same id.
func SetPause(ctx context.Context, journal Journal, actor Actor, project string, paused bool, why string) error {
	return setPause(ctx, journal, actor, project, paused, why, time.Now())
}

// SetPause does the same with the service's own queue.
func (s *Service) SetPause(ctx context.Context, actor Actor, project string, paused bool, why string) error {
	err := setPause(ctx, s.cfg.Queue, actor, project, paused, why, s.cfg.Now())
	if err == nil {
		s.cfg.Logger.Warn().Str("project", project).Str("actor", actor.Name).Bool("paused", paused).Msg("signing paused or resumed")
	}
	return err
}

func checkPause(project string, paused bool, why string) error {
	if project != "" {
		if err := artifact.ValidateProject(project); err != nil {
			return fault.New(fault.Permanent, fault.Malformed, &policy.FieldError{Field: "project", Want: err.Error()})
		}
	}
	if (paused || why != "") && !policy.ValidReason(why) {
		return &policy.FieldError{Field: "reason", Want: fmt.Sprintf("want why, in at most %d bytes", policy.MaxReason)}
	}
	return nil
}

func setPause(ctx context.Context, journal Journal, actor Actor, project string, paused bool, why string, now time.Time) error {
	if err := checkPause(project, paused, why); err != nil {
		return err
	}
	for range attempts {
		entry, err := journal.GetPolicy(ctx, book.Pause, project)
		if err != nil {
			return fmt.Errorf("reading the pause: %w", err)
		}
		var pause policy.Pause
		if len(entry.Value) > 0 {
			if pause, err = policy.DecodePause(entry.Value); err != nil {
				return err
			}
		}
		// A repetition records the event alone, which the ledger has unless a crash came between.
		var before json.RawMessage
		switch {
		case pause.Paused != paused || paused && pause.Reason != why:
			before = entry.Value
			pause = policy.Pause{Paused: paused, By: actor.Name, Reason: why, At: now.UTC()}
			entry, err = putPause(ctx, journal, entry, pause)
		case len(entry.Value) == 0:
			return nil // it was never paused
		}
		if errors.Is(err, policy.ErrConflict) {
			continue
		}
		if err == nil {
			_, err = journal.Record(ctx, pauseEvent(entry, pause, before, actor))
		}
		if err != nil {
			return fmt.Errorf("storing and recording the pause: %w", err)
		}
		return nil
	}
	return fault.Newf(fault.Transient, fault.ConcurrentWriter, "storing the pause: %w", policy.ErrConflict)
}

func putPause(ctx context.Context, journal Journal, entry book.Entry, p policy.Pause) (book.Entry, error) {
	value, err := p.Encode()
	if err != nil {
		return book.Entry{}, err
	}
	entry.Revision, err = journal.PutPolicy(ctx, book.Pause, entry.Project, value, entry.Revision)
	entry.Value = value
	return entry, err
}

func pauseEvent(entry book.Entry, p policy.Pause, before json.RawMessage, actor Actor) artifact.Event {
	kind := artifact.Resumed
	if p.Paused {
		kind = artifact.Paused
	}
	sum := sha256.Sum256(entry.Value)
	id := artifact.EventID(kind, artifact.Ref{}, entry.Project, strconv.FormatUint(entry.Revision, 10), hex.EncodeToString(sum[:]))
	return artifact.Event{
		ID: id, Kind: kind, Project: entry.Project, Time: p.At, Actor: p.By, Origin: artifact.OriginAPI, CorrelationID: id, Detail: p.Reason,
		Change: &artifact.Change{Before: before, After: entry.Value, From: actor.From},
	}
}
