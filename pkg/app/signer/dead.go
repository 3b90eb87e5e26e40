package signer

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/deadletter"
	"github.com/harborseal/harborseal/pkg/policy/book"
)

// OpenDeadLetters connects to the queue as the configuration says, for a command that works with dead letters. It needs the
// queue alone: neither a receiver nor Harbor has to be there. The caller calls closing at the end.
func OpenDeadLetters(ctx context.Context, cfg *config.Signer) (letters *deadletter.Service, closing func(), err error) {
	client, err := dialQueue(ctx, cfg, dialerOf(cfg), "signer-dead")
	if err != nil {
		return nil, nil, err
	}
	policies := book.New(cfg.Terms())
	if err := readPolicies(ctx, client, policies.Apply); err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("connecting for dead letters: %w", err)
	}
	policies.Loaded()
	letters, err = deadletter.New(deadletter.Config{
		Queue: client, Policies: policies, Logger: zerolog.Nop(),
	})
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return letters, client.Close, nil
}
