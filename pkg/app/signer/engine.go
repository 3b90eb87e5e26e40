package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/dependency"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/failpoint"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// engine is what signs and verifies, from the keys to the decision.
type engine struct {
	keys     []openedKey // in the order of the configuration
	proofs   proofs
	ring     *sigstore.Keyring
	legacy   *sigstore.Legacy
	bundles  *sigstore.Bundles
	verifier *signing.Verifier
	merger   *signing.Merger
	watch    *signing.Watch
	review   *signing.Review
}

// build opens the keys. What it has opened is closed by close, also after an error.
func (e *engine) build(ctx context.Context, a *App) error {
	var err error
	if err := errors.Join(e.proofs.build(a), e.openKeys(ctx, a)); err != nil {
		return err
	}
	if e.ring, err = sigstore.NewKeyring(e.named(a.cfg.Keys), e.proofs.trust()); err != nil {
		return err
	}
	e.legacy, e.bundles = sigstore.NewLegacy(e.ring), sigstore.NewBundles(e.ring)
	if e.verifier, err = signing.NewVerifier(signing.VerifierConfig{
		Registry: a.images, Keys: e.ring, Legacy: e.legacy, Bundles: e.bundles, Harbor: a.harbor, PublicHost: a.cfg.Harbor.PublicHost,
		Logs: &e.proofs, Timestamps: e.proofs.authority != nil,
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

// unproven gives the keys whose KMS or HSM is away, with the reasons; nil if there are none.
func (e *engine) unproven() error {
	var errs []error
	for _, k := range e.keys {
		errs = append(errs, k.unproven())
	}
	return errors.Join(errs...)
}

// openKeys opens all keys and reports all that is wrong with them at once.
func (e *engine) openKeys(ctx context.Context, a *App) error {
	configured := a.cfg.Keys
	e.keys = make([]openedKey, len(configured))
	var hsm, local []int
	var wg sync.WaitGroup
	for i, k := range configured {
		switch {
		case k.KMS != "":
			wg.Go(func() { e.keys[i] = openKey(ctx, k, a) })
		case k.PKCS11 != config.PKCS11{}:
			hsm = append(hsm, i)
		default:
			local = append(local, i)
		}
	}
	// Every KMS is waited for at the same time. HSMs take turns, because a PKCS #11 module must not be initialized twice at a
	// time; so do files, because each decryption takes tens of MiB.
	for _, turns := range [][]int{hsm, local} {
		wg.Go(func() {
			for _, i := range turns {
				e.keys[i] = openKey(ctx, configured[i], a)
			}
		})
	}
	wg.Wait()
	var errs []error
	for _, k := range e.keys {
		errs = append(errs, k.err)
	}
	return errors.Join(errs...)
}

// named gives the keys with their names and states.
func (e *engine) named(configured []config.Key) []sigstore.NamedKey {
	named := make([]sigstore.NamedKey, len(e.keys))
	for i, k := range e.keys {
		named[i] = k.named(configured[i])
	}
	return named
}

// openedKey is a key of the configuration, or the error that names it. The zero value is one that was not opened.
type openedKey struct {
	name      string
	public    keys.PublicKey
	signer    *keys.Key           // nil for a key that does not sign
	identity  *fulcio.Identity    // nil for a key, and for one that does not sign
	retired   *fulcio.Retired     // nil for a key, and for one that signs
	breaker   *dependency.Breaker // nil where nothing is asked to sign
	transport *http.Transport     // nil where nothing is dialled
	err       error
}

// openKey opens a key that signs, and reads one that does not. What it dials, it dials as everything here does. The caller
// closes the result, also one with an error.
func openKey(ctx context.Context, k config.Key, a *App) (o openedKey) {
	o.name = k.Name
	switch {
	case k.Keyless():
		o.err = o.openIdentity(k, a)
	case k.State != config.Active:
		if o.public, o.err = readPublicKey(k.PublicKeyFile); o.err != nil {
			o.err = fmt.Errorf("key %q: %w", k.Name, o.err)
		}
	default:
		o.err = o.openSigner(ctx, k, a)
	}
	return o
}

func (o *openedKey) openSigner(ctx context.Context, k config.Key, a *App) error {
	s := source(k)
	var err error
	if k.KMS != "" {
		if o.transport, err = egress.NewTransport(a.dialer, k.CAFile); err != nil {
			return fmt.Errorf("key %q: %w", k.Name, err)
		}
		if o.breaker, err = a.breaker("kms/"+k.Name, dependency.ServerErrors); err != nil {
			return err
		}
		s.Transport = o.breaker.RoundTripper(o.transport)
	} else if k.PKCS11 != (config.PKCS11{}) {
		if o.breaker, err = a.probedBreaker("kms/" + k.Name); err != nil {
			return err
		}
	}
	if o.signer, err = keys.Open(ctx, s); err != nil {
		return err
	}
	o.public = o.signer.Public()
	return nil
}

// openIdentity asks Fulcio nothing: its first certificate is asked for by the first signature, or by a probe.
func (o *openedKey) openIdentity(k config.Key, a *App) error {
	f := k.Fulcio
	roots, err := os.ReadFile(f.RootsFile)
	if err != nil {
		return fmt.Errorf("key %q: %w", k.Name, err)
	}
	if k.State != config.Active {
		o.retired, err = fulcio.NewRetired(k.Name, roots, f.Issuer, f.Subject)
		return err
	}
	c := fulcio.Config{
		Name: k.Name, URL: f.URL, Roots: roots, TokenFile: f.TokenFile, Issuer: f.Issuer, Subject: f.Subject, Timeout: k.Timeout,
		Now: failpoint.Now, Registerer: a.registry,
	}
	if o.transport, err = egress.NewTransport(a.dialer, f.CAFile); err != nil {
		return fmt.Errorf("key %q: %w", k.Name, err)
	}
	if o.breaker, err = a.breaker("fulcio/"+k.Name, dependency.ServerErrors); err != nil {
		return err
	}
	c.Transport = o.breaker.RoundTripper(o.transport)
	o.identity, err = fulcio.New(c)
	return err
}

// named gives the key with its name and state.
func (o openedKey) named(k config.Key) sigstore.NamedKey {
	n := sigstore.NamedKey{Name: k.Name, State: sigstore.KeyState(k.State), Public: o.public, Signer: o.signer}
	switch {
	case o.identity != nil:
		n.Identity = o.identity
	case o.retired != nil:
		n.Identity = o.retired
	}
	return n
}

func (o openedKey) unproven() error {
	if o.signer == nil {
		return nil
	}
	return o.signer.Unproven()
}

// close lets go of sessions and connections.
func (o openedKey) close() error {
	var err error
	if o.signer != nil {
		err = o.signer.Close()
	}
	if o.identity != nil {
		o.identity.Close()
	}
	if o.transport != nil {
		o.transport.CloseIdleConnections()
	}
	return err
}

// PublicKey gives the public key of the key that the configuration calls name. It opens that key alone, as the start does:
// one in a KMS or HSM has to sign, also where the configuration has its public key.
func PublicKey(ctx context.Context, cfg *config.Signer, name string) (keys.PublicKey, error) {
	i := slices.IndexFunc(cfg.Keys, func(k config.Key) bool { return k.Name == name })
	if i < 0 {
		return keys.PublicKey{}, fmt.Errorf("the configuration has no key with the name %q", name)
	}
	o := openKey(ctx, cfg.Keys[i], &App{cfg: cfg, dialer: dialerOf(cfg), registry: prometheus.NewRegistry()})
	if o.identity != nil {
		return keys.PublicKey{}, errors.Join(fmt.Errorf("key %q is an identity, which has another key in each certificate: see trust-root", name), o.close())
	}
	if err := errors.Join(o.err, o.unproven(), o.close()); err != nil {
		return keys.PublicKey{}, err
	}
	return o.public, nil
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

// keyIDs gives the IDs of the keys that sign.
func (e *engine) keyIDs() []string {
	var ids []string
	for _, k := range e.keys {
		switch {
		case k.signer != nil:
			ids = append(ids, k.signer.ID())
		case k.identity != nil:
			ids = append(ids, k.identity.KeyID())
		}
	}
	return ids
}

// close lets go of all keys at the same time: each may wait for calls that run.
func (e *engine) close() error {
	e.proofs.close()
	errs := make([]error, len(e.keys))
	var wg sync.WaitGroup
	for i, k := range e.keys {
		wg.Go(func() { errs[i] = k.close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
