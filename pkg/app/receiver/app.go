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
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/httpserver"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/lifecycle"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/preflight"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/reconcile"
	"github.com/harborseal/harborseal/pkg/report"
	"github.com/harborseal/harborseal/pkg/status"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

const (
	// stopMargin is how long closing takes when everything in hand has ended.
	stopMargin = 5 * time.Second
	// checksAtOnce is how many drift checks run at once over all receivers, and answerers how many questions of the signers
	// this one answers at once.
	checksAtOnce = 2
	answerers    = 4
)

// App is one receiver. It runs once.
type App struct {
	cfg      *config.Receiver
	logger   zerolog.Logger
	registry *prometheus.Registry
	dialer   *egress.Dialer
	// transport and harbor are nil where the configuration names no Harbor.
	transport *http.Transport
	harbor    *harbor.Client
	// policies are those of the bucket, of which declared are those of the configuration.
	policies *book.Book
	declared *policy.Declared
	enroll   *enroll.Service
	store    *sqldb.Store
	public   *httpserver.Server
	ops      *httpserver.Server
	health   *httpserver.Ops
	monitor  *dependency.Monitor
	gauges   *ledger.Gauges
	// Of the report: who is told that it was read, what exports it, what tells how single images stand, and what rebuilds the view.
	reads     *report.Recorder
	exports   *report.Exporter
	status    *status.Service
	projector *ledger.Projector
	rebuilder *ledger.Rebuilder
	// Of the tamper evidence; nil without a ledger key.
	ledgerKey  *notary.Key
	ledgerKeys *notary.Keys
	notary     *notary.Notary
	prover     *notary.Prover
	// instance tells receivers apart.
	instance string

	// What follows is set by the start of its part, before any part that uses it starts. Health checks may come earlier:
	// they wait for connected.
	server    *queue.Server
	queue     *queue.Client
	places    *queue.Places
	connected chan struct{}
	// made is when New began.
	made time.Time
}

// New validates the configuration, reads keys, tokens and secrets, opens the database, and binds the listeners. ctx bounds
// the opening of a large database alone.
func New(ctx context.Context, cfg *config.Receiver, logger zerolog.Logger) (*App, error) {
	a := &App{cfg: cfg, logger: logger, registry: telemetry.NewRegistry(), connected: make(chan struct{}), made: time.Now()}
	var err error
	if a.dialer, err = egress.NewDialer(egress.Config{RecordFile: cfg.Egress.RecordFile, Resolver: cfg.Egress.Resolver}); err != nil {
		return nil, err
	}
	if err = a.openStore(ctx); err != nil {
		return nil, errors.Join(err, a.dialer.Close())
	}
	engine, err := a.build() //nolint:contextcheck // what it makes is asked with contexts of its own
	if err == nil {
		err = a.watchDependencies()
	}
	if err == nil {
		err = a.buildProjection()
	}
	if err == nil {
		a.gauges, err = ledger.NewGauges(ledger.GaugesConfig{View: a.store, Registerer: a.registry, Logger: logger})
	}
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
	_, err := a.build() //nolint:contextcheck // as in New
	return errors.Join(config.CheckFiles(cfg), err, checkConnections(cfg))
}

func (a *App) listen(engine *gin.Engine) error {
	var err error
	if a.health, a.ops, err = shell.NewOps(a.cfg.Ops.Listen, a.registry, a.logger,
		httpserver.Check{Name: "policies", Run: a.checkPolicies}, httpserver.Check{Name: "queue", Run: a.checkQueue},
		httpserver.Check{Name: "report", Run: a.checkReport, Optional: true}); err != nil {
		return err
	}
	public := httpserver.Config{
		Name: "public", Listen: a.cfg.HTTP.Listen, AllowPlainHTTP: a.cfg.HTTP.AllowPlainHTTP,
		MaxConnections: a.cfg.HTTP.MaxConnections, Handler: engine,
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
	g := lifecycle.New(a.cfg.Shutdown.Drain + stopMargin)
	g.Add("connections", lifecycle.Component{Stop: func(context.Context) error {
		if a.transport != nil {
			a.transport.CloseIdleConnections()
		}
		return a.dialer.Close()
	}})
	g.Add("ledger database", lifecycle.Component{Stop: func(context.Context) error { return a.store.Close() }})
	shell.AddListener(g, "ops listener", a.ops)
	// The queue comes up in the background: until then webhooks are answered with 503 instead of not at all, and the report
	// and the keys are served.
	g.Add("queue", lifecycle.Component{Stop: a.closeQueue})
	g.Go("queue start", a.startQueue)
	g.Go("probing dependencies", a.monitor.Run)
	g.Go("metrics of the report", a.gauges.Run)
	a.addWork(g)
	g.Go("waking who waits", a.status.Run)
	shell.AddListener(g, "public listener", a.public)
	// Who waits for a signature is answered before the listener waits for them.
	g.Add("waiting questions", lifecycle.Component{Stop: func(context.Context) error { a.status.Drain(); return nil }})
	// The last to be added is the first to stop: no new traffic is sent to a program that drains.
	g.Add("readiness", lifecycle.Component{Stop: func(context.Context) error { a.health.Drain(); return nil }})
	a.logger.Info().Str("version", telemetry.Version()).Str("url", a.public.URL()).Str("ops", a.ops.Addr().String()).
		Bool("embedded_queue", a.cfg.Queue.Embedded.Enabled).Bool("sees_to_webhooks", a.harbor != nil).
		Int("declared_policies", len(a.cfg.Policies)).Msg("receiver starts")
	err := g.Run(ctx)
	a.logger.Info().Msg("receiver has stopped")
	return err
}

// addWork adds what needs the queue.
func (a *App) addWork(g *lifecycle.Group) {
	add := func(name string, run func(context.Context) error) { g.Go(name, a.onceConnected(run)) }
	add("measuring the queue", func(ctx context.Context) error { return a.queue.MeasureUsage(ctx) })
	a.addReport(add)
	known := memory{view: a.store, projector: a.projector}
	add("answers about digests", a.answer(reconcile.TopicKnown, reconcile.AnswerKnown(known)))
	add("answers about projects", a.answer(reconcile.TopicUnits, reconcile.AnswerUnits(known)))
	add("answers to the doctor", a.answer(preflight.ReceiverTopic, preflight.ReceiverHandler(a.preflight)))
	add("watching policies", func(ctx context.Context) error {
		return a.queue.WatchPolicies(ctx, a.policies.Apply, a.policies.Loaded, a.policies.Lost)
	})
	add("declaring policies", a.declare)
	add("proposing drift checks", a.enroll.Run)
	if a.harbor == nil {
		return
	}
	add("drift checks", func(ctx context.Context) error {
		return a.queue.ConsumeTicks(ctx, enroll.DriftTick, checksAtOnce, func(ctx context.Context, t queue.Tick) error {
			return a.enroll.Tick(ctx, t.Key, t.Slot)
		})
	})
}

// onceConnected runs something that needs the queue.
func (a *App) onceConnected(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.connected:
			return run(ctx)
		}
	}
}

// answer answers the signers' questions of a topic.
func (a *App) answer(topic string, fn func(context.Context, []byte) ([]byte, error)) func(context.Context) error {
	return func(ctx context.Context) error { return a.queue.Answer(ctx, topic, answerers, fn) }
}

// declare publishes the configuration's policies. Until that has succeeded, those that were published before count.
func (a *App) declare(ctx context.Context) error {
	return a.untilDone(ctx, "declared policies cannot be published, trying again: those of before count", func() error {
		return a.enroll.Declare(ctx, a.declared)
	})
}

// untilDone tries again and again, at most a minute apart, until something has succeeded or ctx ends.
func (a *App) untilDone(ctx context.Context, failed string, do func() error) error {
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		if err := do(); err == nil {
			return nil
		} else if ctx.Err() == nil {
			a.logger.Error().Err(err).Dur("retry_in_ms", delay).Msg(failed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
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
		cfg.Imported = q.Account == config.Imported
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
	a.queue, a.places = client, client.Places()
	close(a.connected)
	return nil
}
