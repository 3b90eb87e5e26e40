package sigstore

import (
	"context"
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

// NamedKey is a key or an identity, the name that policies call it by, and what it is good for.
type NamedKey struct {
	Name  string
	State KeyState
	// Signer is the private key of an active key, and nil otherwise.
	Signer *keys.Key
	// Public may be zero where there is a Signer.
	Public keys.PublicKey
	// Identity signs without a key of its own; Signer and Public are zero then, whatever the state.
	Identity Identity
}

// id is that of the key or the identity.
func (k NamedKey) id() string {
	if k.Identity != nil {
		return k.Identity.KeyID()
	}
	return k.Public.ID()
}

// Keyring signs with the keys that it has and says whose signatures count, and what beside them. It is immutable and safe
// for concurrent use.
type Keyring struct {
	named map[string]NamedKey
	// names are in the order in which the keys were given.
	names []string
	// valid are the keys whose signatures count: the active ones first, because most signatures are by them. The same is true
	// of identities.
	valid      []validKey
	identities []Identity
	trust      Trust
}

// validKey is a key with what its signatures name it by.
type validKey struct {
	keys.PublicKey

	der []byte
}

// NewKeyring validates the keys and reports all that is wrong at once. Each key has a name and a state of its own: the
// same key under two names is an error, and so is a ring by which nothing could ever verify. The trust says which log entries
// and timestamps count.
func NewKeyring(named []NamedKey, trust Trust) (*Keyring, error) {
	r := &Keyring{named: make(map[string]NamedKey, len(named)), trust: trust}
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
		if name, known := owner[k.id()]; known {
			errs = append(errs, fmt.Errorf("keys[%d] %.64q: it is the same key as %.64q: a key has one name and one state", i, k.Name, name))
			continue
		}
		owner[k.id()] = k.Name
		r.named[k.Name] = k
		r.names = append(r.names, k.Name)
	}
	for _, state := range []KeyState{Active, VerifyOnly} {
		for _, name := range r.names {
			k := r.named[name]
			switch {
			case k.State != state:
			case k.Identity != nil:
				r.identities = append(r.identities, k.Identity)
			default:
				r.valid = append(r.valid, validKey{PublicKey: k.Public, der: derOf(k.Public)})
			}
		}
	}
	if len(errs) == 0 && len(r.valid)+len(r.identities) == 0 {
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
	case k.Identity != nil && (k.Signer != nil || !k.Public.IsZero()):
		return errors.New("it is a key and an identity: give one of them")
	case k.Identity != nil:
		return nil
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
	if !k.signs() {
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
	s, err := k.sign(ctx, signedBytes(format, body))
	if err != nil {
		return artifact.Signature{}, err
	}
	s.Format, s.KeyID, s.Payload = format, k.id(), body
	return s, nil
}

// sign signs with the key or as the identity.
func (k NamedKey) sign(ctx context.Context, message []byte) (artifact.Signature, error) {
	if k.Identity != nil {
		return k.Identity.Sign(ctx, message)
	}
	signature, err := k.Signer.Sign(ctx, message)
	return artifact.Signature{Bytes: signature, PublicKey: derOf(k.Public)}, err
}

func (k NamedKey) signs() bool {
	return k.Signer != nil || k.Identity != nil && k.State == Active
}

func (r *Keyring) noSigner(name string) error {
	var signers []string
	for _, n := range r.names {
		if r.named[n].signs() {
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

// Accepts says whether signatures by the key with this id count where the key of this name signs: they do if it is that
// very key and not revoked, or any verify-only key. That another project's key is active does not make it count here.
func (r *Keyring) Accepts(name, keyID string) bool {
	for _, k := range r.named {
		if k.id() == keyID {
			return k.State == VerifyOnly || k.State == Active && k.Name == name
		}
	}
	return false
}

// Deterministic says whether the key of this name makes the same signature of the same claim each time. A name that no
// signing key has makes none.
func (r *Keyring) Deterministic(name string) bool {
	k := r.named[name]
	return !k.signs() || k.Identity == nil && k.Signer.Deterministic()
}

// Keyless says whether the key of this name is an identity, whose certificates live for minutes.
func (r *Keyring) Keyless(name string) bool { return r.named[name].Identity != nil }

// KeySet names the keys and identities that are not revoked, and the logs and authorities that are trusted, in 16 hexadecimal
// digits: it is another one whenever one comes, goes or is revoked. The keys' names, their order and which of them sign do not
// matter.
func (r *Keyring) KeySet() string {
	var ids []string
	for _, key := range r.valid {
		ids = append(ids, key.ID())
	}
	for _, identity := range r.identities {
		ids = append(ids, identity.KeyID()+idOf(identity))
	}
	if set := r.trust.Set(); set != "" {
		ids = append(ids, "trust:"+set)
	}
	return shortHash(ids)
}

// KeyID is the id of the key of this name, whatever its state; false if there is none.
func (r *Keyring) KeyID(name string) (string, bool) {
	k, known := r.named[name]
	if !known {
		return "", false
	}
	return k.id(), true
}
