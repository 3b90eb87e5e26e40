package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/backup"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/enroll"
	"github.com/harborseal/harborseal/pkg/queue"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

// stopTime bounds the stop of the server that a restore runs.
const stopTime = 5 * time.Minute

// BackupOptions are those of the commands backup and restore.
type BackupOptions struct {
	Dir string
	// As is a user of the account that owns the streams, where the configuration names none.
	As    ToolUser
	Actor enroll.Actor
	// Progress is told what is being done; nil is allowed.
	Progress func(stream, doing string, bytes int64)
	Logger   zerolog.Logger
}

func (o BackupOptions) options(cfg *config.Receiver) backup.Options {
	return backup.Options{Dir: o.Dir, Harbor: cfg.Harbor.Name, Version: telemetry.Version(), Progress: o.Progress}
}

// snapshots is the queue as package backup knows it.
type snapshots struct{ client *queue.Client }

// Streams implements backup.Source.
func (snapshots) Streams() []string { return queue.SnapshotStreams() }

// Snapshot implements backup.Source.
func (s snapshots) Snapshot(ctx context.Context, stream string, w io.Writer, progress func(int64)) (json.RawMessage, error) {
	return s.client.Snapshot(ctx, stream, w, progress)
}

// Check implements backup.Checker; it needs no client.
func (snapshots) Check(stream string, description json.RawMessage, r io.Reader) (backup.Contents, error) {
	contents, err := queue.CheckSnapshot(stream, description, r)
	return backup.Contents(contents), err
}

// Present implements backup.Target.
func (s snapshots) Present(ctx context.Context) ([]string, error) { return s.client.Present(ctx) }

// Restore implements backup.Target.
func (s snapshots) Restore(ctx context.Context, stream string, description json.RawMessage, r io.Reader, progress func(int64)) error {
	return s.client.RestoreStream(ctx, stream, description, r, progress)
}

// Remove implements backup.Target.
func (s snapshots) Remove(ctx context.Context, stream string) error {
	return s.client.RemoveStream(ctx, stream)
}

// errNeedsOwner says what a backup lacks in an account that imports.
var errNeedsOwner = errors.New("the receiver's own account (queue.account: imported) may not do this: name a user of the account that owns the streams with --nats-user and --nats-password-file")

// toolOfOwner is [Tool] for what takes the account that owns the streams.
func toolOfOwner(ctx context.Context, cfg *config.Receiver, as ToolUser, logger zerolog.Logger) (*queue.Client, func(), error) {
	if !cfg.Queue.Embedded.Enabled && cfg.Queue.Account == config.Imported && as.Name == "" {
		return nil, nil, errNeedsOwner
	}
	return Tool(ctx, cfg, as, logger)
}

// Backup copies the queue into a folder while everything is running, and records that.
//
// A crash between the end of the backup and the event leaves a backup that the ledger does not know.
func Backup(ctx context.Context, cfg *config.Receiver, o BackupOptions) (backup.Manifest, error) {
	client, closing, err := toolOfOwner(ctx, cfg, o.As, o.Logger)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer closing()
	m, err := backup.Make(ctx, snapshots{client}, o.options(cfg))
	if err != nil {
		return backup.Manifest{}, err
	}
	detail := fmt.Sprintf("the ledger up to event %d, begun %s; SHA-256 of the manifest: %s",
		m.Of(queue.LedgerStream).LastSeq, m.Created.Format(time.RFC3339), m.SHA256)
	if err := record(ctx, client, artifact.BackupMade, o.Actor, detail, m.SHA256); err != nil {
		return m, fmt.Errorf("the backup is whole, but could not be recorded: %w", err)
	}
	return m, nil
}

// record records what an operator did.
func record(ctx context.Context, journal enroll.Journal, kind artifact.Kind, actor enroll.Actor, detail string, parts ...string) error {
	id := artifact.EventID(kind, artifact.Ref{}, parts...)
	_, err := journal.Record(ctx, artifact.Event{
		ID: id, Kind: kind, Time: time.Now().UTC(), Actor: actor.Name, Origin: artifact.OriginAPI, CorrelationID: id, Detail: detail,
	})
	return err
}

// CheckBackup reads a backup to its end, and changes nothing.
func CheckBackup(ctx context.Context, cfg *config.Receiver, o BackupOptions) (backup.Manifest, error) {
	return backup.Check(ctx, snapshots{}, queue.SnapshotStreams(), o.options(cfg))
}

// Restored says what a restore has done beside filling the queue.
type Restored struct {
	Manifest backup.Manifest `json:"-"`
	// Swept are the projects of which a full sweep was asked for.
	Swept []string `json:"swept"`
	// Globs says that the policies mean further projects, which could not be asked for: their sweeps come by themselves.
	Globs bool `json:"globs"`
}

// Restore checks a backup, fills an empty queue from it, suspends signing everywhere, records the restore, and asks for full
// sweeps of all projects. Receivers and signers must not run. The embedded queue takes the place of the empty one in the end, in
// one step; on servers of their own, what was restored is removed after an error.
//
// Signing is suspended before a program can see the policies with the embedded queue, and right after them otherwise.
func Restore(ctx context.Context, cfg *config.Receiver, o BackupOptions) (Restored, error) {
	m, err := CheckBackup(ctx, cfg, o)
	if err != nil {
		return Restored{}, err
	}
	if cfg.Queue.Embedded.Enabled {
		return restoreEmbedded(ctx, cfg, o, m)
	}
	client, closing, err := toolOfOwner(ctx, cfg, o.As, o.Logger)
	if err != nil {
		return Restored{}, err
	}
	defer closing()
	return restoreInto(ctx, cfg, client, o, m)
}

func restoreEmbedded(ctx context.Context, cfg *config.Receiver, o BackupOptions, m backup.Manifest) (done Restored, err error) {
	store, err := queue.StartRestoring(ctx, queue.ServerConfig{
		StoreDir: cfg.Queue.Embedded.StoreDir, MaxStore: int64(cfg.Queue.Embedded.MaxStore), Logger: o.Logger,
	})
	if err != nil {
		return Restored{}, err
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	defer func() { err = errors.Join(err, store.Abort(stopping)) }()
	client, err := queue.Connect(ctx, queue.Config{
		Harbor: cfg.Harbor.Name, Server: store.Server, Name: "receiver-restore", AckWait: cfg.Queue.AckWait, Logger: o.Logger,
		Limits: queue.Limits{LedgerMaxBytes: int64(cfg.Ledger.MaxBytes), LedgerMaxAge: cfg.Ledger.MaxAge},
	})
	if err != nil {
		return Restored{}, err
	}
	done, err = restoreInto(ctx, cfg, client, o, m)
	client.Close()
	if err != nil {
		return Restored{}, err
	}
	return done, store.Finish(stopping)
}

// restoreInto does all steps on a queue that nothing else uses.
func restoreInto(ctx context.Context, cfg *config.Receiver, client *queue.Client, o BackupOptions, m backup.Manifest) (Restored, error) {
	if err := backup.Restore(ctx, snapshots{client}, m, o.options(cfg)); err != nil {
		return Restored{}, err
	}
	done := Restored{Manifest: m}
	if err := suspend(ctx, client, o.Actor, "restored from the backup of "+m.Created.Format(time.RFC3339)); err != nil {
		return Restored{}, incomplete(err)
	}
	// The ticks and the consumers are no part of a backup.
	if err := client.Setup(ctx); err != nil {
		return Restored{}, incomplete(err)
	}
	detail := fmt.Sprintf("from the backup that was begun %s: the ledger up to event %d; SHA-256 of the manifest: %s",
		m.Created.Format(time.RFC3339), m.Of(queue.LedgerStream).LastSeq, m.SHA256)
	if err := record(ctx, client, artifact.Restored, o.Actor, detail, m.SHA256, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
		return Restored{}, incomplete(err)
	}
	swept, err := sweepAll(ctx, cfg, client)
	if err != nil {
		return Restored{}, incomplete(err)
	}
	done.Swept, done.Globs = swept.Projects, swept.Globs
	return done, nil
}

func incomplete(err error) error {
	return fmt.Errorf("the streams are restored, but not all that comes behind them is done: empty the queue and restore again: %w", err)
}
