package signer

import (
	"context"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore/tsa"
)

// NewGuardedAuthority gives tests an authority behind its breakers.
func NewGuardedAuthority(authority *tsa.Authority, timeout time.Duration, breaker *dependency.Breaker) (signing.Timestamps, error) {
	return newGuardedAuthority(authority, timeout, breaker)
}

// Lacks says whether requests by some terms are held while the KMS of their key is away.
func Lacks(kms *dependency.Breaker, t policy.Terms, lane artifact.Lane) bool {
	e := engine{keys: []openedKey{{name: t.Key, breaker: kms}}}
	return e.lacks(t, lane)
}

// Gate waits as a signer does before it pulls.
func Gate(ctx context.Context, policies *book.Book, registry, api *dependency.Breaker) error {
	return (&App{policies: policies, registryBreaker: registry, apiBreaker: api}).gate(ctx)
}

// InFlight is how many digests of a project are in work at once.
func InFlight(cfg *config.Signer, policies *book.Book, project string) int {
	return (&App{cfg: cfg, policies: policies}).inFlight(project)
}
