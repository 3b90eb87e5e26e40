package plan

import (
	"math/rand/v2"
	"time"
)

// track are faults that come one after the other, because they meet the same thing or explain each other badly.
type track struct {
	name  string
	kinds []Kind
	// least and most bound how long one lasts.
	least, most time.Duration
}

func tracks() []track {
	const s = time.Second
	return []track{
		{"queue", []Kind{KillNATS, Reset, Partition, StoreFull, DiskFull}, 3 * s, 6 * s},
		{"programs", []Kind{KillReceiver, KillSigner, Clock, Database}, 2 * s, 6 * s},
		{"registry", []Kind{Unauthorized, Throttled, Unavailable, Slow, Half, Cut}, 3 * s, 6 * s},
		{"webhooks", []Kind{Lost, Doubled}, 5 * s, 12 * s},
		{"rekor", []Kind{RekorAway}, 5 * s, 15 * s},
		{"quota", []Kind{Quota}, 5 * s, 10 * s},
	}
}

// round is in how much time every kind of fault happens once.
const round = 52 * time.Second

// lead is how long everything is well at the beginning.
const lead = 4 * time.Second

// faults gives the faults of a track: its kinds in turn, each time in another order, with pauses, until the end.
func (t track) faults(r *rand.Rand, duration time.Duration) []Action {
	var all []Action
	slot := round / time.Duration(len(t.kinds))
	for begin := lead; begin+round <= duration; begin += round {
		for i, at := range r.Perm(len(t.kinds)) {
			// A fault begins somewhere in its slot and ends in it.
			lasts := min(between(r, t.least, t.most), slot*9/10)
			at0 := begin + slot*time.Duration(i) + between(r, 0, slot-lasts)
			a := Action{At: Duration(at0), Do: Fault, Fault: t.kinds[at], For: Duration(lasts), Target: r.IntN(1 << 10)}
			a.vary(r)
			all = append(all, a)
		}
	}
	return all
}

// vary says what of a fault is left to chance.
func (a *Action) vary(r *rand.Rand) {
	switch a.Fault {
	case Unauthorized, Throttled, Unavailable, Slow, Half:
		a.Route = pick(r, "registry", "manifest", "blob", "upload", "referrers", "token", "registry")
		a.Share = pick(r, 0.3, 0.6, 1)
		if a.Fault == Half {
			// A manifest that is there although nobody was told is what this is about.
			a.Route = pick(r, "manifest", "registry")
		}
	case Cut, Lost, Doubled:
		a.Share = pick(r, 0.3, 0.7, 1)
	case Clock:
		a.Shift = Duration(pick(r, -10*time.Minute, -time.Minute, time.Minute, 2*time.Hour, 25*time.Hour))
	case Quota:
		a.Project = CrowdedProject
	default: // Target says it all
	}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1)).Truncate(time.Millisecond)
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }
