//go:build !no_hashivault

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"strings"

	vault "github.com/hashicorp/vault/api"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const defaultMount = "transit"

func hashivaultProvider() provider {
	return provider{scheme: "hashivault", build: "without the tag no_hashivault", open: openVault}
}

// vaultKey is a key of Vault's transit engine, as sigstore's provider reaches it through a gateway.
type vaultKey struct {
	options VaultOptions
	signer  *hashivault.SignerVerifier
	gateway *gateway
}

func openVault(ctx context.Context, s Source) (remote, error) {
	o := s.Vault
	if o.Mount == "" {
		o.Mount = defaultMount
	}
	if err := hashivault.ValidReference(s.KMS); err != nil {
		return nil, err
	}
	switch {
	case s.Transport == nil:
		return nil, errNoTransport
	case o.KeyVersion < 0:
		return nil, fmt.Errorf("key version %d: want 0 or more", o.KeyVersion)
	case o.KeyVersion > 0 && s.PublicKeyFile == "":
		return nil, errors.New("a key version needs a public key file: only the newest version's key can be asked for")
	}
	if _, err := secretfile.ReadLine(o.TokenFile); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	_, name, _ := strings.Cut(s.KMS, "://")
	g, err := newGateway(ctx, s.Transport, o, name, s.Timeout)
	if err != nil {
		return nil, err
	}
	version := ""
	if o.KeyVersion > 0 {
		version = strconv.Itoa(o.KeyVersion)
	}
	// The provider looks into the environment and the home for what it is not given, so that it is given everything.
	signer, err := hashivault.LoadSignerVerifier(s.KMS, crypto.SHA256,
		options.WithRPCAuthOpts(options.RPCAuth{Address: g.address(), Token: placeholder, Path: o.Mount}), options.WithKeyVersion(version))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the provider for Vault: %s", redact.New().Text(err.Error(), maxText)), g.close())
	}
	return &vaultKey{options: o, signer: signer, gateway: g}, nil
}

func (k *vaultKey) publicKey(ctx context.Context) (crypto.PublicKey, error) {
	if k.options.KeyVersion > 0 {
		return nil, errNoPublicKey
	}
	public, err := k.signer.PublicKey(options.WithContext(ctx))
	return public, explainVault(err)
}

// fits takes every key: transit signs a SHA-256 with all curves.
func (k *vaultKey) fits(crypto.PublicKey) error { return nil }

func (k *vaultKey) sign(ctx context.Context, public crypto.PublicKey, payload []byte) ([]byte, error) {
	opts := []signature.SignOption{options.WithContext(ctx)}
	if _, ok := public.(ed25519.PublicKey); ok {
		// Pure Ed25519 signs the payload itself: the provider would hash it first.
		opts = append(opts, options.WithCryptoSignerOpts(crypto.Hash(0)))
	}
	signed, err := k.signer.SignMessage(bytes.NewReader(payload), opts...)
	return signed, explainVault(err)
}

func (k *vaultKey) close() error { return k.gateway.close() }

// explainVault gives the gateway's error back, or one of the provider's about an answer that it cannot read.
func explainVault(err error) error {
	if err == nil {
		return nil
	}
	var answer *vault.ResponseError
	if !errors.As(err, &answer) {
		return errors.New(redact.New().Text(err.Error(), maxText))
	}
	said := errors.New(redact.New().Text(strings.Join(answer.Errors, "; "), maxText))
	switch answer.StatusCode {
	case statusAway:
		return away(said)
	case statusRefused:
		return refused(said)
	default:
		return said
	}
}
