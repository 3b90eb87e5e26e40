package main

import (
	"crypto"
	"fmt"
	"os"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// options say who has to have signed, and what has to stand beside a signature.
type options struct {
	// key is a file; identity and issuer stand in its place.
	key, identity, issuer string
	// root is the file of the trusted root; empty trusts no log and no authority.
	root           string
	log, timestamp bool
}

func newVerifier(o options) (*verifier, error) {
	var trusted root.TrustedMaterialCollection
	if o.root != "" {
		material, err := root.NewTrustedRootFromPath(o.root)
		if err != nil {
			return nil, fmt.Errorf("reading the trusted root: %w", err)
		}
		trusted = append(trusted, material)
	}
	made := &verifier{by: verify.WithKey()}
	if o.key != "" {
		material, err := readKey(o.key)
		if err != nil {
			return nil, err
		}
		trusted = append(trusted, material)
	} else {
		identity, err := verify.NewShortCertificateIdentity(o.issuer, "", o.identity, "")
		if err != nil {
			return nil, fmt.Errorf("reading the identity: %w", err)
		}
		made.by = verify.WithCertificateIdentity(identity)
	}
	var err error
	if made.sigstore, err = verify.NewVerifier(trusted, o.asked()...); err != nil {
		return nil, fmt.Errorf("preparing sigstore-go: %w", err)
	}
	return made, nil
}

// asked is what has to stand beside a signature. A certificate lives for minutes: it needs a time, by whomever.
func (o options) asked() []verify.VerifierOption {
	var asked []verify.VerifierOption
	if o.log {
		asked = append(asked, verify.WithTransparencyLog(1))
	}
	switch {
	case o.timestamp:
		return append(asked, verify.WithSignedTimestamps(1))
	case o.key == "":
		return append(asked, verify.WithObserverTimestamps(1))
	default:
		return append(asked, verify.WithNoObserverTimestamps())
	}
}

// readKey gives a key that is trusted at all times and whatever a bundle's hint says: the hint is the signer's word.
func readKey(path string) (root.TrustedMaterial, error) {
	pem, err := os.ReadFile(path) //nolint:gosec // a file that the caller names
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	always := root.NewExpiringKey(key, time.Time{}, time.Time{})
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil }), nil
}
