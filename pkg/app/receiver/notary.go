package receiver

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/keylog"
	"github.com/harborseal/harborseal/pkg/notary"
	"github.com/harborseal/harborseal/pkg/pubkey"
	"github.com/harborseal/harborseal/pkg/report"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

// webhookTime bounds one attempt to send a checkpoint.
const webhookTime = 20 * time.Second

// loadLedgerKey reads the ledger key, where there is one. It must be none of those that verify images.
func (a *App) loadLedgerKey(keys []api.Key) error {
	cp := a.cfg.Ledger.Checkpoint
	if !cp.Enabled() {
		return nil
	}
	var images []crypto.PublicKey
	for _, k := range keys {
		key, err := pubkey.Parse([]byte(k.PEM))
		if err != nil {
			return fmt.Errorf("key %q: %w", k.Name, err)
		}
		images = append(images, key.Public)
	}
	var err error
	if a.ledgerKey, err = notary.LoadKey(cp.KeyFile, notary.KeyName(a.cfg.Harbor.PublicHost, a.cfg.Harbor.Name), images...); err != nil {
		return fmt.Errorf("ledger.checkpoint.key_file: %w", err)
	}
	a.ledgerKeys, err = notary.NewKeys(append([]string{a.ledgerKey.VerifierKey()}, cp.VerifierKeys...)...)
	if err != nil {
		return fmt.Errorf("ledger.checkpoint.verifier_keys: %w", err)
	}
	return nil
}

// buildNotary makes what signs the checkpoints, and proves with them. It needs the store.
func (a *App) buildNotary() error {
	if a.ledgerKey == nil {
		return nil
	}
	cp := a.cfg.Ledger.Checkpoint
	cfg := notary.Config{
		Ledger: connectedQueue{a}, Key: a.ledgerKey, VerifierKeys: cp.VerifierKeys, Store: a.store,
		Interval: cp.Interval, VerifyInterval: cp.VerifyInterval, Now: failpoint.Now, Logger: a.logger, Registerer: a.registry,
	}
	if cp.File != "" {
		cfg.File, cfg.CheckpointsFile = notary.NewFile(cp.File), cp.File
	}
	var err error
	if cp.Webhook.URL != "" {
		if cfg.Webhook, err = a.checkpointWebhook(cp.Webhook); err != nil {
			return err
		}
	}
	if a.notary, err = notary.New(cfg); err != nil {
		return err
	}
	a.prover, err = notary.NewProver(a.ledgerKeys, a.store)
	return err
}

func (a *App) checkpointWebhook(w config.CheckpointWebhook) (*notary.Webhook, error) {
	transport, err := egress.NewTransport(a.dialer, w.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ledger.checkpoint.webhook: %w", err)
	}
	secret := func() ([]byte, error) {
		secret, err := secretfile.ReadLine(w.SecretFile)
		return []byte(secret), err
	}
	return notary.NewWebhook(w.URL, secret, &http.Client{Transport: transport, Timeout: webhookTime})
}

// declareLedgerKey records the ledger keys, once each.
func (a *App) declareLedgerKey(ctx context.Context) error {
	keys := []keylog.Key{{ID: a.ledgerKey.VerifierKey(), Name: a.ledgerKey.Name(), State: keylog.Active}}
	for _, k := range a.cfg.Ledger.Checkpoint.VerifierKeys {
		keys = append(keys, keylog.Key{ID: k, Name: a.ledgerKey.Name(), State: keylog.Retired})
	}
	return a.untilDone(ctx, "the ledger key cannot be recorded, trying again", func() error {
		return keylog.Declare(ctx, connectedQueue{a}, "receiver", keylog.UseLedger, keys)
	})
}

// checkpoint gives the newest one that was verified.
func (a *App) checkpoint(context.Context) (string, error) { return a.notary.Summary().Checkpoint, nil }

// prove is for package api.
func (a *App) prove(ctx context.Context, seq uint64) (*api.LedgerProof, error) {
	p, err := a.prover.Proof(ctx, seq)
	switch {
	case errors.Is(err, notary.ErrNoProof):
		return nil, nil //nolint:nilnil // no checkpoint has it yet
	case err != nil:
		return nil, err
	}
	return &api.LedgerProof{
		Epoch: p.Epoch, Index: p.Index, Size: p.Size, LeafHash: p.LeafHash, Hashes: p.Hashes, Checkpoint: p.Checkpoint,
	}, nil
}

// rowProver proves rows, for exports.
type rowProver struct{ app *App }

// ProveRow implements the prover of package report.
func (r rowProver) ProveRow(ctx context.Context, ref artifact.Ref, seq uint64) (*report.Proof, error) {
	p, err := r.app.prover.Proof(ctx, seq)
	switch {
	case errors.Is(err, notary.ErrNoProof):
		return nil, nil //nolint:nilnil // no checkpoint has it yet
	case err != nil:
		return nil, err
	}
	client, err := connectedQueue(r).client()
	if err != nil {
		return nil, err
	}
	entry, found, err := client.EventAt(ctx, seq)
	if err != nil || !found || entry.Event.Ref != ref {
		return nil, err // expired: it can be proven no more
	}
	return &report.Proof{
		Subject: entry.Subject, Event: entry.Data, Index: p.Index, Size: p.Size, Hashes: p.Hashes, Checkpoint: p.Checkpoint,
	}, nil
}
