package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// KeyState is what a key is good for.
type KeyState string

const (
	// Active keys sign and verify.
	Active KeyState = "active"
	// VerifyOnly keys are recognised while a rotation runs, and sign nothing.
	VerifyOnly KeyState = "verify-only"
	// Revoked keys are not valid: what only they signed counts as unsigned.
	Revoked KeyState = "revoked"
)

// TrustedKey is a key and what it is good for.
type TrustedKey struct {
	Key   keys.PublicKey
	State KeyState
}

// LegacyConfig says which keys sign and verify.
type LegacyConfig struct {
	// Signer is the key that signs; nil for verifying only. It is trusted without standing in Trusted; if it stands there,
	// it must be active.
	Signer *keys.Key
	// Trusted are the keys whose signatures count, and those that were revoked.
	Trusted []TrustedKey
}

// Legacy signs and verifies in cosign's legacy format: one manifest for each subject, under a tag that is made of the
// subject's digest, with one layer for each signature. It is immutable and safe for concurrent use.
type Legacy struct {
	signer *keys.Key
	// valid are the keys whose signatures count, the signer's first.
	valid []keys.PublicKey
}

// NewLegacy validates the keys and reports all that is wrong at once.
func NewLegacy(cfg LegacyConfig) (*Legacy, error) {
	l := &Legacy{signer: cfg.Signer}
	states := make(map[string]KeyState, len(cfg.Trusted)+1)
	if cfg.Signer != nil {
		states[cfg.Signer.ID()] = Active
		l.valid = append(l.valid, cfg.Signer.Public())
	}
	var errs []error
	for i, trusted := range cfg.Trusted {
		if trusted.Key.IsZero() {
			errs = append(errs, fmt.Errorf("keys[%d] is no key", i))
			continue
		}
		switch trusted.State {
		case Active, VerifyOnly, Revoked:
		default:
			errs = append(errs, fmt.Errorf("keys[%d]: state %.32q is not one of active, verify-only, revoked", i, trusted.State))
			continue
		}
		known, seen := states[trusted.Key.ID()]
		switch {
		case seen && known != trusted.State:
			errs = append(errs, fmt.Errorf("keys[%d]: key %s is %s here and %s elsewhere; the key that signs must be active",
				i, trusted.Key.ID(), trusted.State, known))
		case !seen && trusted.State != Revoked:
			l.valid = append(l.valid, trusted.Key)
		}
		states[trusted.Key.ID()] = trusted.State
	}
	if len(errs) == 0 && len(l.valid) == 0 {
		errs = append(errs, errors.New("no key signs or is trusted: nothing could ever count as signed"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return l, nil
}

// Name is the format's name in events and configurations.
func (l *Legacy) Name() string { return "legacy" }

// KeyID is the id of the key that signs, empty if there is none.
func (l *Legacy) KeyID() string {
	if l.signer == nil {
		return ""
	}
	return l.signer.ID()
}

// Reference is the tag under which the signatures of a digest stand: "sha256-<hex>.sig".
func (l *Legacy) Reference(digest string) string {
	return strings.Replace(digest, ":", "-", 1) + ".sig"
}

// Sign signs a digest under an identity: the repository as people pull it, with its host and without tag
// ("harbor.example.com/project/name"). The same arguments give the same signature.
func (l *Legacy) Sign(ctx context.Context, identity, digest string) (artifact.Signature, error) {
	if l.signer == nil {
		return artifact.Signature{}, errors.New("signing: there is no signing key here")
	}
	if err := artifact.ValidateDigest(digest); err != nil {
		return artifact.Signature{}, fmt.Errorf("signing: %w", err)
	}
	if host, repository, _ := strings.Cut(identity, "/"); host == "" || repository == "" {
		return artifact.Signature{}, fmt.Errorf("signing: identity %.128q: want host/project/name", identity)
	}
	body, err := newPayload(identity, digest)
	if err != nil {
		return artifact.Signature{}, err
	}
	signature, err := l.signer.Sign(ctx, body)
	if err != nil {
		return artifact.Signature{}, err
	}
	return artifact.Signature{KeyID: l.signer.ID(), Payload: body, Bytes: signature}, nil
}

// newPayload writes what is signed.
//
// SPEC: cosign's SIGNATURE_SPEC, "Payload": simple signing with the type "cosign container image signature".
func newPayload(identity, digest string) ([]byte, error) {
	body, err := json.Marshal(payload.SimpleContainerImage{Critical: payload.Critical{
		Identity: payload.Identity{DockerReference: identity},
		Image:    payload.Image{DockerManifestDigest: digest},
		Type:     payload.CosignSignatureType,
	}})
	if err != nil {
		return nil, fmt.Errorf("writing the payload: %w", err)
	}
	return body, nil
}

// names says whether a payload is a claim about this digest under this identity.
func names(body []byte, identity, digest string) bool {
	var claim payload.SimpleContainerImage
	if json.Unmarshal(body, &claim) != nil {
		return false
	}
	return claim.Critical.Type == payload.CosignSignatureType &&
		claim.Critical.Image.DockerManifestDigest == digest &&
		claim.Critical.Identity.DockerReference == identity
}
