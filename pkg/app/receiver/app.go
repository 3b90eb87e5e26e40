// Package receiver puts the receiving program together: it is, with its sibling, the only place that knows all parts.
//
// [New] checks everything that can be checked without the network and binds the listeners; [App.Run] starts the embedded
// queue where one is configured, connects, serves until its context ends, and drains. Nothing here decides anything about
// an image, and no key that could sign one is ever read.
package receiver

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/lifecycle"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/telemetry"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// stopMargin is how long closing takes when everything in hand has ended.
const stopMargin = 5 * time.Second

// App is one receiver. It runs once.
type App struct {
	cfg      *config.Receiver
	logger   zerolog.Logger
	registry *prometheus.Registry
	dialer   *egress.Dialer
	policies *policy.Set
	store    *sqldb.Store
	public   *httpserver.Server
	ops      *httpserver.Server
	health   *httpserver.Ops

	// What follows is set by the start of its part, before any part that uses it starts. Health checks may come earlier:
	// they wait for connected.
	server    *queue.Server
	queue     *queue.Client
	connected chan struct{}
}

// New validates the configuration, reads keys, tokens and secrets, opens the database, and binds the listeners. ctx bounds
// the opening of a large database alone.
func New(ctx context.Context, cfg *config.Receiver, logger zerolog.Logger) (*App, error) {
	a := &App{cfg: cfg, logger: logger, registry: telemetry.NewRegistry(), connected: make(chan struct{})}
	var err error
	if a.dialer, err = egress.NewDialer(egress.Config{RecordFile: cfg.Egress.RecordFile}); err != nil {
		return nil, err
	}
	if a.store, err = sqldb.Open(ctx, sqldb.Config{Path: cfg.Ledger.SQLite.Path, Logger: logger}); err != nil {
		return nil, errors.Join(err, a.dialer.Close())
	}
	engine, err := a.build()
	if err == nil {
		err = a.listen(engine) //nolint:contextcheck // binding a listener waits for nobody
	}
	if err != nil {
		return nil, errors.Join(err, a.store.Close(), a.dialer.Close())
	}
	return a, nil
}

// Check does all of New that leaves no trace: it reads keys, tokens and secrets, but binds no listener, opens no database
// and connects to nothing.
func Check(_ context.Context, cfg *config.Receiver) error {
	a := &App{cfg: cfg, logger: zerolog.Nop(), registry: prometheus.NewRegistry(), dialer: &egress.Dialer{}}
	_, err := a.build()
	return errors.Join(config.CheckFiles(cfg), err, checkConnections(cfg))
}

// build makes what serves the public door.
func (a *App) build() (*gin.Engine, error) {
	var err error
	if a.policies, err = policy.NewSet(policy.SetConfig{Projects: a.cfg.Projects}); err != nil {
		return nil, err
	}
	keys, err := loadKeys(a.cfg.Keys)
	if err != nil {
		return nil, err
	}
	engine, err := httpserver.NewEngine(a.logger, a.registry, a.cfg.HTTP.TrustedProxies)
	if err != nil {
		return nil, err
	}
	hooks, err := webhook.New(webhook.Config{
		SecretFiles: a.cfg.Webhook.SecretFiles, OwnOperators: a.cfg.Webhook.OwnOperators, HarborName: a.cfg.Harbor.Name,
		Policies: a.policies, Queue: connectedQueue{a}, Logger: a.logger, Registerer: a.registry,
	})
	if err != nil {
		return nil, err
	}
	hooks.Register(engine)
	report, err := api.New(api.Config{Signatures: a.store, Registry: a.cfg.Harbor.PublicHost, TokensFile: a.cfg.API.TokensFile, Keys: keys, Logger: a.logger})
	if err != nil {
		return nil, err
	}
	report.Register(engine)
	return engine, nil
}

func (a *App) listen(engine *gin.Engine) error {
	var err error
	if a.health, a.ops, err = shell.NewOps(a.cfg.Ops.Listen, a.registry, a.logger,
		httpserver.Check{Name: "policies", Run: a.checkPolicies}, httpserver.Check{Name: "queue", Run: a.checkQueue}); err != nil {
		return err
	}
	public := httpserver.Config{
		Name: "public", Listen: a.cfg.HTTP.Listen, AllowPlainHTTP: a.cfg.HTTP.AllowPlainHTTP, Handler: engine,
		Logger: a.logger, Registerer: a.registry,
	}
	if a.cfg.HTTP.TLS.Enabled() {
		public.TLS = &httpserver.TLS{CertFile: a.cfg.HTTP.TLS.CertFile, KeyFile: a.cfg.HTTP.TLS.KeyFile}
	}
	if a.public, err = httpserver.New(public); err != nil {
		return errors.Join(err, a.ops.Stop(context.Background()))
	}
	return nil
}

// PublicURL is where webhooks and the API are served.
func (a *App) PublicURL() string { return a.public.URL() }

// OpsAddr is where health and metrics are served.
func (a *App) OpsAddr() net.Addr { return a.ops.Addr() }

// QueueAddr is where signers connect to the embedded queue; empty before it is ready, and without one.
func (a *App) QueueAddr() string {
	select {
	case <-a.connected:
		if a.server != nil {
			return a.server.Addr()
		}
	default:
	}
	return ""
}

// checkPolicies asks as the webhook does: an error means that it answers 503.
func (a *App) checkPolicies(ctx context.Context) error {
	_, err := a.policies.Policy(ctx, "")
	return err
}

func (a *App) checkQueue(ctx context.Context) error {
	select {
	case <-a.connected:
		return a.queue.Writable(ctx)
	default:
		return errors.New("not connected yet")
	}
}

// Run serves until ctx ends, then finishes the requests in hand within the limit of the configuration.
func (a *App) Run(ctx context.Context) error {
	projector, err := ledger.NewProjector(ledger.ProjectorConfig{Source: connectedQueue{a}, View: a.store, Logger: a.logger, Registerer: a.registry})
	if err != nil {
		return err
	}
	g := lifecycle.New(a.cfg.Shutdown.Drain + stopMargin)
	g.Add("egress record", lifecycle.Component{Stop: func(context.Context) error { return a.dialer.Close() }})
	g.Add("ledger database", lifecycle.Component{Stop: func(context.Context) error { return a.store.Close() }})
	shell.AddListener(g, "ops listener", a.ops)
	// The queue comes up in the background: until then webhooks are answered with 503 instead of not at all, and the report
	// and the keys are served.
	g.Add("queue", lifecycle.Component{Stop: a.closeQueue})
	g.Go("queue start", a.startQueue)
	g.Go("ledger projection", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.connected:
			return projector.Run(ctx)
		}
	})
	shell.AddListener(g, "public listener", a.public)
	// The last to be added is the first to stop: no new traffic is sent to a program that drains.
	g.Add("readiness", lifecycle.Component{Stop: func(context.Context) error { a.health.Drain(); return nil }})
	a.logger.Info().Str("version", telemetry.Version()).Str("url", a.public.URL()).Str("ops", a.ops.Addr().String()).
		Bool("embedded_queue", a.cfg.Queue.Embedded.Enabled).Strs("projects", a.cfg.Projects).Msg("receiver starts")
	if len(a.cfg.Projects) == 0 {
		a.logger.Warn().Msg("no projects are configured: nothing is signed")
	}
	err = g.Run(ctx)
	a.logger.Info().Msg("receiver has stopped")
	return err
}

// startQueue is the only writer of server and queue; closeQueue runs after it has returned.
func (a *App) startQueue(ctx context.Context) error {
	if a.cfg.Queue.Embedded.Enabled {
		if err := a.startServer(ctx); err != nil {
			return err
		}
	}
	return a.connect(ctx)
}

func (a *App) closeQueue(ctx context.Context) error {
	if a.queue != nil {
		a.queue.Close()
	}
	if a.server != nil {
		return a.server.Shutdown(ctx)
	}
	return nil
}

func (a *App) startServer(ctx context.Context) error {
	e := a.cfg.Queue.Embedded
	cfg := queue.ServerConfig{StoreDir: e.StoreDir, Listen: e.Listen, MaxStore: int64(e.MaxStore), Logger: a.logger}
	for _, u := range e.Users {
		cfg.Users = append(cfg.Users, queue.User{Name: u.Name, PasswordFile: u.PasswordFile})
	}
	if e.TLS.Enabled() {
		cfg.TLS = &queue.TLSConfig{CertFile: e.TLS.CertFile, KeyFile: e.TLS.KeyFile, ClientCAFile: e.TLS.ClientCAFile}
	}
	var err error
	a.server, err = queue.StartServer(ctx, cfg)
	return err
}

func (a *App) connect(ctx context.Context) error {
	q := a.cfg.Queue
	cfg := queue.Config{
		Harbor: a.cfg.Harbor.Name, Server: a.server, Name: "receiver", Replicas: q.Replicas, AckWait: q.AckWait,
		Limits:      queue.Limits{LedgerMaxBytes: int64(a.cfg.Ledger.MaxBytes), LedgerMaxAge: a.cfg.Ledger.MaxAge},
		DialContext: a.dialer.DialContext, Logger: a.logger, Registerer: a.registry,
	}
	if a.server == nil {
		cfg.URLs, cfg.Username, cfg.PasswordFile, cfg.CredentialsFile = q.URLs, q.Username, q.PasswordFile, q.CredentialsFile
		cfg.TLS = queue.ClientTLS{CAFile: q.TLS.CAFile, CertFile: q.TLS.CertFile, KeyFile: q.TLS.KeyFile}
	}
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
