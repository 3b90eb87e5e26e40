package signer

import (
	"context"

	"github.com/harborseal/harborseal/pkg/canary"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/lifecycle"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/registry"
)

// addCanary adds the trials of the whole way, where there is an account for them.
func (a *App) addCanary(g *lifecycle.Group) {
	if !a.cfg.Canary.Enabled() {
		return
	}
	g.Add("canary", lifecycle.Component{Start: a.startCanary})
	g.Go("proposing canaries", func(ctx context.Context) error { return a.canary.Run(ctx) })
	g.Go("canaries", func(ctx context.Context) error {
		return a.queue.ConsumeTicks(ctx, canary.Kind, canary.AtOnce, func(ctx context.Context, t queue.Tick) error {
			return a.canary.Tick(ctx, t.Key, t.Slot)
		})
	})
}

// startCanary makes it with the canary's own account, and past the breakers: a trial that fails is what it is for.
func (a *App) startCanary(context.Context) error {
	h, c := a.cfg.Harbor, a.cfg.Canary
	images, err := registry.New(registry.Config{
		URL: h.URL, StorageOrigins: h.StorageOrigins, Username: c.Username, SecretFile: c.SecretFile, UserAgent: h.UserAgent, Timeout: h.Timeout,
		Transport: a.transport, Logger: a.logger,
	})
	if err != nil {
		return err
	}
	api, err := harbor.New(harbor.Config{
		URL: h.URL, Username: c.Username, SecretFile: c.SecretFile, UserAgent: h.UserAgent, Timeout: h.Timeout, Transport: a.transport,
	})
	if err != nil {
		return err
	}
	a.canary, err = canary.New(canary.Config{
		Registry: images, Harbor: api, Queue: a.queue, Verifier: a.engine.review, Policies: a.policies, Interval: c.Interval,
		Logger: a.logger, Registerer: a.registry,
	})
	return err
}
