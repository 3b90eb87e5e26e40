package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// SPEC: proc(5): processor times are in ticks, of 1/100 s on every Linux.
const tick = 10 * time.Millisecond

// load is what has been used of the processors of this machine up to one moment. Nothing is known of what the system does not
// tell: it tells on Linux alone.
type load struct {
	at time.Time
	// idle and all are those of the whole machine, in ticks.
	idle, all uint64
	// started is the time of all processes that this one has started, with theirs; self its own.
	started, self time.Duration
}

func newLoad() load {
	l := load{at: time.Now()}
	l.idle, l.all = machine()
	l.started, l.self = family(os.Getpid())
	return l
}

// use is the difference of two moments. CPU times are those of what this program has started, and its own.
type use struct {
	took          time.Duration
	busy          float64 // which part of the machine's processor time, by whomever, from 0 to 1
	started, self time.Duration
}

// since gives what was used.
func (l load) since() use {
	now := newLoad()
	u := use{took: now.at.Sub(l.at), started: now.started - l.started, self: now.self - l.self}
	if now.all > l.all {
		u.busy = 1 - float64(now.idle-l.idle)/float64(now.all-l.all)
	}
	return u
}

func machine() (idle, all uint64) {
	// SPEC: proc(5), /proc/stat: the first line has the time of all processors: user, nice, system, idle, iowait, irq, softirq,
	// steal, and then guests, which are contained in user.
	const idleAt, waitAt, last = 3, 4, 8
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line)
	if len(fields) <= last {
		return 0, 0
	}
	for i, field := range fields[1 : last+1] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, 0
		}
		all += ticks
		if i == idleAt || i == waitAt {
			idle += ticks
		}
	}
	return idle, all
}

// family adds up what a process has used, and apart from it all that it has started, which includes those of them that have
// ended and were waited for.
func family(pid int) (started, self time.Duration) {
	const parentAt, userAt, systemAt, endedUserAt, endedSystemAt = 1, 11, 12, 13, 14
	type process struct {
		parent     int
		own, ended time.Duration
	}
	all := make(map[int]process)
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path) //nolint:gosec // a path of the system's
		if err != nil {
			continue // it has ended
		}
		// The fields after the name, which ends with the last parenthesis.
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) <= endedSystemAt {
			continue
		}
		number := func(at int) int {
			n, err := strconv.Atoi(fields[at])
			if err != nil {
				return 0
			}
			return n
		}
		all[id] = process{
			parent: number(parentAt), own: time.Duration(number(userAt)+number(systemAt)) * tick,
			ended: time.Duration(number(endedUserAt)+number(endedSystemAt)) * tick,
		}
	}
	for id, p := range all {
		if id == pid {
			self, started = p.own, started+p.ended
			continue
		}
		for above, known := p, true; known; above, known = all[above.parent] {
			if above.parent == pid {
				started += p.own + p.ended
				break
			}
		}
	}
	return started, self
}

// usage adds up what processes have used so far.
func usage(processes ...*harness.Process) (sum time.Duration, err error) {
	for _, p := range processes {
		u, err := p.Usage()
		if err != nil {
			return 0, err
		}
		sum += u.CPU
	}
	return sum, nil
}
