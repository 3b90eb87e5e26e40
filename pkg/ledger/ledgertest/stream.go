package ledgertest

import (
	"context"
	"sync"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Stream is a stream of events in memory, with faults on demand. It is safe for concurrent use.
type Stream struct {
	// BatchSize is the most entries of a batch; 0 means 100. It must not change while somebody reads.
	BatchSize int

	mu      sync.Mutex
	created time.Time        // guarded by mu
	first   uint64           // guarded by mu: the sequence of entries[0]
	entries []artifact.Entry // guarded by mu
	failing error            // guarded by mu: what every call returns; nil if all is well
	changed chan struct{}    // guarded by mu: closed at the next change of anything above
}

// NewStream makes an empty stream that was created at the given time.
func NewStream(created time.Time) *Stream {
	return &Stream{created: created, first: 1, changed: make(chan struct{})}
}

// Append adds events and gives the sequence of the last.
func (s *Stream) Append(events ...artifact.Event) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.entries = append(s.entries, artifact.Entry{Seq: s.first + uint64(len(s.entries)), Event: e})
	}
	s.wake()
	return s.first + uint64(len(s.entries)) - 1
}

// Recreate makes the stream anew, empty, created at the given time.
func (s *Stream) Recreate(created time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created, s.first, s.entries = created, 1, nil
	s.wake()
}

// Truncate forgets all after a sequence, as a restored backup does.
func (s *Stream) Truncate(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = s.entries[:last+1-s.first]
	s.wake()
}

// Expire forgets all before a sequence.
func (s *Stream) Expire(first uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries, s.first = s.entries[first-s.first:], first
	s.wake()
}

// Fail makes every call return err, those that wait too, until it is called with nil.
func (s *Stream) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
	s.wake()
}

// LedgerState gives the bounds of the stream.
func (s *Stream) LedgerState(ctx context.Context) (first, last uint64, created time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return 0, 0, time.Time{}, s.failing
	}
	return s.first, s.first + uint64(len(s.entries)) - 1, s.created, ctx.Err()
}

// Events gives the entries after a sequence, and waits for more.
func (s *Stream) Events(ctx context.Context, after uint64, fn func(ctx context.Context, batch []artifact.Entry) error) error {
	for {
		batch, changed, err := s.next(after)
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			if err := fn(ctx, batch); err != nil {
				return err
			}
			after = batch[len(batch)-1].Seq
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (s *Stream) next(after uint64) (batch []artifact.Entry, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.BatchSize
	if limit == 0 {
		limit = 100
	}
	skip := min(uint64(len(s.entries)), max(after+1, s.first)-s.first)
	rest := s.entries[skip:]
	return append([]artifact.Entry(nil), rest[:min(limit, len(rest))]...), s.changed, s.failing
}

// wake must be called with mu held.
func (s *Stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}
