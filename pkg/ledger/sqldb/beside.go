package sqldb

import (
	"context"
	"errors"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// readersGrace is how long readers of a view that was replaced may take before it is left to the next rebuild to delete it.
const readersGrace = time.Minute

// beside is a view that is being filled. Its methods make one attempt each, and give faults.
type beside struct {
	store  *Store
	view   *view
	unlock func()
	// replaced is the view in whose place this one was put; nil before.
	replaced *view
}

// Beside makes an empty view beside the one that is served.
func (s *Store) Beside(ctx context.Context) (ledger.Beside, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	v, unlock, err := s.backend.beside(ctx)
	if err != nil {
		return nil, s.fail(ctx, "making a view", err)
	}
	return &beside{store: s, view: v, unlock: unlock}, nil
}

// Position gives how far it has come.
func (b *beside) Position(ctx context.Context) (ledger.Position, error) {
	position, err := scanPosition(b.view.read.QueryRowContext(ctx, selectPosition))
	if err != nil {
		return ledger.Position{}, b.store.fail(ctx, "reading the position", err)
	}
	return position, nil
}

// Reset begins it anew.
func (b *beside) Reset(ctx context.Context, seen ledger.Position, stream time.Time, rules int) (ledger.Position, error) {
	position, err := b.view.reset(ctx, seen, stream, rules)
	if err != nil {
		return ledger.Position{}, b.store.fail(ctx, "resetting the view", err)
	}
	return position, nil
}

// Apply brings it forward.
func (b *beside) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	if err := b.view.apply(ctx, basis, entries, false); err != nil {
		return b.store.fail(ctx, "applying events", err)
	}
	return nil
}

// Promote puts it in the place of the view that is served.
func (b *beside) Promote(ctx context.Context) (bool, error) {
	s := b.store
	if err := s.settle(ctx); err != nil { // the old view may have been replaced meanwhile
		return false, s.fail(ctx, "replacing the view", err)
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	old, err := s.acquire()
	if err != nil {
		return false, s.fail(ctx, "replacing the view", err)
	}
	promoted, err := s.backend.promote(ctx, old, b.view)
	s.release(old)
	if err != nil || !promoted {
		if err != nil {
			err = s.fail(ctx, "replacing the view", err)
		}
		return false, err
	}
	b.replaced = s.serve(b.view)
	return true, nil
}

// Close deletes the view that is not served: this one, or the one in whose place it was put, when nobody reads that any more.
func (b *beside) Close(ctx context.Context) error {
	defer b.unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*readersGrace)
	defer cancel()
	if b.replaced == nil {
		b.view.close()
		return errors.Join(b.view.closing, b.store.backend.drop(ctx, b.view.name))
	}
	grace := time.NewTimer(readersGrace)
	defer grace.Stop()
	select {
	case <-b.replaced.ended:
	case <-grace.C:
		b.replaced.kill(errLost)
		<-b.replaced.ended
	}
	others := time.NewTimer(b.store.backend.keepReplaced())
	defer others.Stop()
	select {
	case <-others.C:
	case <-b.store.ending: // the next rebuild deletes it
		return nil
	}
	return b.store.backend.drop(ctx, b.replaced.name)
}
