package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// parts is into how many slots the interval of full sweeps is divided. One of them is the project's own; in the others a
// sweep is made up for that has failed, or that was never done.
const parts = 24

// leastStep is the shortest slot of full sweeps, unless the interval itself is shorter.
const leastStep = time.Minute

// calendar says which slot a time falls into. Replicas with clocks that agree to less than a slot propose the same ticks.
type calendar struct {
	full, recent time.Duration
}

// step is the length of a slot of full sweeps.
func (c calendar) step() time.Duration { return min(c.full, max(c.full/parts, leastStep)) }

// offset spreads the projects over the interval.
func (c calendar) offset(project string) time.Duration {
	return time.Duration(hashOf(project) % uint64(c.full)) //nolint:gosec // below the interval, which is positive
}

// fullSlot numbers the slots of one project since the epoch.
func (c calendar) fullSlot(project string, t time.Time) int64 {
	return (t.UnixNano() - int64(c.offset(project))) / int64(c.step())
}

// fullAt is when a slot of a full sweep begins. Ad hoc sweeps have negative slots, which say when they were asked for.
func (c calendar) fullAt(project string, slot int64) time.Time {
	if slot < 0 {
		return time.Unix(0, -slot)
	}
	return time.Unix(0, slot*int64(c.step())+int64(c.offset(project)))
}

// own says whether a slot is the one at which the project is due.
func (c calendar) own(slot int64) bool { return slot%max(1, int64(c.full/c.step())) == 0 }

func (c calendar) recentSlot(t time.Time) int64 { return t.UnixNano() / int64(c.recent) }

func (c calendar) recentAt(slot int64) time.Time { return time.Unix(0, slot*int64(c.recent)) }

// AdHoc gives the slot of a full sweep that is asked for at a time, beside those that are due.
func AdHoc(t time.Time) int64 { return -t.UnixNano() }

func hashOf(project string) uint64 {
	sum := sha256.Sum256([]byte(project))
	return binary.BigEndian.Uint64(sum[:8])
}
