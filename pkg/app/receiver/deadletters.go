package receiver

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/failpoint"
)

// deadLetters makes what the API does with dead letters.
func (a *App) deadLetters() (*deadletter.Service, error) {
	return deadletter.New(deadletter.Config{Queue: connectedQueue{a}, Policies: a.policies, Now: failpoint.Now, Logger: a.logger})
}

// Letters implements the queue of package deadletter, as do the methods below.
func (q connectedQueue) Letters(ctx context.Context, after uint64, limit int) ([]artifact.DeadLetter, error) {
	c, err := q.client()
	if err != nil {
		return nil, err
	}
	return c.Letters(ctx, after, limit)
}

// Letter implements the queue of package deadletter.
func (q connectedQueue) Letter(ctx context.Context, id uint64) (artifact.DeadLetter, error) {
	c, err := q.client()
	if err != nil {
		return artifact.DeadLetter{}, err
	}
	return c.Letter(ctx, id)
}

// RemoveLetter implements the queue of package deadletter.
func (q connectedQueue) RemoveLetter(ctx context.Context, id uint64) error {
	c, err := q.client()
	if err != nil {
		return err
	}
	return c.RemoveLetter(ctx, id)
}
