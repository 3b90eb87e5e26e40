package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/signing"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// engine is what signs and verifies, from the keys to the decision.
type engine struct {
	keys     []openedKey // in the order of the configuration
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

// unproven gives the keys whose KMS or HSM is away, with the reasons; nil if there are none.
func (e *engine) unproven() error {
	var errs []error
	for _, k := range e.keys {
		errs = append(errs, k.unproven())
	}
	return errors.Join(errs...)
}

// openKeys opens all keys and reports all that is wrong with them at once.
func (e *engine) openKeys(ctx context.Context, configured []config.Key, dialer *egress.Dialer) error {
	e.keys = make([]openedKey, len(configured))
	var hsm, local []int
	var wg sync.WaitGroup
	for i, k := range configured {
		switch {
		case k.KMS != "":
			wg.Go(func() { e.keys[i] = openKey(ctx, k, dialer) })
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
				e.keys[i] = openKey(ctx, configured[i], dialer)
			}
		})
	}
	wg.Wait()
	var errs []error
	var named []sigstore.NamedKey
	for i, k := range e.keys {
		errs = append(errs, k.err)
		named = append(named, sigstore.NamedKey{
			Name: configured[i].Name, State: sigstore.KeyState(configured[i].State), Public: k.public, Signer: k.signer,
		})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var err error
	e.ring, err = sigstore.NewKeyring(named)
	return err
}

// openedKey is a key of the configuration, or the error that names it. The zero value is one that was not opened.
type openedKey struct {
	public    keys.PublicKey
	signer    *keys.Key       // nil for a key that does not sign
	transport *http.Transport // nil where nothing is dialled
	err       error
}

// openKey opens a key that signs, and reads one that does not. What it dials, it dials as everything here does. The caller
// closes the result, also one with an error.
func openKey(ctx context.Context, k config.Key, dialer *egress.Dialer) (o openedKey) {
	if k.State != config.Active {
		if o.public, o.err = readPublicKey(k.PublicKeyFile); o.err != nil {
			o.err = fmt.Errorf("key %q: %w", k.Name, o.err)
		}
		return o
	}
	s := source(k)
	if k.KMS != "" {
		if o.transport, o.err = egress.NewTransport(dialer, k.CAFile); o.err != nil {
			o.err = fmt.Errorf("key %q: %w", k.Name, o.err)
			return o
		}
		s.Transport = o.transport
	}
	if o.signer, o.err = keys.Open(ctx, s); o.err == nil {
		o.public = o.signer.Public()
	}
	return o
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
	o := openKey(ctx, cfg.Keys[i], &egress.Dialer{})
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
		if k.signer != nil {
			ids = append(ids, k.signer.ID())
		}
	}
	return ids
}

// close lets go of all keys at the same time: each may wait for calls that run.
func (e *engine) close() error {
	errs := make([]error, len(e.keys))
	var wg sync.WaitGroup
	for i, k := range e.keys {
		wg.Go(func() { errs[i] = k.close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
