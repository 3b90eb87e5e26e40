// Package deadletter is what people do with dead letters, which are requests that were given up: look at them, have them tried
// again, or take them away.
//
// It guarantees that
//   - a replayed request goes the way of all requests: through the queue's own door, into the lane bulk, and a signer decides
//     about it anew;
//   - whoever replays or discards a letter is named in the ledger, with a reason for what is discarded;
//   - a crash, or an error, between any two steps loses neither the request nor the letter: whoever repeats it completes it. The
//     letter goes last;
//   - a letter that was written meanwhile, because the request failed once more, is another one, and stays;
//   - no letter is passed over in silence: one that cannot be read is listed, shown and discarded as all are, and refused to be
//     replayed with what to do instead.
//
// It assumes that a letter never changes under its ID. It does not decide who may do what, and keeps nothing in memory.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// pageSize is how many letters are asked for at once. Each may hold as much as a request may: 256 KiB.
	pageSize = 100
	// DefaultLimit is how many letters a page has that does not say.
	DefaultLimit = 100
	// MaxLimit is the most letters of a page.
	MaxLimit = 1000
	// maxLooked is how many letters are looked at for one page.
	maxLooked = 2000
)

// Queue is where dead letters are, where requests go, and where the ledger is. It is safe for concurrent use, makes one attempt,
// and its errors are faults. Everything may be repeated.
type Queue interface {
	// Letters gives letters whose IDs are above after, the oldest first, at most limit; fewer are all that there are.
	Letters(ctx context.Context, after uint64, limit int) ([]artifact.DeadLetter, error)
	// Letter gives one letter; a fault of kind Gone if it is not there, or not any more.
	Letter(ctx context.Context, id uint64) (artifact.DeadLetter, error)
	// RemoveLetter removes that very letter; none is a success.
	RemoveLetter(ctx context.Context, id uint64) error
	// Enqueue stores a request durably. duplicate says that one of the same manifest and lane waits or is in work.
	Enqueue(ctx context.Context, request artifact.Request) (duplicate bool, err error)
	// Record stores an event durably. One whose id was recorded a short while ago is the same event.
	Record(ctx context.Context, event artifact.Event) (seq uint64, err error)
}

// Policies are those in force, in memory.
type Policies interface {
	Policy(ctx context.Context, project string) (policy.Policy, error)
}

// Config is what the service needs. Queue and Policies are required.
type Config struct {
	Queue Queue
	// Policies say which projects are for images of the service's own, which are in no report.
	Policies Policies
	// Now is the clock; nil means time.Now.
	Now    func() time.Time
	Logger zerolog.Logger
}

// Service works with dead letters. It is safe for concurrent use.
type Service struct {
	queue    Queue
	policies Policies
	now      func() time.Time
	logger   zerolog.Logger
}

// New checks the configuration.
func New(cfg Config) (*Service, error) {
	if cfg.Queue == nil || cfg.Policies == nil {
		return nil, errors.New("making the service for dead letters: Queue and Policies are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{queue: cfg.Queue, policies: cfg.Policies, now: cfg.Now, logger: cfg.Logger}, nil
}

// Filter says which letters are meant: those for which all hold that are set.
type Filter struct {
	// Project is a project's exact name. A letter of which not even the manifest can be told is of no project.
	Project string
	// Reason is why a request was given up: a fault.Reason.
	Reason string
}

// Takes says whether the letter is meant.
func (f Filter) Takes(l artifact.DeadLetter) bool {
	return (f.Project == "" || !l.Ref.IsZero() && l.Ref.Project() == f.Project) && (f.Reason == "" || l.Reason == f.Reason)
}

// Query asks for one page of letters.
type Query struct {
	// After is the Next of the page before; 0 for the first page.
	After uint64
	// Limit is the most letters of the page, up to [MaxLimit]; 0 means [DefaultLimit].
	Limit int
	// Takes says which letters are meant; nil means all. An error of it ends the listing.
	Takes func(artifact.DeadLetter) (bool, error)
}

// Page is one page of letters, the oldest first.
type Page struct {
	// Letters are without what was stored, which [Service.Show] has.
	Letters []artifact.DeadLetter
	// Next is where the next page begins; 0 if this is the last one. A page that is not the last may have fewer letters than
	// the limit, or none: at most 2000 letters are looked at for one.
	Next uint64
}

// List gives one page. The error is a fault, or the query's own.
func (s *Service) List(ctx context.Context, q Query) (Page, error) {
	limit := q.Limit
	if limit <= 0 || limit > MaxLimit {
		limit = DefaultLimit
	}
	var page Page
	looked := 0
	for after := q.After; ; {
		letters, err := s.queue.Letters(ctx, after, pageSize)
		if err != nil {
			return Page{}, err
		}
		for _, l := range letters {
			if len(page.Letters) == limit || looked == maxLooked {
				page.Next = after
				return page, nil
			}
			after, looked = l.ID, looked+1
			taken := true
			if q.Takes != nil {
				if taken, err = q.Takes(l); err != nil {
					return Page{}, err
				}
			}
			if taken {
				l.Stored = nil
				page.Letters = append(page.Letters, l)
			}
		}
		if len(letters) < pageSize {
			return page, nil
		}
	}
}

// All gives all letters that are there now and that the filter takes, without what was stored. found, which may be nil, is told
// after each page how many there are so far.
func (s *Service) All(ctx context.Context, f Filter, found func(int)) ([]artifact.DeadLetter, error) {
	var all []artifact.DeadLetter
	q := Query{Limit: MaxLimit, Takes: func(l artifact.DeadLetter) (bool, error) { return f.Takes(l), nil }}
	for {
		page, err := s.List(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Letters...)
		if found != nil {
			found(len(all))
		}
		if page.Next == 0 {
			return all, nil
		}
		q.After = page.Next
	}
}

// Show gives one letter, with what was stored. The error is a fault of kind Gone if it is not there.
func (s *Service) Show(ctx context.Context, id uint64) (artifact.DeadLetter, error) {
	l, err := s.queue.Letter(ctx, id)
	if fault.Is(err, fault.Gone) {
		return artifact.DeadLetter{}, fault.Newf(fault.Gone, fault.NotFound,
			"there is no dead letter %d: it was replayed or discarded, its image was signed meanwhile, or the request has failed again, under a new number", id)
	}
	if err != nil {
		return artifact.DeadLetter{}, fmt.Errorf("reading dead letter %d: %w", id, err)
	}
	return l, nil
}
