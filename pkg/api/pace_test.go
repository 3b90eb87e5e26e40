package api_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
)

// slowly takes each piece in so much time of a clock of its own.
type slowly struct {
	bytes.Buffer

	clock time.Time
	each  time.Duration
}

func (s *slowly) Write(b []byte) (int, error) {
	s.clock = s.clock.Add(s.each)
	return s.Buffer.Write(b)
}

func TestPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each  time.Duration
		whole bool
	}{
		"fast": {time.Millisecond, true},
		"just": {1900 * time.Millisecond, true}, // 32 KiB in 2 s is the slowest
		"slow": {3 * time.Second, false},
	} {
		reader := &slowly{clock: time.Unix(0, 0), each: c.each}
		var deadlines []time.Time
		w := api.Paced(reader, func(at time.Time) error {
			deadlines = append(deadlines, at)
			return errors.New("no deadlines here")
		}, func() time.Time { return reader.clock })
		n, err := w.Write(make([]byte, 4<<20))
		if (err == nil) != c.whole || c.whole != (n == 4<<20) || n != reader.Len() {
			t.Errorf("%s: Write = %d, %v; want whole: %t", name, n, err, c.whole)
		}
		for i := 1; i < len(deadlines); i++ {
			if got := deadlines[i].Sub(deadlines[i-1]); got != c.each {
				t.Fatalf("%s: the deadline moves by %s, want by what a piece took, %s", name, got, c.each)
			}
		}
		if !c.whole && (reader.clock.Sub(time.Unix(0, 0)) > 70*time.Second || !errors.Is(err, api.ErrSlow)) {
			t.Errorf("%s: ended after %s with %v, want about a minute", name, reader.clock.Sub(time.Unix(0, 0)), err)
		}
	}
}
