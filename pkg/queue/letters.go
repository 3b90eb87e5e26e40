package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// maxLetters is the most that [Client.Letters] gives at once.
	maxLetters = 1000
	// maxLetterText bounds what a letter says in words: somebody else may have written it.
	maxLetterText = 4096
)

// Letters gives the dead letters of this harbor whose IDs are above after, the oldest first, at most limit; 0 and everything
// above 1000 is 1000. The last ID is what the next call continues after; fewer letters than asked for are all that there are.
// Letters that are stored meanwhile come last. Each costs one request, however many there are.
//
// A letter that cannot be read does not hide the others: see [Client.Letter].
func (c *Client) Letters(ctx context.Context, after uint64, limit int) ([]artifact.DeadLetter, error) {
	if limit <= 0 || limit > maxLetters {
		limit = maxLetters
	}
	filter := deadFilter(c.cfg.Harbor)
	var letters []artifact.DeadLetter
	for len(letters) < limit && after < math.MaxUint64 {
		msg, err := c.fetch(ctx, streamDead, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
			return handle.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(filter))
		})
		if err != nil {
			return nil, fmt.Errorf("listing dead letters: %w", err)
		}
		if msg == nil {
			break
		}
		letters = append(letters, decodeLetter(msg))
		after = msg.Sequence
	}
	return letters, nil
}

// Letter gives one dead letter of this harbor. The fault is of kind Gone if it is not there, or not any more.
//
// Of one that cannot be read, as if a newer program wrote it, the ID, the times and Stored are set, and Reason and LastError
// say what is wrong. Ref is set only if all that names a manifest in the letter names the same one.
func (c *Client) Letter(ctx context.Context, id uint64) (artifact.DeadLetter, error) {
	msg, err := c.letter(ctx, id)
	if err != nil {
		return artifact.DeadLetter{}, fmt.Errorf("reading dead letter %d: %w", id, err)
	}
	if msg == nil {
		return artifact.DeadLetter{}, fault.Newf(fault.Gone, fault.NotFound, "there is no dead letter %d", id)
	}
	return decodeLetter(msg), nil
}

// RemoveLetter removes a dead letter of this harbor. It is no error if it is gone; a newer letter of the same manifest has
// another ID, and stays. A crash or an error before the answer leaves open whether it is removed; repeating it is safe.
func (c *Client) RemoveLetter(ctx context.Context, id uint64) error {
	// A sequence is never used again: what is read here is what is removed below.
	msg, err := c.letter(ctx, id)
	if err != nil {
		return fmt.Errorf("removing dead letter %d: %w", id, err)
	}
	if msg == nil {
		return nil
	}
	if err := c.deleteLetter(ctx, id); err != nil {
		// The server has several answers for one that somebody else removed at this moment.
		if msg, getErr := c.letter(ctx, id); getErr == nil && msg == nil {
			return nil
		}
		c.handles.forget(streamDead)
		return askFault(fmt.Errorf("removing dead letter %d: %w", id, err))
	}
	return nil
}

func (c *Client) deleteLetter(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := c.handle(ctx, streamDead)
	if err != nil {
		return err
	}
	return handle.DeleteMsg(ctx, id)
}

// letter gives a stored letter, nil if there is none of this harbor with the ID.
func (c *Client) letter(ctx context.Context, id uint64) (*jetstream.RawStreamMsg, error) {
	if id == 0 {
		return nil, nil //nolint:nilnil // as in fetch; the server takes 0 for a mistake
	}
	msg, err := c.fetch(ctx, streamDead, func(ctx context.Context, handle jetstream.Stream) (*jetstream.RawStreamMsg, error) {
		return handle.GetMsg(ctx, id)
	})
	if err != nil || msg == nil || !strings.HasPrefix(msg.Subject, strings.TrimSuffix(deadFilter(c.cfg.Harbor), ">")) {
		return nil, err
	}
	return msg, nil
}

// deadFilter is the subject filter of all dead letters of a harbor.
func deadFilter(harbor string) string { return "dead.v1." + harbor + ".>" }

// decodeLetter reads what is stored, whatever it is.
func decodeLetter(msg *jetstream.RawStreamMsg) artifact.DeadLetter {
	letter := artifact.DeadLetter{ID: msg.Sequence, FirstAt: msg.Time.UTC(), LastAt: msg.Time.UTC(), Stored: msg.Data}
	var head struct {
		Version int `json:"v"`
	}
	var stored DeadLetter
	if err := json.Unmarshal(msg.Data, &head); err == nil && head.Version > artifact.Version {
		letter.Reason = string(fault.NewerVersion)
		letter.LastError = fmt.Sprintf("the dead letter is of version %d: a newer program can read it", head.Version)
		return letter
	} else if err == nil {
		if err := json.Unmarshal(msg.Data, &stored); err == nil && stored.Reason != "" {
			return stored.fill(letter)
		}
	}
	letter.Reason, letter.LastError = string(fault.Malformed), "the dead letter cannot be read: it is shown as it is stored"
	return letter
}

// fill tells what a stored letter holds. What is missing in it stays as it is in letter.
func (s DeadLetter) fill(letter artifact.DeadLetter) artifact.DeadLetter {
	letter.Reason, letter.LastError = printable(s.Reason), printable(s.LastError)
	letter.Attempts, letter.Stored = s.Attempts, s.Request
	if !s.FirstSeen.IsZero() {
		letter.FirstAt = s.FirstSeen
	}
	if !s.BuriedAt.IsZero() {
		letter.LastAt = s.BuriedAt
	}
	event, eventErr := artifact.DecodeEvent(s.Event)
	request, requestErr := artifact.DecodeRequest(s.Request)
	if eventErr == nil {
		letter.Ref, letter.CorrelationID = event.Ref, event.CorrelationID
		letter.LastError = orDefault(letter.LastError, printable(event.Detail)) // where older programs wrote it
	}
	switch {
	case requestErr != nil:
	case eventErr == nil && event.Ref != request.Ref:
		// Whose letter it is decides who may touch it: what contradicts itself is nobody's.
		letter.Ref, letter.CorrelationID = artifact.Ref{}, ""
		letter.LastError = "the dead letter names two manifests: it is not trusted"
	default:
		letter.Ref, letter.Request, letter.CorrelationID = request.Ref, &request, request.CorrelationID
	}
	letter.CorrelationID = printable(letter.CorrelationID)
	return letter
}

// printable bounds a text and takes out what would do something to a terminal.
func printable(text string) string {
	if len(text) > maxLetterText {
		text = text[:maxLetterText]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, ""))
}
