package dependency

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

const (
	// maxPending is how many events wait for the ledger: hours of it being away while everything else comes and goes.
	maxPending = 256
	// recordTime bounds one try to record, repeatAfter is the wait for the next one, and flushTime what is left at the end.
	recordTime  = 10 * time.Second
	repeatAfter = 5 * time.Second
	flushTime   = 3 * time.Second
)

// journal hands events to the ledger, one after the other, each until it is taken.
type journal struct {
	record  func(ctx context.Context, e artifact.Event) error
	logger  zerolog.Logger
	dropped prometheus.Counter
	wake    chan struct{} // holds one

	mu      sync.Mutex
	pending []artifact.Event // guarded by mu
	// sending says that the first of them is on its way: it stays where it is. Guarded by mu.
	sending bool
}

// add takes an event, and never blocks. The end of an outage takes the place of its beginning if that one still waits: it says the
// same and more.
func (j *journal) add(e artifact.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	free := 0 // from here on, the list may be changed
	if j.sending {
		free = 1
	}
	if i := slices.IndexFunc(j.pending[free:], func(p artifact.Event) bool { return p.CorrelationID == e.CorrelationID }); i >= 0 {
		j.pending[free+i] = e
	} else {
		j.pending = append(j.pending, e)
	}
	if len(j.pending) > maxPending {
		j.pending = slices.Delete(j.pending, free, free+1)
		j.dropped.Inc()
		j.logger.Error().Msg("the record of an outage is lost: too many wait for the ledger")
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// run records until ctx ends.
func (j *journal) run(ctx context.Context) {
	timer := time.NewTimer(repeatAfter)
	defer timer.Stop()
	for {
		timer.Reset(repeatAfter)
		j.flush(ctx)
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		case <-timer.C:
		}
	}
}

// flush records what waits, until the ledger does not take something.
func (j *journal) flush(ctx context.Context) {
	for {
		e, ok := j.next()
		if !ok {
			return
		}
		err := j.try(ctx, e)
		switch {
		case err == nil:
		case fault.Is(err, fault.Permanent):
			j.dropped.Inc()
			j.logger.Error().Err(err).Msg("the record of an outage is lost: the ledger refuses it")
		default:
			j.done(false)
			if ctx.Err() == nil {
				j.logger.Warn().Err(err).Msg("the record of an outage waits for the ledger")
			}
			return
		}
		j.done(true)
	}
}

func (j *journal) try(ctx context.Context, e artifact.Event) error {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	return j.record(ctx, e)
}

// next gives the first event, which done must follow.
func (j *journal) next() (artifact.Event, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pending) == 0 {
		return artifact.Event{}, false
	}
	j.sending = true
	return j.pending[0], true
}

// done says whether the first event is out of the way.
func (j *journal) done(taken bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sending = false
	if taken {
		j.pending = slices.Delete(j.pending, 0, 1)
	}
}
