package receiver

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/failpoint"
)

// startGrace is how long the queue may take to come up.
const startGrace = 20 * time.Second

// watchDependencies makes what probes everything that this receiver depends on.
func (a *App) watchDependencies() error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for the host's name: %w", err)
	}
	a.instance = fmt.Sprintf("%s:%d", host, os.Getpid())
	// Only its dialer matters to the queue.
	dialling, err := egress.NewTransport(a.dialer, "")
	if err != nil {
		return err
	}
	q := a.cfg.Queue
	probes := []dependency.Probe{
		{
			Name: "queue", URLs: q.URLs, Transport: dialling, TLS: dependency.Files(q.TLS.CAFile, q.TLS.CertFile, q.TLS.KeyFile),
			Call: dependency.Queue(a.probeQueue),
		},
		{Name: "database", Call: dependency.Database(func(ctx context.Context) error {
			_, err := a.store.Position(ctx)
			return err
		})},
	}
	if a.harbor != nil {
		probes = append(probes, dependency.Probe{
			Name: "harbor_api", URLs: []string{a.cfg.Harbor.URL}, Transport: a.transport, Call: dependency.HarborAPI(a.harbor.System),
			Credentials: []dependency.Credential{dependency.HarborRobot(a.harbor.RobotExpiry)},
		})
	}
	a.monitor, err = dependency.New(dependency.Config{
		Program: "receiver", Instance: a.instance, Probes: probes, Interval: a.cfg.Probe.Interval,
		Record: func(ctx context.Context, e artifact.Event) error {
			_, err := connectedQueue{a}.Record(ctx, e)
			return err
		},
		Counts: a.counts, Now: failpoint.Now, Logger: a.logger, Registerer: a.registry,
	})
	return err
}

// probeQueue asks the queue, once it could have come up: a start is no outage.
func (a *App) probeQueue(ctx context.Context) error {
	select {
	case <-a.connected:
	default:
		if time.Since(a.made) < startGrace {
			return dependency.ErrNothingToAsk
		}
	}
	return a.checkQueue(ctx)
}

// counts says how much waits, for the records of outages.
func (a *App) counts(ctx context.Context) (waiting, deferred uint64) {
	c, err := connectedQueue{a}.client()
	if err != nil {
		return 0, 0
	}
	usage, err := c.Usage(ctx)
	if err != nil {
		return 0, 0
	}
	return usage.Outstanding()
}

// trust asks any signer what verifiers are to trust.
func (a *App) trust(ctx context.Context) ([]byte, error) {
	return connectedQueue{a}.Ask(ctx, shell.TrustTopic, nil)
}
