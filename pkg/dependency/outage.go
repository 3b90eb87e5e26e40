package dependency

import (
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// enough is how many answers in a row end an outage: a dependency that comes and goes is one outage, and not one for each time.
const enough = 2

// history is what one program has seen of one dependency. It belongs to one goroutine.
type history struct {
	program, instance, dependency string

	// answered is when the dependency answered last, or when the program started.
	answered time.Time
	// current is the outage that goes on; nil without one. Its EndedAt is set as soon as the dependency answers again, and holds if it
	// goes on answering.
	current *artifact.OutageRecord
	// answers are those in a row since then.
	answers int
}

// fail takes note of a failure. It gives the record of an outage that begins.
func (h *history) fail(at time.Time, cause Cause, detail string) (opened *artifact.OutageRecord) {
	h.answers = 0
	if h.current != nil {
		h.current.EndedAt = nil
		return nil
	}
	h.current = &artifact.OutageRecord{
		Dependency: h.dependency, Program: h.program, Instance: h.instance,
		StartedAt: instant(h.answered), DetectedAt: instant(at), Cause: string(cause), Detail: detail,
	}
	return h.current
}

// succeed takes note of an answer. Returning says that an outage seems to be over: it is the time to count what waits. It gives the
// record of one that has ended.
func (h *history) succeed(at time.Time) (returning, closed *artifact.OutageRecord) {
	h.answered = at
	if h.current == nil {
		return nil, nil
	}
	h.answers++
	if h.answers == 1 {
		ended := instant(at)
		h.current.EndedAt = &ended
		returning = h.current
	}
	if h.answers < enough {
		return returning, nil
	}
	closed, h.current = h.current, nil
	return returning, closed
}

// end gives the record of an outage that goes on while nobody looks any more, and why: nothing else will ever end it.
func (h *history) end(at time.Time, why string) (closed *artifact.OutageRecord) {
	if h.current == nil {
		return nil
	}
	closed, h.current, h.answers = h.current, nil, 0
	if closed.EndedAt == nil {
		ended := instant(at)
		closed.EndedAt = &ended
		closed.Detail += " (" + why + "; the " + h.program + " did not see the dependency answer again)"
	}
	return closed
}

// eventOf makes a record an event. An outage has one correlation id and two events; each has the same id however often it is made.
func eventOf(r artifact.OutageRecord) artifact.Event {
	outage := []string{r.Program, r.Instance, r.Dependency, r.StartedAt.Format(time.RFC3339Nano)}
	record := "detected"
	at := r.DetectedAt
	if r.EndedAt != nil {
		record, at = "ended", *r.EndedAt
	}
	return artifact.Event{
		ID:            artifact.EventID(artifact.Outage, artifact.Ref{}, append(outage, record)...),
		Kind:          artifact.Outage,
		CorrelationID: artifact.EventID(artifact.Outage, artifact.Ref{}, outage...),
		Time:          at, Actor: r.Program, Origin: artifact.OriginProbe, Reason: r.Cause, Detail: r.Detail, Outage: &r,
	}
}

// instant is how the ledger keeps times.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
