package deadletter

import (
	"context"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// maxInARow is how many failures in a row, none of which is the letter's own, end the work on many letters: what is broken then
// is the queue, and each further letter would wait for it.
const maxInARow = 5

// Outcome is what became of one of many letters.
type Outcome string

// The outcomes.
const (
	Done       Outcome = "done"
	Waiting    Outcome = "waiting"    // replayed, and a request for the manifest waited already
	Missing    Outcome = "gone"       // it was not there any more
	Unreadable Outcome = "unreadable" // it cannot be replayed
	Failed     Outcome = "failed"
	Left       Outcome = "left" // not tried, because the work was ended before
)

// Result is what became of one letter. Err is nil for Done and Waiting.
type Result struct {
	ID      uint64
	Ref     artifact.Ref // zero if the letter is not there, or cannot be told
	Outcome Outcome
	Err     error
}

// ReplayAll replays letters one by one, and goes on after failures of single ones: each has a result, in the order of ids.
// Several failures of the queue in a row, and the end of ctx, end the work: the rest is Left, and may be replayed later. progress,
// which may be nil, is told before each.
func (s *Service) ReplayAll(ctx context.Context, actor Actor, ids []uint64, progress func(done, of int)) []Result {
	return each(ctx, ids, progress, func(ctx context.Context, id uint64) (artifact.Ref, Outcome, error) {
		r, err := s.Replay(ctx, actor, id)
		if r.Waiting {
			return r.Letter.Ref, Waiting, err
		}
		return r.Letter.Ref, Done, err
	})
}

// DiscardAll is ReplayAll for discarding, with one reason for all. The error is a [*policy.FieldError] about why: then nothing was
// done.
func (s *Service) DiscardAll(ctx context.Context, actor Actor, ids []uint64, why string, progress func(done, of int)) ([]Result, error) {
	why, err := CheckWhy(why)
	if err != nil {
		return nil, err
	}
	return each(ctx, ids, progress, func(ctx context.Context, id uint64) (artifact.Ref, Outcome, error) {
		l, err := s.Discard(ctx, actor, id, why)
		return l.Ref, Done, err
	}), nil
}

func each(
	ctx context.Context, ids []uint64, progress func(done, of int), act func(context.Context, uint64) (artifact.Ref, Outcome, error),
) []Result {
	results := make([]Result, 0, len(ids))
	inARow := 0
	for i, id := range ids {
		if ctx.Err() != nil || inARow == maxInARow {
			err := ctx.Err()
			if err == nil {
				err = fmt.Errorf("not tried, after %d failures in a row", maxInARow)
			}
			results = append(results, Result{ID: id, Outcome: Left, Err: err})
			continue
		}
		if progress != nil {
			progress(i, len(ids))
		}
		ref, outcome, err := act(ctx, id)
		r := Result{ID: id, Ref: ref, Outcome: outcome, Err: err}
		var unreadable *UnreadableError
		switch {
		case err == nil:
			inARow = 0
		case errors.As(err, &unreadable):
			r.Ref, r.Outcome, inARow = unreadable.Letter.Ref, Unreadable, 0
		case fault.Is(err, fault.Gone):
			r.Outcome, inARow = Missing, 0
		default:
			r.Outcome = Failed
			inARow++
		}
		results = append(results, r)
	}
	return results
}

// Summary counts results by their outcomes.
type Summary struct {
	Done       int `json:"done"`
	Waiting    int `json:"waiting"`
	Gone       int `json:"gone"`
	Unreadable int `json:"unreadable"`
	Failed     int `json:"failed"`
	Left       int `json:"left"`
}

// Sum counts.
func Sum(results []Result) Summary {
	var s Summary
	for _, r := range results {
		switch r.Outcome {
		case Done:
			s.Done++
		case Waiting:
			s.Waiting++
		case Missing:
			s.Gone++
		case Unreadable:
			s.Unreadable++
		case Failed:
			s.Failed++
		case Left:
			s.Left++
		}
	}
	return s
}
