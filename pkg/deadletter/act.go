package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

// MinWhy and MaxWhy are how long the reason for discarding a letter is, in characters, without blanks around it.
const (
	MinWhy = 3
	MaxWhy = 500
)

// maxEvidence bounds what an event repeats of a request that cannot be read, in bytes.
const maxEvidence = 2048

// Actor is who does something.
type Actor struct {
	// Name is what the ledger calls it.
	Name string
	// From is where it came from: an address, or "cli".
	From string
}

// Replayed is a letter whose request is in the queue again.
type Replayed struct {
	Letter artifact.DeadLetter
	// Waiting says that a request for the manifest waited already, or was in work: it stands for this one. The letter is there
	// still: that request may be the one that the letter is about, in the moment before it goes.
	Waiting bool
}

// UnreadableError says that a letter cannot be replayed, because its request cannot be read. Its text says what to do.
type UnreadableError struct{ Letter artifact.DeadLetter }

// Error implements error.
func (e *UnreadableError) Error() string {
	text := fmt.Sprintf("dead letter %d cannot be replayed, because its request cannot be read", e.Letter.ID)
	if e.Letter.Reason == string(fault.NewerVersion) {
		text += ": a newer program wrote it. Upgrade receiver and signer, and replay it then"
		if !e.Letter.Ref.IsZero() {
			text += "; or ask for a sweep of project " + e.Letter.Ref.Project() + ", which asks for the image anew"
		}
		return text
	}
	if e.Letter.Ref.IsZero() {
		return text + ", not even which image it was for. Sweeps ask anew for every image that is not signed: look at what was stored, and discard it"
	}
	return text + ". Ask for a sweep of project " + e.Letter.Ref.Project() + ", which asks for the image anew, and discard it"
}

// Replay asks for the manifest of a letter again, in the lane bulk, and removes the letter, unless a request waits already: then
// the letter goes when that one is signed, and a failure replaces it. Whoever wants it is in the ledger before. The error is an [*UnreadableError], a fault of kind Gone if the letter is not there, or another fault.
//
// A crash after the event: the letter is there, and nobody works on it; repeating records the same event. After the request:
// the letter may be replayed once more, and the queue takes that for a duplicate or signs what is signed already, which it finds.
// If the request has failed again by then, that wrote a letter of its own, which stays.
func (s *Service) Replay(ctx context.Context, actor Actor, id uint64) (Replayed, error) {
	l, err := s.Show(ctx, id)
	if err != nil {
		return Replayed{}, err
	}
	if l.Request == nil {
		return Replayed{}, fault.New(fault.Permanent, unreadable(l), &UnreadableError{Letter: l})
	}
	event, err := s.event(ctx, artifact.Replayed, l, actor)
	if err != nil {
		return Replayed{}, err
	}
	event.Origin, event.Lane = artifact.OriginReplay, artifact.Bulk
	if _, err := s.queue.Record(ctx, event); err != nil {
		return Replayed{}, fmt.Errorf("recording that dead letter %d is replayed: %w", id, err)
	}
	again := artifact.Request{
		Ref: l.Ref, Lane: artifact.Bulk, Origin: artifact.OriginReplay, Actor: actor.Name, CorrelationID: event.CorrelationID,
		RequestedAt: event.Time,
		// What decides whether the manifest is to be signed stays as it was. No received event is behind this request: the
		// signer looks for the newest one itself.
		Parent: l.Request.Parent, Depth: l.Request.Depth, PushedAt: l.Request.PushedAt, SignedBefore: l.Request.SignedBefore,
	}
	waiting, err := s.queue.Enqueue(ctx, again)
	if err != nil {
		return Replayed{}, fmt.Errorf("asking again for what dead letter %d is about: %w", id, err)
	}
	if waiting {
		return Replayed{Letter: l, Waiting: true}, nil
	}
	if err := s.queue.RemoveLetter(ctx, id); err != nil {
		return Replayed{}, fmt.Errorf("it is replayed, and removing dead letter %d failed: %w", id, err)
	}
	s.logger.Info().Str("project", l.Ref.Project()).Str("repository", l.Ref.Repository()).Str("digest", l.Ref.Digest()).
		Str("correlation_id", event.CorrelationID).Str("actor", actor.Name).Uint64("letter", id).Str("outcome", "replayed").Msg("dead letter replayed")
	return Replayed{Letter: l}, nil
}

// unreadable is why the request of a letter cannot be read.
func unreadable(l artifact.DeadLetter) fault.Reason {
	if l.Reason == string(fault.NewerVersion) {
		return fault.NewerVersion
	}
	return fault.Malformed
}

// Discard takes a letter away for good. Who and why is in the ledger before. It forbids nothing: while the manifest is in
// Harbor and is to be signed, the next full sweep asks for it again. The error is a [*policy.FieldError] about why, a fault of
// kind Gone if the letter is not there, or another fault.
//
// A crash after the event: the letter is there, and repeating records the same event.
func (s *Service) Discard(ctx context.Context, actor Actor, id uint64, why string) (artifact.DeadLetter, error) {
	why, err := CheckWhy(why)
	if err != nil {
		return artifact.DeadLetter{}, err
	}
	l, err := s.Show(ctx, id)
	if err != nil {
		return artifact.DeadLetter{}, err
	}
	kind := artifact.Discarded
	if l.Ref.IsZero() {
		kind = artifact.Unreadable
	}
	event, err := s.event(ctx, kind, l, actor, why)
	if err != nil {
		return artifact.DeadLetter{}, err
	}
	event.Origin, event.Reason, event.Detail = artifact.OriginAPI, l.Reason, why
	if _, err := s.queue.Record(ctx, event); err != nil {
		return artifact.DeadLetter{}, fmt.Errorf("recording that dead letter %d is discarded: %w", id, err)
	}
	if err := s.queue.RemoveLetter(ctx, id); err != nil {
		return artifact.DeadLetter{}, fmt.Errorf("it is recorded as discarded, and removing dead letter %d failed: %w", id, err)
	}
	s.logger.Warn().Str("project", l.Ref.Project()).Str("repository", l.Ref.Repository()).Str("digest", l.Ref.Digest()).
		Str("actor", actor.Name).Uint64("letter", id).Str("outcome", "discarded").Msg("dead letter discarded")
	return l, nil
}

// CheckWhy checks the reason for discarding a letter, and gives it without blanks around it. The error is a [*policy.FieldError].
func CheckWhy(why string) (string, error) {
	why = strings.TrimSpace(why)
	hidden := func(r rune) bool { return !unicode.IsGraphic(r) }
	if n := utf8.RuneCountInString(why); n < MinWhy || n > MaxWhy || !utf8.ValidString(why) || strings.ContainsFunc(why, hidden) {
		return "", &policy.FieldError{Field: "why", Want: fmt.Sprintf(
			"want why it is discarded, for whoever asks later: one line of %d to %d characters, none of them invisible", MinWhy, MaxWhy)}
	}
	return why, nil
}

// event begins an event about a letter. Its id is made of the letter, of who and of what is said, so that a repetition is the same
// fact. The same two requests of different people are two facts.
//
// The correlation id is a new one: records of the attempts that follow would otherwise have the ids of those that are known from
// before the letter, and the ledger would take them for those.
func (s *Service) event(ctx context.Context, kind artifact.Kind, l artifact.DeadLetter, actor Actor, parts ...string) (artifact.Event, error) {
	canary, err := s.canary(ctx, l)
	if err != nil {
		return artifact.Event{}, err
	}
	sum := sha256.Sum256(l.Stored)
	parts = append(parts, strconv.FormatUint(l.ID, 10), strconv.FormatInt(l.LastAt.UnixNano(), 10), hex.EncodeToString(sum[:]), actor.Name)
	id := artifact.EventID(kind, l.Ref, parts...)
	return artifact.Event{
		ID: id, Kind: kind, Ref: l.Ref, Time: s.now().UTC(), Actor: actor.Name, CorrelationID: "letter-" + id,
		Change: &artifact.Change{Before: evidence(l), From: actor.From}, Canary: canary,
	}, nil
}

// canary says whether a letter is about an image of the service's own. What is in no report must not come into it by this door.
func (s *Service) canary(ctx context.Context, l artifact.DeadLetter) (bool, error) {
	if l.Ref.IsZero() {
		return false, nil
	}
	p, err := s.policies.Policy(ctx, l.Ref.Project())
	if errors.Is(err, policy.ErrNotLoaded) {
		return false, fault.New(fault.Transient, fault.PolicyUnreadable, err)
	}
	return err == nil && p.Canary, nil // a policy that cannot be read must not keep anybody from mending what it broke
}

// evidence is what an event keeps of a letter: the letter itself will be gone.
func evidence(l artifact.DeadLetter) json.RawMessage {
	v := ViewOf(l)
	if v.Replayable {
		v.Stored = nil // the event names all of it that counts
	}
	v.Stored = v.Stored[:min(len(v.Stored), maxEvidence)]
	raw, err := json.Marshal(v)
	if err != nil {
		return nil // a view has nothing that JSON cannot say
	}
	return raw
}
