package signer

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/policy/book"
	"github.com/harborseal/harborseal/pkg/queue"
)

const (
	// connectTime bounds a command's wait for the queue: a service waits for ever, somebody at a terminal does not.
	connectTime = 10 * time.Second
	// loadTime bounds the reading of all policies.
	loadTime = 10 * time.Second
)

func queueConfig(cfg *config.Signer, dialer *egress.Dialer, name string) queue.Config {
	q := cfg.Queue
	return queue.Config{
		Harbor: cfg.Harbor.Name, URLs: q.URLs, Username: q.Username, PasswordFile: q.PasswordFile, CredentialsFile: q.CredentialsFile,
		TLS:  queue.ClientTLS{CAFile: q.TLS.CAFile, CertFile: q.TLS.CertFile, KeyFile: q.TLS.KeyFile},
		Name: name, Replicas: q.Replicas, AckWait: q.AckWait, DialContext: dialer.DialContext, Logger: zerolog.Nop(),
	}
}

// dialQueue connects a command to the queue, and creates nothing there. The caller closes the client.
func dialQueue(ctx context.Context, cfg *config.Signer, dialer *egress.Dialer, name string) (*queue.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	return queue.Connect(ctx, queueConfig(cfg, dialer, name))
}

// readPolicies gives every entry of the bucket of policies, as it is now, to apply.
func readPolicies(ctx context.Context, client *queue.Client, apply func(book.Entry)) error {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	loaded := false
	err := client.WatchPolicies(ctx, apply, func() {
		loaded = true
		cancel()
	}, nil)
	if loaded {
		return nil
	}
	return fmt.Errorf("reading the policies: %w", err)
}

// dialerOf gives a dialer for what runs beside a signer: it resolves names as that one does, and leaves its record alone.
func dialerOf(cfg *config.Signer) *egress.Dialer {
	d, err := egress.NewDialer(egress.Config{Resolver: cfg.Egress.Resolver})
	if err != nil {
		return &egress.Dialer{} // the configuration was validated: it says host:port
	}
	return d
}
