package webhook

import (
	"sync"

	"github.com/harborseal/harborseal/pkg/fault"
)

// gate keeps deliveries from waiting, each for as long as Harbor allows, for a queue that does not answer or is full. The
// first failure shuts it: from then on one delivery at a time tries, and the others are refused at once. The first success,
// whoever has it, opens it for all. So an outage is noticed once, by those that were waiting anyway, and its end by the first
// delivery that comes: Harbor's three tries, 16 to 74 s and then 31 to 118 s apart, meet the queue as it is then. No timer runs,
// so that nothing has to come in for the gate to be as it should.
//
// All projects share it, as they share the queue: whichever delivery tries, it tries for all. Safe for concurrent use.
type gate struct {
	mu sync.Mutex
	// shut is why the last try failed; empty while the gate is open. Guarded by mu, as is all below.
	shut   fault.Reason
	trying bool // a delivery tries, although the gate is shut
	// successes tells failures of a queue that does not answer from those beside which it did.
	successes uint64
}

// try is one delivery's leave to ask the queue. Exactly one goroutine owns it, and must end it.
type try struct {
	gate  *gate
	alone bool   // it went through a shut gate
	begun uint64 // the successes when it began
}

// enter gives a try, or says why the queue is not to be asked now.
func (g *gate) enter() (t *try, why fault.Reason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != "" {
		if g.trying {
			return nil, g.shut
		}
		g.trying = true
	}
	return &try{gate: g, alone: g.shut != "", begun: g.successes}, ""
}

// end ends a try; done says whether it came to an answer, which err is, or broke off.
func (t *try) end(done bool, err error) {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.alone {
		g.trying = false
	}
	switch {
	case !done:
	case err == nil:
		g.successes++
		g.shut = ""
	case !ofTheQueue(err):
	case g.successes == t.begun:
		// A failure beside which others succeeded is a slow queue's, or an old one: the gate stays as those have left it.
		g.shut = fault.Of(err).Reason
	}
}

// isShut says whether deliveries are refused at once.
func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut != ""
}

// ofTheQueue says whether a failure would meet another delivery as well.
func ofTheQueue(err error) bool {
	f := fault.Of(err)
	return f.Kind == fault.Transient && f.Reason != fault.Canceled
}
