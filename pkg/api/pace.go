package api

import (
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// idleWrite is how long a reader may take nothing at all.
	idleWrite = 30 * time.Second
	// slowest is how many bytes a second a reader must take, over all the time that it was waited for, once that is more than
	// slowGrace: a snapshot of the database is kept for it.
	slowest   = 16 << 10
	slowGrace = 60 * time.Second
	// piece is how much is written under one deadline.
	piece = 32 << 10
)

// errSlow ends an answer that its reader does not take.
var errSlow = errors.New("the client takes the answer too slowly")

// paced writes to a client for as long as that reads: each piece moves the deadline. It belongs to one goroutine.
type paced struct {
	w io.Writer
	// limit sets the deadline of writing; a connection without deadlines, as in a test, gives an error, which is passed over.
	limit func(time.Time) error
	now   func() time.Time

	taken  int64
	waited time.Duration
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		begun := p.now()
		_ = p.limit(begun.Add(idleWrite))
		n, err := p.w.Write(b[:min(len(b), piece)])
		written += n
		b = b[n:]
		p.taken += int64(n)
		p.waited += p.now().Sub(begun)
		switch {
		case err != nil:
			return written, fmt.Errorf("writing to the client: %w", err)
		case p.waited > slowGrace && p.taken < int64(p.waited.Seconds()*slowest):
			return written, errSlow
		}
	}
	return written, nil
}
