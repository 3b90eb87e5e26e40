package queue

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// defaultHold is for how long a request is held if nobody names a time.
	defaultHold = 5 * time.Second
	// heldPerSecond is how many held requests of one consumer come back in a second, to each program: the server hands out what
	// comes back before what is new, so that more of them would stand in the way of those behind them.
	heldPerSecond = 500
	// gateAnswers is how long the gate may take to say that it is open.
	gateAnswers = 20 * time.Millisecond
	// heldRemembered is of how many requests it is remembered that they were held, in each of two halves.
	heldRemembered = 50_000
)

// hold gives back a request that is not to be done now, by Hold or Gate of the [ConsumeConfig].
func (p *pool) hold(work context.Context, l *line, d *Delivery) (held bool) {
	var delay time.Duration
	switch wait, hold := p.held(d); {
	case hold:
		if wait <= 0 {
			wait = defaultHold
		}
		delay = max(wait-rand.N(wait/2+1), l.pace.next(time.Now())) //nolint:gosec // spreads load, keeps no secret
	case !p.isOpen(work):
		// It came when the gate had just closed. This program asks for nothing until it opens; others may do it at once.
	default:
		return false
	}
	p.client.metrics.held.WithLabelValues(string(d.lane)).Inc()
	p.client.holds.put(d.key(), d.Attempts())
	p.client.ways.remove(d.key())
	p.client.log.Debug().Str("ref", d.request.Ref.String()).Dur("delay_ms", delay).Msg("request is held: what it needs is not there")
	d.giveBack(work, delay)
	return true
}

func (p *pool) held(d *Delivery) (wait time.Duration, hold bool) {
	if p.cfg.Hold == nil {
		return 0, false
	}
	return p.cfg.Hold(d.request)
}

// isOpen asks the gate without waiting for it to open.
func (p *pool) isOpen(ctx context.Context) bool {
	if p.cfg.Gate == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, gateAnswers)
	defer cancel()
	return p.cfg.Gate(ctx) == nil
}

// pace spreads what comes too fast. It is safe for concurrent use.
type pace struct {
	perSecond float64

	mu    sync.Mutex
	ahead float64   // guarded by mu; how many are to come before the next one
	at    time.Time // guarded by mu; when that was so
}

func newPace(perSecond float64) *pace { return &pace{perSecond: perSecond} }

// next gives the least delay of one more.
func (p *pace) next(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead = max(0, p.ahead-max(0, now.Sub(p.at).Seconds())*p.perSecond)
	p.at = now
	delay := time.Duration(p.ahead / p.perSecond * float64(time.Second))
	p.ahead++
	return delay
}

// heldKey names a stored request: a stream never uses a sequence again.
type heldKey struct {
	stream   string
	sequence uint64
}

func (d *Delivery) key() heldKey { return heldKey{d.metadata.Stream, d.metadata.Sequence.Stream} }

// holdMemory knows how often requests had been handed out when they were held last. The oldest are forgotten. The zero value
// is ready; it is safe for concurrent use.
type holdMemory struct {
	mu         sync.Mutex
	young, old map[heldKey]uint64 // guarded by mu
}

func (m *holdMemory) put(key heldKey, attempts uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.young == nil || len(m.young) >= heldRemembered {
		m.young, m.old = map[heldKey]uint64{}, m.young
	}
	m.young[key] = attempts
}

// get gives 0 for what was not held.
func (m *holdMemory) get(key heldKey) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.young[key], m.old[key])
}

func (m *holdMemory) remove(key heldKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.young, key)
	delete(m.old, key)
}
