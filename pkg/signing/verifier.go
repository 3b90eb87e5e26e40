package signing

import (
	"context"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// maxPayload is the largest signature payload that is fetched, in bytes. Ours have about 250.
const maxPayload = 64 << 10

// Verdict is what the registry proves about one manifest at one moment.
type Verdict struct {
	// Signatures are those that verify, with a key that is accepted, over this digest under this repository's name.
	Signatures []artifact.Signature
	// Carrier is the manifest that holds the signatures, valid or not; nil if there is none.
	Carrier *artifact.Manifest
}

// Signed says whether at least one signature verifies.
func (v Verdict) Signed() bool { return len(v.Signatures) > 0 }

// By gives the signature of one key.
func (v Verdict) By(keyID string) (artifact.Signature, bool) {
	for _, s := range v.Signatures {
		if s.KeyID == keyID {
			return s, true
		}
	}
	return artifact.Signature{}, false
}

// Verifier decides "signed" for everybody: before signing, after attaching, in sweeps. It keeps no state: every verdict
// is read from the registry. It is safe for concurrent use.
type Verifier struct {
	registry   Registry
	format     Format
	publicHost string
}

// NewVerifier makes a Verifier. publicHost is the registry's name in signatures, with its port if it has one.
func NewVerifier(registry Registry, format Format, publicHost string) (*Verifier, error) {
	switch {
	case registry == nil, format == nil:
		return nil, errors.New("verifier: registry and format are required")
	case publicHost == "":
		return nil, errors.New("verifier: the registry's public host is required")
	}
	return &Verifier{registry: registry, format: format, publicHost: publicHost}, nil
}

// Identity is the name under which a repository's images are pulled, and which signatures carry.
func (v *Verifier) Identity(ref artifact.Ref) string { return v.publicHost + "/" + ref.Repository() }

// Verify reads the signatures of ref and checks them. An empty verdict means that the registry said that there are
// none: whatever leaves that open is an error.
func (v *Verifier) Verify(ctx context.Context, ref artifact.Ref) (Verdict, error) {
	carrier, err := v.registry.Manifest(ctx, ref.Repository(), v.format.Reference(ref.Digest()))
	if fault.Is(err, fault.Gone) {
		return Verdict{}, nil
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("reading the signatures: %w", err)
	}
	fetch := func(ctx context.Context, digest string) ([]byte, error) {
		return v.registry.Blob(ctx, ref.Repository(), digest, maxPayload)
	}
	signatures, err := v.format.Verify(ctx, carrier, v.Identity(ref), ref.Digest(), fetch)
	if err != nil {
		return Verdict{}, fmt.Errorf("verifying the signatures: %w", err)
	}
	return Verdict{Signatures: signatures, Carrier: &carrier}, nil
}
