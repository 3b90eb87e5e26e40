package signer

import (
	"context"

	"github.com/harborseal/harborseal/pkg/preflight"
)

// preflight checks a project with this signer's account and keys, for receivers that ask before they enable it.
func (a *App) preflight(ctx context.Context, r preflight.Request) []preflight.Check {
	return preflight.ForSigner{
		Harbor: a.harbor, Keys: a.engine.ring, Defaults: a.cfg.Terms(), Account: a.cfg.Harbor.Username,
	}.Check(ctx, r)
}
