package signer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/policy"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// Trust gives what verifiers of this signer's signatures need. It opens the keys as the start does.
func Trust(ctx context.Context, cfg *config.Signer) (sigstore.TrustDocument, error) {
	a := &App{cfg: cfg, logger: zerolog.Nop(), registry: prometheus.NewRegistry(), dialer: dialerOf(cfg)}
	document := sigstore.TrustDocument{}
	err := a.build(ctx)
	if err == nil {
		document, err = a.trustDocument()
	}
	return document, errors.Join(err, a.engine.close())
}

// answerTrust answers receivers.
func (a *App) answerTrust(context.Context, []byte) ([]byte, error) {
	document, err := a.trustDocument()
	if err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

func (a *App) trustDocument() (sigstore.TrustDocument, error) {
	from := sigstore.TrustSources{PublicHost: a.cfg.Harbor.PublicHost}
	// What Harbor takes is not asked: its policies may name either format.
	formats, err := a.cfg.Sign.Format.Formats(a.cfg.Sign.Format != policy.FormatLegacy)
	if err != nil {
		return sigstore.TrustDocument{}, err
	}
	from.Formats = append([]artifact.Format{}, formats...)
	var errs []error
	read := func(path string) string {
		pem, err := os.ReadFile(path) //nolint:gosec // the operator names the file
		errs = append(errs, err)
		return string(pem)
	}
	for i, k := range a.cfg.Keys {
		if f := k.Fulcio; k.Keyless() {
			from.Identities = append(from.Identities, sigstore.TrustIdentity{
				Name: k.Name, State: sigstore.KeyState(k.State), Issuer: f.Issuer, Subject: f.Subject, URL: f.URL, Roots: read(f.RootsFile),
			})
			continue
		}
		from.Keys = append(from.Keys, sigstore.TrustKey{
			Name: k.Name, State: sigstore.KeyState(k.State), PublicKey: string(a.engine.keys[i].public.PEM()),
		})
	}
	for _, l := range a.cfg.Logs {
		from.Logs = append(from.Logs, sigstore.TrustLog{
			Name: l.Name, Type: l.Type, URL: l.URL, PublicKey: read(l.PublicKeyFile), Origin: l.Origin,
		})
	}
	for _, t := range a.cfg.TimestampAuthorities {
		from.Authorities = append(from.Authorities, sigstore.TrustAuthority{Name: t.Name, URL: t.URL, Chain: read(t.CertificateChainFile)})
	}
	if err := errors.Join(errs...); err != nil {
		return sigstore.TrustDocument{}, fmt.Errorf("reading what signatures are proven with: %w", err)
	}
	return sigstore.NewTrustDocument(from)
}
