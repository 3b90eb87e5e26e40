package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
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

// NamedKey is a key, the name that policies call it by, and what it is good for.
type NamedKey struct {
	Name  string
	State KeyState
	// Signer is the private key of an active key, and nil otherwise.
	Signer *keys.Key
	// Public may be zero where there is a Signer.
	Public keys.PublicKey
}

// Keyring signs with the keys that it has and says whose signatures count. It is immutable and safe for concurrent use.
type Keyring struct {
	named map[string]NamedKey
	// names are in the order in which the keys were given.
	names []string
	// valid are the keys whose signatures count: the active ones first, because most signatures are by them.
	valid []keys.PublicKey
}

// NewKeyring validates the keys and reports all that is wrong at once. Each key has a name and a state of its own: the
// same key under two names is an error, and so is a ring by which nothing could ever verify.
func NewKeyring(named []NamedKey) (*Keyring, error) {
	r := &Keyring{named: make(map[string]NamedKey, len(named))}
	owner := make(map[string]string, len(named))
	var errs []error
	for i, k := range named {
		if k.Public.IsZero() && k.Signer != nil {
			k.Public = k.Signer.Public()
		}
		if err := k.validate(); err != nil {
			errs = append(errs, fmt.Errorf("keys[%d] %.64q: %w", i, k.Name, err))
			continue
		}
		if _, taken := r.named[k.Name]; taken {
			errs = append(errs, fmt.Errorf("keys[%d] %.64q: the name is taken", i, k.Name))
			continue
		}
		if name, known := owner[k.Public.ID()]; known {
			errs = append(errs, fmt.Errorf("keys[%d] %.64q: it is the same key as %.64q: a key has one name and one state", i, k.Name, name))
			continue
		}
		owner[k.Public.ID()] = k.Name
		r.named[k.Name] = k
		r.names = append(r.names, k.Name)
	}
	for _, state := range []KeyState{Active, VerifyOnly} {
		for _, name := range r.names {
			if k := r.named[name]; k.State == state {
				r.valid = append(r.valid, k.Public)
			}
		}
	}
	if len(errs) == 0 && len(r.valid) == 0 {
		errs = append(errs, errors.New("no key is active or verify-only: nothing could ever count as signed"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

func (k NamedKey) validate() error {
	switch k.State {
	case Active, VerifyOnly, Revoked:
	default:
		return fmt.Errorf("state %.32q is not one of active, verify-only, revoked", string(k.State))
	}
	switch {
	case k.Name == "":
		return errors.New("it has no name")
	case k.State == Active && k.Signer == nil:
		return errors.New("an active key signs: it needs its private key")
	case k.State != Active && k.Signer != nil:
		return fmt.Errorf("it is %s and signs nothing: give its public key alone", k.State)
	case k.Public.IsZero():
		return errors.New("there is no key")
	case k.Signer != nil && k.Signer.ID() != k.Public.ID():
		return errors.New("the private key is not that of the public key")
	}
	return nil
}

// Sign makes a signature with the key of this name. With a key that signs deterministically, the same arguments give the
// same signature.
//
// A name that no signing key has is a transient fault, KeyUnavailable: the configuration is wrong for all digests of a
// project, and these wait until it is put right. So is TooLarge, where annotations make a payload of more than 64 KiB. A
// claim that cannot be signed is a permanent one.
func (r *Keyring) Sign(ctx context.Context, name string, format artifact.Format, claim artifact.Claim) (artifact.Signature, error) {
	k := r.named[name]
	if k.Signer == nil {
		return artifact.Signature{}, r.noSigner(name)
	}
	body, err := newPayload(format, claim)
	if err != nil {
		return artifact.Signature{}, fault.New(fault.Permanent, fault.Malformed, fmt.Errorf("signing: %w", err))
	}
	if len(body) > maxPayload {
		return artifact.Signature{}, fault.Newf(fault.Transient, fault.TooLarge,
			"signing: with its annotations the payload has %d bytes, at most %d are read back: configure fewer", len(body), maxPayload)
	}
	signature, err := k.Signer.Sign(ctx, signedBytes(format, body))
	if err != nil {
		return artifact.Signature{}, err
	}
	return artifact.Signature{Format: format, KeyID: k.Public.ID(), Payload: body, Bytes: signature}, nil
}

func (r *Keyring) noSigner(name string) error {
	var signers []string
	for _, n := range r.names {
		if r.named[n].Signer != nil {
			signers = append(signers, n)
		}
	}
	slices.Sort(signers)
	problem := "is not configured"
	if k, known := r.named[name]; known {
		problem = "is " + string(k.State) + " and signs nothing"
	}
	return fault.Newf(fault.Transient, fault.KeyUnavailable, "signing: key %.64q %s; these sign: [%s]", name, problem, strings.Join(signers, ", "))
}

// Valid says whether s is a signature by the key that it names, which is known and not revoked, over a payload that makes
// this claim. Annotations do not matter.
func (r *Keyring) Valid(s artifact.Signature, claim artifact.Claim) bool {
	if len(s.Payload) > maxPayload || !makes(s.Format, s.Payload, claim) {
		return false
	}
	for _, key := range r.valid {
		if key.ID() == s.KeyID {
			return key.Verifies(signedBytes(s.Format, s.Payload), s.Bytes)
		}
	}
	return false
}

// Accepts says whether signatures by the key with this id count where the key of this name signs: they do if it is that
// very key and not revoked, or any verify-only key. That another project's key is active does not make it count here.
func (r *Keyring) Accepts(name, keyID string) bool {
	for _, k := range r.named {
		if k.Public.ID() == keyID {
			return k.State == VerifyOnly || k.State == Active && k.Name == name
		}
	}
	return false
}

// Deterministic says whether the key of this name makes the same signature of the same claim each time. A name that no
// signing key has makes none.
func (r *Keyring) Deterministic(name string) bool {
	k := r.named[name]
	return k.Signer == nil || k.Signer.Deterministic()
}

// KeySet names the keys that are not revoked, in 16 hexadecimal digits: it is another one whenever one comes, goes or is
// revoked. Their names, their order and which of them sign do not matter.
func (r *Keyring) KeySet() string {
	ids := make([]string, len(r.valid))
	for i, key := range r.valid {
		ids[i] = key.ID()
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
	return hex.EncodeToString(sum[:8])
}

// KeyID is the id of the key of this name, whatever its state; false if there is none.
func (r *Keyring) KeyID(name string) (string, bool) {
	k, known := r.named[name]
	return k.Public.ID(), known
}

// verifier finds the valid key by which a signature over these bytes verifies. The one with the hinted id is tried first.
func (r *Keyring) verifier(signed, signature []byte, hint string) (keys.PublicKey, bool) {
	for _, hinted := range []bool{true, false} {
		for _, key := range r.valid {
			if (key.ID() == hint) == hinted && key.Verifies(signed, signature) {
				return key, true
			}
		}
	}
	return keys.PublicKey{}, false
}

// mayVerify says whether the signature could be that of a valid and accepted key over the bytes with this SHA-256.
func (r *Keyring) mayVerify(sum, signature []byte, accepts func(keyID string) bool) bool {
	for _, key := range r.valid {
		if accepts(key.ID()) && (key.NeedsPayload() || key.VerifiesHash(sum, signature)) {
			return true
		}
	}
	return false
}
