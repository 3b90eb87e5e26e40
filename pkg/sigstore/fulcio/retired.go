package fulcio

import (
	"context"
	"fmt"
	"time"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
)

// Retired is an identity that signs no more, and whose signatures count. It asks nobody, and is safe for concurrent use.
type Retired struct {
	verifier Identity
}

// NewRetired makes one of what [Config] describes by these names.
func NewRetired(name string, roots []byte, issuer, subject string) (*Retired, error) {
	t, err := newTrust(roots, issuer, subject)
	if err != nil {
		return nil, fmt.Errorf("fulcio for key %.64q: %w", name, err)
	}
	return &Retired{verifier: Identity{name: name, keyID: artifact.IdentityID(issuer, subject), trust: t}}, nil
}

// KeyID is [Identity.KeyID].
func (r *Retired) KeyID() string { return r.verifier.keyID }

// ID is [Identity.ID].
func (r *Retired) ID() []byte { return r.verifier.ID() }

// Sign is refused: the fault is transient, KeyUnavailable, as with every key that does not sign.
func (r *Retired) Sign(context.Context, []byte) (artifact.Signature, error) {
	return artifact.Signature{}, fault.Newf(fault.Transient, fault.KeyUnavailable, "signing as %s: it is retired", r.verifier.name)
}

// Verify is [Identity.Verify].
func (r *Retired) Verify(certificates [][]byte, at time.Time) (publicKeyDER []byte, err error) {
	return r.verifier.Verify(certificates, at)
}
