package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/policy"
)

const (
	// maxConfirmed bounds the pushes that one recent sweep confirms. It is far more than a Harbor takes in a minute.
	maxConfirmed = 20_000
	// maxRepeated bounds the confirmations that a state names, in 33 bytes each. Where more fall into the overlap, the ledger
	// alone refuses what it has taken within ten minutes.
	maxRepeated = 3_000
	// confirmBack is how far back pushes are confirmed that could not be before.
	confirmBack = 2 * time.Hour
	// confirmers is how many events are recorded at once: each waits for a disk.
	confirmers = 8
	// repeatedID is how much of an event's id a state keeps, in characters.
	repeatedID = 16
)

// confirmation is a push of which Harbor's feed tells, and the id of the event that says so.
type confirmation struct {
	id   string
	push artifact.Pushed
}

// confirmations are the pushes that one recent sweep is to confirm. They belong to one goroutine.
//
// They are recorded after everything else is done, without another question to Harbor, and no failure of it is one of the
// sweep: what could not be recorded is read from the feed once more by the next sweep.
type confirmations struct {
	noted   map[string]confirmation // by id
	leftOut int
	// covered says that the feed was read to its end, and unread that a project's pushes were passed over, because its policy
	// could not be read.
	covered, unread bool
}

// confirmationID is the same whoever reads the entry of the feed, and however often.
func confirmationID(p artifact.Pushed) string {
	return artifact.EventID(artifact.Confirmed, p.Ref, p.Tag, p.By, strconv.FormatInt(p.At.UnixMilli(), 10))
}

// note takes a push that the feed tells of, in a project with this policy. The feed names tag and digest in one entry, as they
// were pushed: where the tag stands now does not matter. Pushes from which nothing follows are left alone, as nobody else would
// tell the ledger what became of their digests.
func (c *confirmations) note(p artifact.Pushed, of policy.Policy) {
	if p.By == "" || p.At.IsZero() {
		return // nothing is confirmed by it
	}
	s := policy.Subject{Ref: p.Ref, Now: time.Now()}
	if p.Tag != "" {
		s.Tags = []string{p.Tag}
	}
	if p.At.Before(of.From) {
		s.PushedAt = p.At
	}
	if d := policy.Decide(of, s); !d.Sign && d.Reason != policy.Observed {
		return
	}
	id := confirmationID(p)
	if _, found := c.noted[id]; found {
		return
	}
	if len(c.noted) >= maxConfirmed {
		c.leftOut++
		return
	}
	if c.noted == nil {
		c.noted = map[string]confirmation{}
	}
	c.noted[id] = confirmation{id: id, push: p}
}

// confirm records what was noted, and what sweeps before could not, within half of the interval of recent sweeps. The state at
// hand says afterwards what is left, and what the next sweep reads again without need to record it.
//
// A crash before the state is saved repeats the events: they have the same ids, and the ledger stores none twice within ten
// minutes. What is stored twice all the same says the same twice.
func (l *look) confirm(ctx context.Context) {
	if !l.confirmations.covered {
		// Without the feed, this stays to be done.
		if l.st.Unconfirmed.IsZero() && !l.since.IsZero() {
			l.st.Unconfirmed = l.since
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.r.cfg.RecentInterval/2)
	defer cancel()
	unread := time.Time{}
	if l.confirmations.unread {
		unread = l.since
	}
	if from := l.readUnconfirmed(ctx); !from.IsZero() {
		unread = from
	}
	todo := l.todo()
	done, err := l.recordAll(ctx, todo)
	l.st.Unconfirmed = unread
	if done < len(todo) {
		if at := todo[done].push.At.UTC(); unread.IsZero() || at.Before(unread) {
			l.st.Unconfirmed = at
		}
	}
	l.repeatNone(todo[:done])
	l.r.metrics.confirmed.WithLabelValues("recorded").Add(float64(done))
	l.r.metrics.confirmed.WithLabelValues("left_out").Add(float64(l.confirmations.leftOut))
	if err != nil {
		l.r.metrics.confirmed.WithLabelValues("failed").Add(float64(len(todo) - done))
		l.log.Warn().Err(err).Int("recorded", done).Int("left", len(todo)-done).
			Msg("not all pushes of which harbor's feed tells could be confirmed: the next sweep goes on")
	}
	if l.confirmations.leftOut > 0 {
		l.log.Warn().Int("left_out", l.confirmations.leftOut).Msg("harbor's feed tells of more pushes than one sweep confirms")
	}
}

// readUnconfirmed reads what sweeps before could not confirm, and gives from when on it is to be read once more; zero if that is
// done.
func (l *look) readUnconfirmed(ctx context.Context) time.Time {
	from := l.st.Unconfirmed
	if oldest := l.now.Add(-confirmBack); !from.IsZero() && from.Before(oldest) {
		from = oldest
	}
	if from.IsZero() || !from.Before(l.since) {
		return time.Time{}
	}
	passedOver := false
	_, err := l.r.cfg.Harbor.Feed(ctx, from, l.since, func(ctx context.Context, page []artifact.Pushed) error {
		for _, p := range page {
			if l.ownOrAccessory(p) {
				continue
			}
			enabled, err := l.confirms(ctx, p.Ref.Project())
			passedOver = passedOver || err != nil
			if enabled {
				l.confirmations.note(p, l.policies[p.Ref.Project()])
			}
		}
		return ctx.Err()
	})
	if err != nil {
		l.log.Warn().Err(err).Time("since", from).Msg("harbor's feed cannot be read for pushes that are not confirmed yet: the next sweep tries again")
		return from
	}
	if passedOver {
		return from
	}
	return time.Time{}
}

// confirms says whether something is done for a project.
func (l *look) confirms(ctx context.Context, project string) (bool, error) {
	p, known := l.policies[project]
	if !known {
		var err error
		if p, err = l.r.cfg.Policies.Policy(ctx, project); err != nil {
			return false, err
		}
		l.policies[project] = p
	}
	return swept(p), nil
}

// todo gives what is to be recorded, oldest first, so that what is left has a beginning.
func (l *look) todo() []confirmation {
	todo := make([]confirmation, 0, len(l.confirmations.noted))
	for id, c := range l.confirmations.noted {
		if _, before := l.st.Confirmed[id[:repeatedID]]; !before {
			todo = append(todo, c)
		}
	}
	slices.SortFunc(todo, func(a, b confirmation) int {
		return cmp.Or(a.push.At.Compare(b.push.At), cmp.Compare(a.id, b.id))
	})
	return todo
}

// recordAll records in order, several at a time, until one fails: all before done are stored.
func (l *look) recordAll(ctx context.Context, todo []confirmation) (done int, err error) {
	for batch := range slices.Chunk(todo, confirmers*8) {
		errs := make([]error, len(batch))
		var next atomic.Int64
		var workers sync.WaitGroup
		for range min(confirmers, len(batch)) {
			workers.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= len(batch) || ctx.Err() != nil {
						return
					}
					_, errs[i] = l.r.cfg.Queue.Record(ctx, batch[i].event(time.Now()))
				}
			})
		}
		workers.Wait()
		for _, err := range errs {
			if fault.Is(err, fault.Permanent) {
				l.log.Error().Err(err).Msg("a push of which harbor's feed tells cannot be recorded")
				err = nil // it would be refused each time, and stand in the way of the others
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return done, fmt.Errorf("recording that a push is confirmed: %w", err)
			}
			done++
		}
	}
	return done, nil
}

// event says that Harbor itself has told of a push.
func (c confirmation) event(now time.Time) artifact.Event {
	at := c.push.At.UTC()
	return artifact.Event{
		Kind: artifact.Confirmed, ID: c.id, Ref: c.push.Ref, Time: now.UTC(), Actor: c.push.By, Origin: artifact.OriginSweep,
		CorrelationID: "push-" + artifact.EventID(artifact.Received, c.push.Ref, strconv.FormatInt(c.push.At.UnixMilli(), 10)),
		Tag:           c.push.Tag, Pusher: c.push.By, PushedAt: &at,
	}
}

// repeatNone keeps what was recorded and will be read again: what lies in the time that the next sweep reads.
func (l *look) repeatNone(recorded []confirmation) {
	from := l.now.Add(-2 * overlap)
	if !l.st.Unconfirmed.IsZero() && l.st.Unconfirmed.Before(from) {
		from = l.st.Unconfirmed
	}
	kept := make(map[string]int64, len(recorded))
	maps.Copy(kept, l.st.Confirmed)
	for _, c := range recorded {
		kept[c.id[:repeatedID]] = c.push.At.UnixMilli()
	}
	maps.DeleteFunc(kept, func(_ string, at int64) bool { return at < from.UnixMilli() })
	if excess := len(kept) - maxRepeated; excess > 0 {
		oldest := slices.SortedFunc(maps.Keys(kept), func(a, b string) int { return cmp.Or(cmp.Compare(kept[a], kept[b]), cmp.Compare(a, b)) })
		for _, id := range oldest[:excess] {
			delete(kept, id)
		}
	}
	l.st.Confirmed = kept
}
