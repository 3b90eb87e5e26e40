//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled says whether this build has failpoints.
const Enabled = true

type action string

const (
	kill  action = "kill"
	block action = "block"
)

// point is one failpoint that was asked for.
type point struct {
	name   string
	action action
	// at is the hit that acts, counted from 1.
	at int
}

// points holds what was asked for and what was hit, for the whole process.
type points struct {
	once string

	mu    sync.Mutex
	asked []point
	hits  map[string]int // guarded by mu
}

// fromEnvironment reads the variables once. Hit is called from everywhere, with nothing but a name, and only in builds
// that no one installs: this state of the process is what the package is for.
//
//nolint:gochecknoglobals // see above
var fromEnvironment = sync.OnceValue(func() *points {
	p, err := parse(os.Getenv(EnvPoint), os.Getenv(EnvOnce))
	if err != nil {
		panic("failpoint: " + err.Error())
	}
	return p
})

// Hit does what the environment asks for at this place. Safe for concurrent use.
func Hit(name string) {
	p := fromEnvironment()
	if a, ok := p.next(name); ok {
		act(a)
	}
}

func parse(value, once string) (*points, error) {
	p := &points{once: once, hits: make(map[string]int)}
	if value == "" {
		return p, nil
	}
	for one := range strings.SplitSeq(value, ",") {
		place, verb, _ := strings.Cut(one, "=")
		name, number, counted := strings.Cut(place, "@")
		pt := point{name: name, action: action(verb), at: 1}
		if counted {
			at, err := strconv.Atoi(number)
			if err != nil || at < 1 {
				return nil, fmt.Errorf("%s=%q: want name@N with N from 1 on", EnvPoint, one)
			}
			pt.at = at
		}
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("%s=%q: no such failpoint", EnvPoint, one)
		}
		if pt.action != kill && pt.action != block {
			return nil, fmt.Errorf("%s=%q: want name=kill or name=block", EnvPoint, one)
		}
		p.asked = append(p.asked, pt)
	}
	return p, nil
}

// next counts a hit and gives what it asks for.
func (p *points) next(name string) (action, bool) {
	if !slices.Contains(Names(), name) {
		panic("failpoint: " + name + " is not declared")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits[name]++
	for _, pt := range p.asked {
		if pt.name == name && pt.at == p.hits[name] {
			return pt.action, p.first()
		}
	}
	return "", false
}

// first says whether nothing has happened yet, as far as that is to be remembered. A crash after the file was made and
// before the kill is not told apart from the kill: a test must look for the process's end, not for the file.
func (p *points) first() bool {
	if p.once == "" {
		return true
	}
	f, err := os.OpenFile(p.once, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		panic("failpoint: " + err.Error())
	}
	return true
}

func act(a action) {
	if a == kill {
		// The signal may take a moment to arrive; nothing may happen in it.
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic("failpoint: " + err.Error())
		}
	}
	select {}
}
