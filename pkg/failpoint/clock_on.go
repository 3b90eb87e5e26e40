//go:build failpoints

package failpoint

import (
	"os"
	"strings"
	"sync"
	"time"
)

// clockEvery is how often the file is read at most.
const clockEvery = time.Second

// shifted is the clock of the whole process.
type shifted struct {
	file string

	mu     sync.Mutex
	read   time.Time     // guarded by mu; the zero value before the first time
	offset time.Duration // guarded by mu
}

// clock is of the process, as the failpoints are.
//
//nolint:gochecknoglobals // see fromEnvironment
var clock = sync.OnceValue(func() *shifted { return &shifted{file: os.Getenv(EnvClock)} })

// Now is the time by a clock that the file named by [EnvClock] moves. Safe for concurrent use.
func Now() time.Time {
	now := time.Now()
	return now.Add(clock().at(now))
}

// at gives how far the clock is ahead.
func (s *shifted) at(now time.Time) time.Duration {
	if s.file == "" {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.read) < clockEvery {
		return s.offset
	}
	s.read = now
	text, err := os.ReadFile(s.file)
	if os.IsNotExist(err) {
		s.offset = 0
		return 0
	}
	if err == nil {
		s.offset, err = time.ParseDuration(strings.TrimSpace(string(text)))
	}
	if err != nil {
		panic("failpoint: the file of " + EnvClock + ": " + err.Error())
	}
	return s.offset
}
