package receiver

import (
	"context"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
)

// maxBehind is how many events the view may lack when it answers what the ledger knows: what comes in within a second or two.
const maxBehind = 2000

// memory answers sweeps from the view, unless that lacks too much: a view that is being filled would say of everything that the
// ledger never heard of it.
type memory struct {
	view      *sqldb.Store
	projector *ledger.Projector
}

// Known implements reconcile.Memory.
func (m memory) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	if err := m.upToDate(ctx); err != nil {
		return nil, err
	}
	return m.view.Known(ctx, refs)
}

// Units implements reconcile.Memory.
func (m memory) Units(ctx context.Context, project, after string, limit int) ([]artifact.Ref, string, error) {
	if err := m.upToDate(ctx); err != nil {
		return nil, "", err
	}
	return m.view.Units(ctx, project, after, limit)
}

func (m memory) upToDate(ctx context.Context) error {
	behind, err := m.projector.Behind(ctx)
	if err != nil {
		return fault.Newf(fault.Transient, fault.StorageUnavailable, "looking how far the report's view is: %w", err)
	}
	if behind > maxBehind {
		return fault.Newf(fault.Transient, fault.StorageUnavailable, "the report's view lacks %d events of the ledger", behind)
	}
	return nil
}
