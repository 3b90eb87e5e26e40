package checker

import (
	"slices"
	"time"
)

// Who asked for a manifest, as events say it, that the rules know.
const (
	originSweep  = "sweep"
	kindReceived = "received"
	kindQueued   = "queued"
	kindSwept    = "swept"
)

// slack is how exact times are: the registry tells those of webhooks in whole seconds.
const slack = 2 * time.Second

// Sweep is what an event tells of a full sweep that has ended.
type Sweep struct {
	// Took is how long it took, by the clock of the program that did it.
	Took time.Duration
}

// Found counts signed digests by what led to their first signature.
type Found struct {
	// Webhook is by a push that was reported, or by an index that was, Sweep by a sweep, and Final, which counts here alone, by
	// the sweeps that were asked for once everything had come to rest.
	Webhook, Sweep, Final int
}

// sweeps says of the requests of a full sweep, by what their events name as their cause, when the sweep began.
func sweeps(ledger []LedgerEvent) map[string]time.Time {
	began := make(map[string]time.Time)
	for _, e := range ledger {
		if e.Kind == kindSwept && e.Sweep != nil {
			began[e.Correlation] = e.Stored.Add(-e.Sweep.Took)
		}
	}
	return began
}

// first says what led to the first signature of a digest.
func (e *examined) first(found *Found) {
	if len(e.valid()) == 0 {
		return
	}
	at := slices.IndexFunc(e.events, func(o LedgerEvent) bool { return o.Kind == stateSigned })
	if at < 0 {
		return
	}
	swept := e.j.story.swept
	switch o := e.events[at]; {
	case o.Origin != originSweep:
		found.Webhook++
	case !swept.IsZero() && !o.Stored.Before(swept):
		found.Final++
	default:
		found.Sweep++
	}
}

// heard: a webhook that was answered with success leads to work, of which no sweep has to remind anybody. It is told by those
// pushes whose project was enabled ever since: what is not wanted is answered with success as well.
func (e *examined) heard() []Violation {
	last, accepted := e.history.accepted()
	if !accepted || e.history.accessory() {
		return nil
	}
	for _, policy := range e.j.story.settings(e.project(), last.Began) {
		if len(policy.wants(e.unit, e.j.keys)) == 0 {
			return nil
		}
	}
	var violations []Violation
	for _, w := range e.history.webhooks {
		if !w.Accepted || w.Began.Add(slack).Before(last.Began) || e.history.deletedSince(last.Began) {
			continue
		}
		switch {
		case !e.recorded(w):
			violations = append(violations, e.violation(Unheard, "a webhook of it was answered with success at %s, and no event tells of it", w.Ended))
		case e.onlySwept(w):
			violations = append(violations, e.violation(Unheard, "a webhook of it was answered with success at %s, and only a later sweep led to anything", w.Ended))
		}
	}
	return violations
}

// recorded says whether the ledger had an event of a push when its webhook was answered. One push may have several webhooks,
// and one event.
func (e *examined) recorded(w Step) bool {
	return slices.ContainsFunc(e.events, func(o LedgerEvent) bool { return o.Kind == kindReceived && !o.Stored.After(w.Ended.Add(slack)) })
}

// onlySwept says whether all that happened since a webhook was asked for by full sweeps that began after its answer, and
// something was. Sweeps whose beginning nobody knows explain everything.
func (e *examined) onlySwept(w Step) bool {
	some := false
	for _, o := range e.events {
		if o.Kind == kindReceived || o.Kind == kindQueued || o.Stored.Before(w.Began.Add(-slack)) {
			continue
		}
		if !e.j.sweeps[o.Correlation].After(w.Ended.Add(slack)) {
			return false
		}
		some = true
	}
	return some
}
