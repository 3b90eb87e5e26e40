package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server/archive"
)

// SnapshotContents is what a copy of a stream holds. Sequences are 0 and times zero without a message.
type SnapshotContents struct {
	Messages, FirstSeq, LastSeq uint64
	FirstTime, LastTime         time.Time
}

// CheckSnapshot reads a copy of a stream from its beginning to its end, as [Client.Snapshot] wrote it, and says what it holds.
// The error says in what it is damaged or cut off, or that this program cannot restore it. It takes no server.
func CheckSnapshot(stream string, description json.RawMessage, r io.Reader) (SnapshotContents, error) {
	contents, err := checkSnapshot(stream, description, r)
	if err != nil {
		return SnapshotContents{}, fmt.Errorf("copy of stream %s: %w", stream, err)
	}
	return contents, nil
}

func checkSnapshot(stream string, description json.RawMessage, r io.Reader) (SnapshotContents, error) {
	d, err := parseDescription(stream, description)
	if err != nil {
		return SnapshotContents{}, err
	}
	// Blocks of a copy carry checksums of their own; what is read here is bounded by them.
	from := archive.NewReader(s2.NewReader(r))
	head, err := from.Next()
	if err != nil {
		return SnapshotContents{}, fmt.Errorf("it cannot be read, or a server before 2.15 wrote it: %w", err)
	}
	if head.Name != "state.json" {
		return SnapshotContents{}, errors.New("it does not begin with the state of the stream")
	}
	var found SnapshotContents
	for {
		head, err := from.Next()
		if err != nil {
			return SnapshotContents{}, fmt.Errorf("it ends behind message %d, before its end: %w", found.LastSeq, err)
		}
		if head.Sequence == 0 {
			if head.Name != "" || head.Timestamp != 0 || head.HeaderSize != 0 || head.PayloadSize != 0 {
				return SnapshotContents{}, fmt.Errorf("an entry behind message %d is none of a stream's", found.LastSeq)
			}
			return found, found.fits(d)
		}
		if err := found.add(head); err != nil {
			return SnapshotContents{}, err
		}
		if _, err := io.Copy(io.Discard, from); err != nil {
			return SnapshotContents{}, fmt.Errorf("message %d: %w", head.Sequence, err)
		}
	}
}

func (s *SnapshotContents) add(head *archive.Header) error {
	if head.Sequence <= s.LastSeq {
		return fmt.Errorf("message %d comes behind message %d", head.Sequence, s.LastSeq)
	}
	at := time.Unix(0, head.Timestamp).UTC()
	if s.Messages == 0 {
		s.FirstSeq, s.FirstTime = head.Sequence, at
	}
	s.Messages++
	s.LastSeq, s.LastTime = head.Sequence, at
	return nil
}

// fits compares with what the server said when it began: what was removed meanwhile is not in the copy, and from the ledger
// nothing can be removed at its end.
func (s SnapshotContents) fits(d snapshotDescription) error {
	isWhole := s.LastSeq == d.State.LastSeq || d.State.Messages == 0 || d.Config.Name != streamLedger
	if s.Messages == 0 && isWhole {
		return nil
	}
	if !isWhole || s.FirstSeq < d.State.FirstSeq || s.LastSeq > d.State.LastSeq {
		return fmt.Errorf("it has the messages %d to %d, and the stream had %d to %d", s.FirstSeq, s.LastSeq, d.State.FirstSeq, d.State.LastSeq)
	}
	return nil
}
