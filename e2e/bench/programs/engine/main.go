// Command engine is the project's own signing engine as a contender: packages signing, registry and sigstore put together as
// in pkg/app/signer, with its logger and its metrics, but with a queue and a Harbor API that cost nothing.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/e2e/bench/contender"
	"github.com/harborseal/harborseal/pkg/app/shell"
	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/registry"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
	"github.com/harborseal/harborseal/pkg/telemetry"
)

// keyName is what the policy calls the key.
const keyName = "bench"

func main() {
	shell.TuneMemory() // as cmd/signer does
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1) //nolint:forbidigo // this is a main package outside cmd/
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	// Each line is written, as in production, but nobody reads it.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer null.Close() //nolint:errcheck // nothing is kept in it
	var e engine
	defer e.close()
	return contender.Run(ctx, args, stdin, stdout, stderr, func(ctx context.Context, s contender.Setup) (contender.Sign, error) {
		logger := telemetry.NewLogger(null, telemetry.LogConfig{Format: telemetry.FormatJSON}, false)
		if err := e.build(ctx, s, logger, telemetry.NewRegistry()); err != nil {
			return nil, err
		}
		return e.sign, nil
	})
}

// engine is for concurrent use.
type engine struct {
	service *signing.Service
	// stop ends the watch, which closes watched.
	stop    context.CancelFunc
	watched chan struct{}
}

// build wires the parts as pkg/app/signer does.
func (e *engine) build(ctx context.Context, s contender.Setup, logger zerolog.Logger, metrics prometheus.Registerer) error {
	terms := policy.Terms{Format: policy.Format(s.Format), Key: keyName}
	key, err := keys.Open(ctx, keys.Source{Name: keyName, File: s.KeyFile, PasswordFile: s.PasswordFile})
	if err != nil {
		return err
	}
	ring, err := sigstore.NewKeyring([]sigstore.NamedKey{{Name: keyName, State: sigstore.Active, Signer: key}}, sigstore.Trust{})
	if err != nil {
		return err
	}
	dialer, err := egress.NewDialer(egress.Config{})
	if err != nil {
		return err
	}
	transport, err := egress.NewTransport(dialer, "")
	if err != nil {
		return err
	}
	images, err := registry.New(registry.Config{
		URL: s.URL, Username: s.Username, SecretFile: s.SecretFile, Transport: transport, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return err
	}
	legacy, bundles := sigstore.NewLegacy(ring), sigstore.NewBundles(ring)
	verifier, err := signing.NewVerifier(signing.VerifierConfig{
		Registry: images, Keys: ring, Legacy: legacy, Bundles: bundles, Harbor: harbor{}, PublicHost: s.Host,
	})
	if err != nil {
		return err
	}
	merger, err := signing.NewMerger(images, legacy)
	if err != nil {
		return err
	}
	cfg := signing.Config{
		Registry: images, Keys: ring, Legacy: legacy, Bundles: bundles, Verifier: verifier, Merger: merger, Harbor: harbor{},
		Queue: &queue{}, Policies: policies{terms}, Logger: logger, Registerer: metrics,
	}
	if s.Watch {
		if cfg.Watch, err = signing.NewWatch(merger, logger, metrics); err != nil {
			return err
		}
		e.watch(ctx, cfg.Watch)
	}
	e.service, err = signing.New(cfg)
	return err
}

func (e *engine) watch(ctx context.Context, w *signing.Watch) {
	ctx, e.stop = context.WithCancel(ctx)
	e.watched = make(chan struct{})
	go func() {
		defer close(e.watched)
		_ = w.Run(ctx) // it ends with ctx, without an error
	}()
}

func (e *engine) close() {
	if e.stop != nil {
		e.stop()
		<-e.watched
	}
}

func (e *engine) sign(ctx context.Context, repository, digest string) error {
	ref, err := artifact.NewRef(repository, digest)
	if err != nil {
		return err
	}
	d := &delivery{request: artifact.Request{
		Ref: ref, Lane: artifact.Live, Origin: artifact.OriginWebhook, CorrelationID: digest, RequestedAt: time.Now(), ReceivedSeq: 1,
	}}
	e.service.Handle(ctx, d)
	return d.outcome()
}
