// Package signer puts the signing program together: it is, with its sibling, the only place that knows all parts.
//
// [New] checks everything that can be checked without the network and binds the listener for health and metrics; [App.Run]
// connects, works until its context ends, and drains. Nothing here decides anything about an image.
package signer

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/canary"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/lifecycle"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
	"github.com/harborseal/harborseal/pkg/registry"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

const (
	// stopMargin is how long closing takes when everything in hand has ended.
	stopMargin = 5 * time.Second
	// peerGroup is under what name signers know of each other.
	peerGroup = "signers"
	// sweepsAtOnce is how many full sweeps run at once over all signers, of which each does one.
	sweepsAtOnce = 16
	// answerers is how many pre-checks one signer does at once.
	answerers = 2
)

// App is one signer. It runs once.
type App struct {
	cfg       *config.Signer
	logger    zerolog.Logger
	registry  *prometheus.Registry
	dialer    *egress.Dialer
	transport *http.Transport
	// registryTransport and the transport of harbor and listing are behind the breakers.
	registryTransport           http.RoundTripper
	registryBreaker, apiBreaker *dependency.Breaker
	images                      *registry.Client
	harbor                      *harbor.Client
	// listing is Harbor as sweeps ask it, within their budget.
	listing  *harbor.Client
	budget   *reconcile.Budget
	policies *book.Book
	engine   engine
	ops      *httpserver.Server
	health   *httpserver.Ops

	// queue is set by the start of the queue's connection, before any part that uses it starts. Health checks and probes may come
	// earlier: they look whether connected is closed.
	queue     *queue.Client
	connected chan struct{}
	// made is when New began.
	made time.Time
	// lastSigned is the project that was asked about last; it belongs to the probe of the account's rights, which runs once at a time.
	lastSigned string
	reconciler *reconcile.Reconciler
	signing    *signing.Service
	monitor    *dependency.Monitor
	canary     *canary.Canary
}

// New validates the configuration, reads keys and secrets, and binds the listener for health and metrics.
func New(ctx context.Context, cfg *config.Signer, logger zerolog.Logger) (*App, error) {
	a := &App{cfg: cfg, logger: logger, registry: telemetry.NewRegistry(), connected: make(chan struct{}), made: time.Now()}
	var err error
	if a.dialer, err = egress.NewDialer(egress.Config{RecordFile: cfg.Egress.RecordFile, Resolver: cfg.Egress.Resolver}); err != nil {
		return nil, err
	}
	if err := errors.Join(a.build(ctx), a.watchDependencies()); err != nil {
		return nil, errors.Join(err, a.engine.close(), a.dialer.Close())
	}
	if err := a.listen(); err != nil { //nolint:contextcheck // it binds an address: it waits for nobody
		return nil, errors.Join(err, a.engine.close(), a.dialer.Close())
	}
	return a, nil
}

// Check does all of New that leaves no trace: it reads keys and secrets, and lets a KMS or HSM sign; it binds no listener and
// connects to nothing else.
func Check(ctx context.Context, cfg *config.Signer) error {
	a := &App{cfg: cfg, logger: zerolog.Nop(), registry: prometheus.NewRegistry(), dialer: dialerOf(cfg)}
	return errors.Join(config.CheckFiles(cfg), a.build(ctx), a.engine.unproven(), a.engine.close(), shell.CheckQueue(cfg.Queue), shell.CheckSecret(cfg.Canary.SecretFile))
}

func (a *App) build(ctx context.Context) error {
	a.policies = book.New(a.cfg.Terms())
	var err error
	h := a.cfg.Harbor
	if a.transport, err = egress.NewTransport(a.dialer, h.CAFile); err != nil {
		return err
	}
	if a.registryTransport, a.registryBreaker, err = a.guard(onRegistry); err != nil {
		return err
	}
	var apiTransport http.RoundTripper
	if apiTransport, a.apiBreaker, err = a.guard(onHarborAPI); err != nil {
		return err
	}
	if a.images, err = registry.New(registry.Config{
		URL: h.URL, StorageOrigins: h.StorageOrigins, Username: h.Username, SecretFile: h.SecretFile, UserAgent: h.UserAgent, Timeout: h.Timeout,
		Transport: a.registryTransport, Logger: a.logger, Registerer: a.registry,
	}); err != nil {
		return err
	}
	if a.budget, err = reconcile.NewBudget(float64(a.cfg.Sweep.RequestsPerSecond), a.peers); err != nil {
		return err
	}
	api := harbor.Config{
		URL: h.URL, Username: h.Username, SecretFile: h.SecretFile, UserAgent: h.UserAgent, Timeout: h.Timeout,
		PageSize: int64(a.cfg.Sweep.PageSize), Transport: apiTransport, Registerer: a.registry,
	}
	if a.harbor, err = harbor.New(api); err != nil {
		return err
	}
	api.Limiter, api.Registerer = a.budget, nil
	if a.listing, err = harbor.New(api); err != nil {
		return err
	}
	return a.engine.build(ctx, a)
}

// peers is how many signers share the budget of sweeps.
func (a *App) peers() int {
	select {
	case <-a.connected:
		return a.queue.Peers(peerGroup)
	default:
		return 1
	}
}

func (a *App) listen() error {
	var err error
	a.health, a.ops, err = shell.NewOps(a.cfg.Ops.Listen, a.registry, a.logger,
		httpserver.Check{Name: "policies", Run: a.checkPolicies}, httpserver.Check{Name: "queue", Run: a.checkQueue})
	return err
}

// checkPolicies asks as each request does: an error means that requests wait.
func (a *App) checkPolicies(ctx context.Context) error {
	_, err := a.policies.Policy(ctx, "")
	return err
}

// OpsAddr is where health and metrics are served.
func (a *App) OpsAddr() net.Addr { return a.ops.Addr() }

func (a *App) checkQueue(ctx context.Context) error {
	select {
	case <-a.connected:
		return a.queue.Writable(ctx)
	default:
		return errNotConnected
	}
}

// Run works until ctx ends, then lets the requests in hand finish within the limit of the configuration and gives the
// others back to the queue.
func (a *App) Run(ctx context.Context) error {
	g := lifecycle.New(a.cfg.Shutdown.Drain + stopMargin)
	g.Add("connections", lifecycle.Component{Stop: func(context.Context) error {
		a.transport.CloseIdleConnections()
		return a.dialer.Close()
	}})
	g.Add("keys", lifecycle.Component{Stop: func(context.Context) error { return a.engine.close() }})
	shell.AddListener(g, "ops listener", a.ops)
	// What is missing is seen while the queue is waited for, too, and recorded as long as it is there.
	g.Add("queue", lifecycle.Component{Stop: a.disconnect})
	g.Go("probing dependencies", a.monitor.Run)
	g.Add("queue connection", lifecycle.Component{Start: a.connect})
	g.Go("watching policies", func(ctx context.Context) error {
		return a.queue.WatchPolicies(ctx, a.policies.Apply, a.policies.Loaded, a.policies.Lost)
	})
	g.Go("presence", func(ctx context.Context) error { return a.queue.Announce(ctx, peerGroup) })
	g.Go("answers to pre-checks", func(ctx context.Context) error {
		return a.queue.Answer(ctx, preflight.Topic, answerers, preflight.Handler(a.preflight))
	})
	g.Go("checking formats", a.checkFormats)
	g.Go("measuring the queue", func(ctx context.Context) error { return a.queue.MeasureUsage(ctx) })
	g.Go("answers about trust", func(ctx context.Context) error { return a.queue.Answer(ctx, shell.TrustTopic, 1, a.answerTrust) })
	g.Go("looking at written tags", a.engine.watch.Run)
	g.Go("recording keys", a.recordKeys)
	a.addInspector(g)
	g.Add("signing service", lifecycle.Component{Start: a.startSigning})
	g.Go("signing", a.work)
	a.addCanary(g)
	// Sweeps end at once, before the requests in hand are waited for: another signer can go on with them.
	g.Add("reconciler", lifecycle.Component{Start: a.startReconciler})
	g.Go("proposing sweeps", func(ctx context.Context) error { return a.reconciler.Run(ctx) })
	g.Go("full sweeps", a.sweep(reconcile.Full, sweepsAtOnce))
	g.Go("recent sweeps", a.sweep(reconcile.Recent, 1))
	// The last to be added is the first to stop: no new traffic is sent to a program that drains.
	g.Add("readiness", lifecycle.Component{Stop: func(context.Context) error { a.health.Drain(); return nil }})
	a.logger.Info().Str("version", telemetry.Version()).Str("ops", a.ops.Addr().String()).Strs("keys", a.engine.keyIDs()).
		Str("harbor", a.cfg.Harbor.URL).Str("public_host", a.cfg.Harbor.PublicHost).Msg("signer starts")
	if err := a.engine.unproven(); err != nil {
		a.logger.Error().Err(err).Msg("a KMS or HSM is away or refuses: what its keys sign waits until it signs")
	}
	err := g.Run(ctx)
	a.logger.Info().Msg("signer has stopped")
	return err
}

func (a *App) connect(ctx context.Context) error {
	cfg := queueConfig(a.cfg, a.dialer, "signer")
	cfg.Logger, cfg.Registerer = a.logger, a.registry
	// A tick has to be remembered while its slot lasts. Full sweeps have 24 slots in an interval; keeping ticks for long costs the
	// server memory for each of them.
	cfg.Limits = queue.Limits{ScanMaxAge: max(a.cfg.Sweep.Full/8, time.Hour)}
	client, err := queue.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	if err := client.Setup(ctx); err != nil {
		client.Close()
		return err
	}
	a.queue = client
	close(a.connected)
	return nil
}

func (a *App) disconnect(context.Context) error {
	if a.queue != nil {
		a.queue.Close()
	}
	return nil
}

func (a *App) startSigning(context.Context) error {
	cfg := a.signingConfig()
	cfg.Queue, cfg.Policies, cfg.Watch = a.queue, policies{a.policies, a.queue}, a.engine.watch
	cfg.MaxAge, cfg.Now, cfg.Logger, cfg.Registerer = a.cfg.Sign.MaxAge, failpoint.Now, a.logger, a.registry
	var err error
	a.signing, err = signing.New(cfg)
	return err
}

// signingConfig has what makes signatures, for the service and for the doctor.
func (a *App) signingConfig() signing.Config {
	e := &a.engine
	cfg := signing.Config{
		Registry: a.images, Keys: e.ring, Legacy: e.legacy, Bundles: e.bundles, Verifier: e.verifier, Merger: e.merger, Harbor: a.harbor,
		Logs: &e.proofs,
	}
	if e.proofs.authority != nil {
		cfg.Timestamps = e.proofs.authority
	}
	return cfg
}

// work signs and pays debts until ctx ends. Both drain at the same time: one after the other, the second would pull new work
// meanwhile, and have no time left.
func (a *App) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs [2]error
	var running sync.WaitGroup
	for i, part := range []func(context.Context) error{a.sign, a.payDebts} {
		running.Go(func() {
			defer cancel() // neither goes on without the other
			errs[i] = part(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs[:]...)
}

func (a *App) sign(ctx context.Context) error {
	return a.queue.Consume(ctx, queue.ConsumeConfig{
		Slots: a.cfg.Sign.Concurrency, Aside: a.cfg.Sign.LogConcurrency, Drain: a.cfg.Shutdown.Drain, Cap: a.inFlight, Gate: a.gate, Hold: a.hold,
		Now:    failpoint.Now,
		Handle: func(ctx context.Context, d *queue.Delivery) { a.signing.Handle(ctx, d) },
	})
}

// payDebts has slots of its own: nearly all of the time is waiting for a log.
func (a *App) payDebts(ctx context.Context) error {
	return a.queue.ConsumeDebts(ctx, queue.ConsumeConfig{
		Slots: a.cfg.Sign.LogConcurrency, Drain: a.cfg.Shutdown.Drain, Gate: a.gate, Hold: a.hold, Now: failpoint.Now,
		Handle: func(ctx context.Context, d *queue.Delivery) { a.signing.Pay(ctx, d) },
	})
}

// inFlight is how many digests of a project are worked on at once.
func (a *App) inFlight(project string) int {
	p, err := a.policies.Policy(context.Background(), project) // it asks nobody
	if err != nil || p.MaxInFlight == 0 {
		return a.cfg.Sign.MaxInFlight
	}
	return p.MaxInFlight
}

// checkFormats says early what the ledger will say of each digest: that this Harbor does not take a format. It ends
// nothing, because an upgrade of Harbor heals it.
func (a *App) checkFormats(ctx context.Context) error {
	bundles, version, err := a.harbor.Bundles(ctx)
	if err != nil {
		a.logger.Warn().Err(err).Msg("harbor's version is not known yet: what does not need it is signed")
		return nil
	}
	a.logger.Info().Str("harbor_version", version).Bool("bundles", bundles).Msg("harbor's version is known")
	if _, err := a.cfg.Sign.Format.Formats(bundles); err != nil {
		a.logger.Error().Err(err).Str("harbor_version", version).Msg("a format is configured that this harbor does not take")
	}
	return nil
}

func (a *App) startReconciler(context.Context) error {
	memory, err := reconcile.NewRemoteMemory(a.queue)
	if err != nil {
		return err
	}
	a.reconciler, err = reconcile.New(reconcile.Config{
		Harbor: a.listing, Queue: a.queue, State: a.queue, Policies: policies{a.policies, a.queue}, Memory: memory, Verifier: a.engine.review,
		Budget: a.budget, Interval: a.cfg.Sweep.Full, RecentInterval: a.cfg.Sweep.Incremental, OwnAccounts: []string{a.cfg.Harbor.Username},
		Logger: a.logger, Registerer: a.registry,
	})
	return err
}

func (a *App) sweep(kind string, atOnce int) func(context.Context) error {
	return func(ctx context.Context) error {
		return a.queue.ConsumeTicks(ctx, kind, atOnce, func(ctx context.Context, t queue.Tick) error {
			return a.reconciler.Tick(ctx, kind, t.Key, t.Slot)
		})
	}
}
