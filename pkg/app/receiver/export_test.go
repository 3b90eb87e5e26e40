package receiver

import (
	"context"

	"github.com/harborseal/harborseal/pkg/preflight"
)

// Preflight gives tests what a receiver answers on preflight.ReceiverTopic.
func (a *App) Preflight(ctx context.Context, project string) []preflight.Check {
	return a.preflight(ctx, project)
}
