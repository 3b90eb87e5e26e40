package sqldb

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/ledger"
)

// AnyOrder applies entries that the position has passed, too: as if the stream were read again.
type AnyOrder struct{ *Store }

// Apply is the store's.
func (a AnyOrder) Apply(ctx context.Context, basis ledger.Basis, entries []artifact.Entry) error {
	return a.apply(ctx, basis, entries, true)
}
