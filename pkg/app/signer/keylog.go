package signer

import (
	"context"

	"github.com/harborseal/harborseal/pkg/keylog"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// recordKeys records in the ledger which keys this signer has, and how that differs from before.
func (a *App) recordKeys(ctx context.Context) error {
	journal, err := keylog.New(keylog.Config{
		Recorder: a.queue, State: a.queue, Keys: keysOf(a.engine.named(a.cfg.Keys)), Actor: "signer", Logger: a.logger,
	})
	if err != nil {
		// A KMS that is away may have told nothing of its key yet. Signing does not depend on what is recorded of it.
		a.logger.Error().Err(err).Msg("which keys there are cannot be recorded")
		return nil
	}
	return journal.Run(ctx)
}

func keysOf(named []sigstore.NamedKey) []keylog.Key {
	states := map[sigstore.KeyState]string{
		sigstore.Active: keylog.Active, sigstore.VerifyOnly: keylog.Retired, sigstore.Revoked: keylog.Revoked,
	}
	keys := make([]keylog.Key, 0, len(named))
	for _, k := range named {
		var id string
		switch {
		case k.Identity != nil:
			id = k.Identity.KeyID()
		case !k.Public.IsZero():
			id = k.Public.ID()
		}
		keys = append(keys, keylog.Key{ID: id, Name: k.Name, State: states[k.State]})
	}
	return keys
}
