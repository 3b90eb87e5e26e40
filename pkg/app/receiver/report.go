package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/ledger"
	"github.com/harborseal/harborseal/pkg/ledger/sqldb"
	"github.com/harborseal/harborseal/pkg/report"
	"github.com/harborseal/harborseal/pkg/status"
	"github.com/harborseal/harborseal/pkg/telemetry"
	"github.com/harborseal/harborseal/pkg/webhook"
)

// openStore opens the database that the configuration names.
func (a *App) openStore(ctx context.Context) error {
	cfg := sqldb.Config{Logger: a.logger}
	switch l := a.cfg.Ledger; l.Database {
	case config.DatabasePostgres:
		d := l.Postgres
		p := &sqldb.Postgres{
			Address: d.Address, Name: d.Name, Username: d.Username, PasswordFile: d.PasswordFile, Schema: d.Schema,
			MaxConnections: d.MaxConnections,
		}
		if !d.AllowPlaintext {
			p.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			if files := dependency.Files(d.TLS.CAFile, d.TLS.CertFile, d.TLS.KeyFile); files != nil {
				var err error
				if p.TLS, err = files(); err != nil {
					return fmt.Errorf("ledger.postgres.tls: %w", err)
				}
			}
		}
		cfg.Postgres = p
	default:
		cfg.Path = l.SQLite.Path
	}
	var err error
	a.store, err = sqldb.Open(ctx, cfg)
	return err
}

// buildProjection makes what keeps the report up to date.
func (a *App) buildProjection() error {
	var err error
	a.projector, err = ledger.NewProjector(ledger.ProjectorConfig{
		Source: connectedQueue{a}, View: a.store, Observer: a.status, Logger: a.logger, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.rebuilder, err = ledger.NewRebuilder(ledger.RebuilderConfig{
		Source: connectedQueue{a}, Views: a.store, Newest: connectedQueue{a}.newest, Logger: a.logger,
	})
	return err
}

// inventory gives the keys that the ledger knows.
func (a *App) inventory(ctx context.Context) ([]report.KeyEntry, error) {
	known, err := a.store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	keys := make([]report.KeyEntry, len(known))
	for i, k := range known {
		keys[i] = report.KeyEntry(k)
	}
	return keys, nil
}

// buildReport makes what answers about the report and about single images, and who is told that it was read.
func (a *App) buildReport(door *webhook.Door) error {
	var err error
	if a.reads, err = report.NewRecorder(report.RecorderConfig{Book: connectedQueue{a}, Registerer: a.registry, Logger: a.logger}); err != nil {
		return err
	}
	cfg := report.Config{
		View: opened{a}, Keys: a.inventory, Harbor: a.cfg.Harbor.Name, Registry: a.cfg.Harbor.PublicHost, Program: telemetry.Version(),
		Registerer: a.registry,
	}
	if a.ledgerKey != nil {
		cfg.Key, cfg.Checkpoint, cfg.Prover = a.ledgerKey, a.checkpoint, rowProver{a}
	}
	if a.exports, err = report.New(cfg); err != nil {
		return err
	}
	asked := status.Config{
		View: opened{a}, Policies: a.policies, Door: door, Registry: status.Asking{Ask: connectedQueue{a}.Ask}, Place: a.place,
		Host: a.cfg.Harbor.PublicHost, MaxWaiting: a.cfg.API.MaxWaiting, Logger: a.logger, Registerer: a.registry,
	}
	if a.harbor != nil {
		asked.Registry = a.harbor
	}
	a.status, err = status.New(asked)
	return err
}

// opened is the store for parts that are made where the configuration is only checked, too: there is none then.
type opened struct{ app *App }

// One implements the view of package status, and the unit of package api.
func (o opened) One(ctx context.Context, ref artifact.Ref) (ledger.Row, bool, error) {
	return o.app.store.One(ctx, ref)
}

// Known implements the view of package status.
func (o opened) Known(ctx context.Context, refs []artifact.Ref) ([]artifact.Known, error) {
	return o.app.store.Known(ctx, refs)
}

// Each implements the view of package report, as do Coverage and Names.
func (o opened) Each(ctx context.Context, q ledger.Query, fn func(ledger.Row) error) (ledger.Position, error) {
	return o.app.store.Each(ctx, q, fn)
}

// Coverage implements the view of package report.
func (o opened) Coverage(ctx context.Context, projects []string) (map[string]ledger.Coverage, error) {
	return o.app.store.Coverage(ctx, projects)
}

// Names implements the view of package report.
func (o opened) Names(ctx context.Context) ([]string, error) { return o.app.store.Names(ctx) }

// place tells where a request waits.
func (a *App) place(ctx context.Context, ref artifact.Ref) (artifact.Lane, status.Place, error) {
	if _, err := (connectedQueue{a}).client(); err != nil {
		return "", status.Place{}, err
	}
	p, err := a.places.Place(ctx, ref)
	return p.Lane, status.Place{AheadEstimate: p.Ahead, Since: p.Since, HandedOut: p.HandedOut}, err
}

// History implements the history of package api.
func (q connectedQueue) History(ctx context.Context, ref artifact.Ref, limit int) (newest []artifact.Entry, more bool, err error) {
	c, err := q.client()
	if err != nil {
		return nil, false, err
	}
	return c.History(ctx, ref, limit)
}

// NewestOf implements the ledger of package notary.
func (q connectedQueue) NewestOf(ctx context.Context, kind artifact.Kind) (entry artifact.Entry, found bool, err error) {
	c, err := q.client()
	if err != nil {
		return artifact.Entry{}, false, err
	}
	return c.NewestOf(ctx, kind)
}

// newest gives the sequence of this harbor's newest event, 0 if it has none.
func (q connectedQueue) newest(ctx context.Context) (uint64, error) {
	entry, _, err := q.NewestOf(ctx, "")
	return entry.Seq, err
}

// checkReport says whether the report is up to date. Pushes are taken and signed whether it is or not.
func (a *App) checkReport(context.Context) error {
	select {
	case <-a.connected:
	default:
		return errors.New("the queue is not connected yet, from which the report is kept up to date")
	}
	if s := a.projector.Status(); s.State == ledger.ProjectionStopped {
		return fmt.Errorf("the report stands at event %d since %s and is brought forward once it can be: %s",
			s.Position, s.Since.Format("2006-01-02T15:04:05Z"), s.Error)
	}
	return nil
}

// addReport adds what keeps the report and answers from it.
func (a *App) addReport(add func(name string, run func(context.Context) error)) {
	add("ledger projection", a.projector.Run)
	add("requests that are overdue", a.watchOverdue)
	add("watching the ledger's retention", func(ctx context.Context) error { return a.queue.WatchRetention(ctx) })
	add("recording readers", a.reads.Run)
	add("rebuilding the report", a.rebuilder.Run)
	add("answers about rebuilds", a.answer(RebuildTopic, a.answerRebuild))
	if a.ledgerKey != nil {
		add("checkpoints of the ledger", a.notary.Run)
		add("recording the ledger key", a.declareLedgerKey)
	}
}
