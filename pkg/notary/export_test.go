package notary

import (
	"context"
	"errors"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// Follow reads the ledger once, as Run does, until ctx ends or something breaks.
func (n *Notary) Follow(ctx context.Context) error { return n.follow(ctx) }

// CaughtUp says whether the reading has come to an event.
func (n *Notary) CaughtUp(seq uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.follower != nil && n.follower.caughtUp() && n.follower.chain.position >= seq
}

// OpenRecord and OpenEpoch verify records.
var (
	OpenRecord = openRecord
	OpenEpoch  = openEpoch
)

// Slot reads a ledger and does what is due, as Run does in one slot of time, without a goroutine.
func Slot(ledger Ledger, key *Key, now func() time.Time) error {
	n, err := New(Config{Ledger: ledger, Key: key, Now: now})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := n.look(ctx)
	if err != nil {
		return err
	}
	f, after, err := n.open(ctx, s)
	if err != nil {
		return err
	}
	n.follower = f
	read := errors.New("read")
	if s.newest.Seq > after {
		err = ledger.Events(ctx, after, func(_ context.Context, entries []artifact.Entry) error {
			n.take(f, entries)
			return read
		})
		if !errors.Is(err, read) {
			return err
		}
	}
	return n.Tick(ctx)
}
