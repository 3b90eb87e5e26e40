package receiver

import (
	"context"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/inspect"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// build makes what serves the public door.
func (a *App) build() (*gin.Engine, error) {
	var err error
	if a.declared, err = a.cfg.Declared(); err != nil {
		return nil, err
	}
	a.policies = book.New(policy.Terms{})
	if err := a.buildHarbor(); err != nil {
		return nil, err
	}
	if err := a.buildEnroll(); err != nil {
		return nil, err
	}
	engine, err := httpserver.NewEngine(a.logger, a.registry, a.cfg.HTTP.TrustedProxies)
	if err != nil {
		return nil, err
	}
	w := a.cfg.Webhook
	hooks, err := webhook.New(webhook.Config{
		SecretFiles: w.SecretFiles, Secrets: a.enroll, OwnOperators: w.OwnOperators, HarborName: a.cfg.Harbor.Name,
		Policies: a.policies, Queue: connectedQueue{a}, Rate: policy.Rate{PerSecond: w.Rate.PerSecond, Burst: w.Rate.Burst},
		Logger: a.logger, Registerer: a.registry, Now: failpoint.Now,
	})
	if err != nil {
		return nil, err
	}
	hooks.Register(engine)
	served, err := a.buildAPI(hooks.Door())
	if err != nil {
		return nil, err
	}
	served.Register(engine)
	return engine, nil
}

// buildHarbor makes the client with the receiver's own account, where there is one.
func (a *App) buildHarbor() error {
	h := a.cfg.Harbor
	if !h.Managed() {
		return nil
	}
	var err error
	if a.transport, err = egress.NewTransport(a.dialer, h.CAFile); err != nil {
		return err
	}
	a.harbor, err = harbor.New(harbor.Config{
		URL: h.URL, Username: h.Username, SecretFile: h.SecretFile, Timeout: h.Timeout, Transport: a.transport, Registerer: a.registry,
	})
	return err
}

func (a *App) buildEnroll() error {
	w := a.cfg.Webhook
	cfg := enroll.Config{
		HarborName: a.cfg.Harbor.Name, Account: a.cfg.Harbor.Username, Queue: connectedQueue{a}, Book: a.policies,
		WebhookURL: w.URL, MasterFiles: w.MasterSecretFiles, Interval: a.cfg.Drift.Interval,
		Logger: a.logger, Registerer: a.registry, Now: failpoint.Now,
	}
	if a.harbor != nil {
		cfg.Harbor = a.harbor
		cfg.As = func(authorization string) enroll.Caller { return a.harbor.As(authorization) }
	}
	var err error
	a.enroll, err = enroll.New(cfg)
	return err
}

func (a *App) buildAPI(door *webhook.Door) (*api.API, error) {
	keys, err := loadKeys(a.cfg.Keys)
	if err != nil {
		return nil, err
	}
	if err := a.loadLedgerKey(keys); err != nil {
		return nil, err
	}
	if err := a.buildNotary(); err != nil {
		return nil, err
	}
	if err := a.buildReport(door); err != nil {
		return nil, err
	}
	guard, err := a.buildAccess()
	if err != nil {
		return nil, err
	}
	letters, err := a.deadLetters()
	if err != nil {
		return nil, err
	}
	images, err := inspect.NewClient(connectedQueue{a})
	if err != nil {
		return nil, err
	}
	cfg := api.Config{
		Ledger: a.store, Rotations: a.store, Projects: a.enroll, Policies: a.policies, DeadLetters: letters, Access: guard, Trust: a.trust,
		Coverage: a.store, Status: a.status, Door: door, Images: images, Unit: opened{a}, History: connectedQueue{a}, Exports: a.exports, Reads: a.reads,
		Registry: a.cfg.Harbor.PublicHost, Keys: keys, Logger: a.logger,
	}
	if a.notary != nil {
		cfg.Merkle, cfg.Prove = a.notary, a.prove
	}
	return api.New(cfg)
}

func (a *App) buildAccess() (*access.Access, error) {
	who := access.Config{
		TokensFile: a.cfg.API.TokensFile, Auditors: a.cfg.API.Auditors, Logger: a.logger, Registerer: a.registry,
		// The store is opened before the door, but not where the configuration is only checked.
		Names: func(ctx context.Context) ([]string, error) { return a.store.Names(ctx) },
	}
	if a.harbor != nil {
		who.Harbor = accounts{a.harbor}
	}
	return access.New(who)
}
