package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// engine is what signs and verifies, from the keys to the decision.
type engine struct {
	keys       []*keys.Key // those that sign
	transports []*http.Transport
	ring       *sigstore.Keyring
	legacy     *sigstore.Legacy
	bundles    *sigstore.Bundles
	verifier   *signing.Verifier
	merger     *signing.Merger
	watch      *signing.Watch
	review     *signing.Review
}

// build opens the keys. What it has opened is closed by close, also after an error.
func (e *engine) build(ctx context.Context, a *App) error {
	var err error
	if err := e.openKeys(ctx, a.cfg.Keys, a.dialer); err != nil {
		return err
	}
	e.legacy, e.bundles = sigstore.NewLegacy(e.ring), sigstore.NewBundles(e.ring)
	if e.verifier, err = signing.NewVerifier(signing.VerifierConfig{
		Registry: a.images, Keys: e.ring, Legacy: e.legacy, Bundles: e.bundles, Harbor: a.harbor, PublicHost: a.cfg.Harbor.PublicHost,
	}); err != nil {
		return err
	}
	if e.merger, err = signing.NewMerger(a.images, e.legacy); err != nil {
		return err
	}
	if e.watch, err = signing.NewWatch(e.merger, a.logger, a.registry); err != nil {
		return err
	}
	e.review, err = signing.NewReview(e.verifier, e.merger)
	return err
}

// openKey opens a key that signs. What it dials, it dials as everything here does.
func (e *engine) openKey(ctx context.Context, k config.Key, dialer *egress.Dialer) (*keys.Key, error) {
	s := source(k)
	if k.KMS != "" {
		transport, err := egress.NewTransport(dialer, k.CAFile)
		if err != nil {
			return nil, err
		}
		e.transports = append(e.transports, transport)
		s.Transport = transport
	}
	key, err := keys.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	e.keys = append(e.keys, key)
	return key, nil
}

// unproven gives the keys whose KMS or HSM is away, with the reasons; nil if there are none.
func (e *engine) unproven() error {
	var errs []error
	for _, k := range e.keys {
		errs = append(errs, k.Unproven())
	}
	return errors.Join(errs...)
}

// openKeys opens all keys and reports all that is wrong with them at once.
func (e *engine) openKeys(ctx context.Context, configured []config.Key, dialer *egress.Dialer) error {
	var errs []error
	var named []sigstore.NamedKey
	for _, k := range configured {
		n := sigstore.NamedKey{Name: k.Name, State: sigstore.KeyState(k.State)}
		var err error
		if k.State == config.Active {
			if n.Signer, err = e.openKey(ctx, k, dialer); err == nil {
				n.Public = n.Signer.Public()
			}
		} else {
			n.Public, err = readPublicKey(k.PublicKeyFile)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key %q: %w", k.Name, err))
			continue
		}
		named = append(named, n)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var err error
	e.ring, err = sigstore.NewKeyring(named)
	return err
}

func readPublicKey(path string) (keys.PublicKey, error) {
	pem, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return keys.PublicKey{}, err
	}
	public, err := keys.ParsePublicKey(pem)
	if err != nil {
		return keys.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return public, nil
}

func source(k config.Key) keys.Source {
	return keys.Source{
		Name: k.Name, File: k.File, PasswordFile: k.PasswordFile,
		KMS: k.KMS,
		Vault: keys.VaultOptions{
			Address: k.Vault.Address, TokenFile: k.Vault.TokenFile, Mount: k.Vault.TransitPath,
			Namespace: k.Vault.Namespace, KeyVersion: k.Vault.KeyVersion,
		},
		AWS: keys.AWSOptions{Region: k.AWS.Region, CredentialsFile: k.AWS.CredentialsFile, Profile: k.AWS.Profile},
		PKCS11: keys.PKCS11Options{
			Module: k.PKCS11.Module, Token: k.PKCS11.Token, Label: k.PKCS11.Key, ID: k.PKCS11.ID, PINFile: k.PKCS11.PINFile,
		},
		PublicKeyFile: k.PublicKeyFile, MaxCalls: k.MaxCalls, Timeout: k.Timeout,
	}
}

func (e *engine) keyIDs() []string {
	var ids []string
	for _, k := range e.keys {
		ids = append(ids, k.ID())
	}
	return ids
}

// close lets go of sessions and connections.
func (e *engine) close() error {
	var errs []error
	for _, k := range e.keys {
		errs = append(errs, k.Close())
	}
	for _, t := range e.transports {
		t.CloseIdleConnections()
	}
	return errors.Join(errs...)
}
