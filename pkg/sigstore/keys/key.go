package keys

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/harborseal/harborseal/pkg/fault"
)

// Key signs. It is safe for concurrent use. It holds a file's key decrypted, out of reach of anything that prints
// values.
type Key struct {
	public PublicKey
	// name is for people; empty for a key without one.
	name string
	// sign closes over the key itself or the way to it, so that no print of this struct can show it. It is safe for
	// concurrent use.
	sign func(ctx context.Context, payload []byte) ([]byte, error)
	// close frees what sign uses; nil if that is nothing.
	close         func() error
	deterministic bool
	// proof is that of a key in a KMS or HSM; nil for a file's, which is proven before there is a Key.
	proof *proof
}

// Public is the key that verifies.
func (k *Key) Public() PublicKey { return k.public }

// PublicPEM is the public key as a PEM block of type PUBLIC KEY.
func (k *Key) PublicPEM() []byte { return k.public.PEM() }

// ID is the lower-case hexadecimal SHA-256 of the public key's SubjectPublicKeyInfo in DER.
func (k *Key) ID() string { return k.public.ID() }

// Deterministic says whether one payload always gets one signature: true for every key in a file, and elsewhere for RSA
// and Ed25519, whose algorithms are so.
func (k *Key) Deterministic() bool { return k.deterministic }

// Unproven is why the key has not signed anything that verifies with its public key; nil if it has. That happens to keys of a KMS or
// HSM with [Source.PublicKeyFile] alone: nobody answered, or the credentials were refused, when the key was opened, and no signature
// found the right key since. Once proven, a key stays so.
func (k *Key) Unproven() error {
	if k.proof == nil {
		return nil
	}
	_, missing := k.proof.state()
	if missing == nil {
		return nil
	}
	return fmt.Errorf("key %q: %s: %w", k.name, k.proof.where, missing)
}

// Sign signs a payload with SHA-256: ECDSA in ASN.1 DER, RSA PKCS #1 v1.5, or pure Ed25519. It makes one attempt.
//
// A key that is not proven yet is proven first, by one caller at a time. The others wait for that, not longer than [Source.Timeout], and
// fail with it. If another key than the pinned one answers, the error says so, and so does [Key.Unproven].
//
// If ctx ends first, the error is that of ctx, at once, also while waiting for a place among the calls to a KMS or HSM. Every
// other error is a transient fault with the reason [fault.KeyUnavailable]: it concerns all digests alike.
func (k *Key) Sign(ctx context.Context, payload []byte) ([]byte, error) {
	signature, err := k.attempt(ctx, payload)
	switch {
	case err == nil:
		return signature, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", k.doing(), ctx.Err())
	default:
		return nil, fault.New(fault.Transient, fault.KeyUnavailable, fmt.Errorf("%s: %w", k.doing(), err))
	}
}

// Probe lets the key sign what no image's signature says, and checks it: for a key in a KMS or HSM, that it answers. The error is
// that of [Key.Sign], or says that the signature does not verify.
func (k *Key) Probe(ctx context.Context) error {
	var faulty error
	err := prove(k.public, func(payload []byte) ([]byte, error) {
		var signature []byte
		signature, faulty = k.Sign(ctx, payload)
		return signature, faulty
	})
	if err == nil || faulty != nil {
		return err
	}
	return fault.New(fault.Transient, fault.BadAnswer, fmt.Errorf("%s: %w", k.doing(), err))
}

func (k *Key) attempt(ctx context.Context, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return k.sign(ctx, payload)
}

func (k *Key) doing() string {
	if k.name == "" {
		return "signing"
	}
	return fmt.Sprintf("signing with key %q", k.name)
}

// Close waits for the calls that run, for [Source.Timeout] and 2 s at most, and gives sessions and connections back. A closed key
// does not sign any more if it is one of a KMS or HSM. Closing twice is no error.
func (k *Key) Close() error {
	if k.close == nil {
		return nil
	}
	return k.close()
}

// prove makes a signature and checks it.
func prove(public PublicKey, sign func(payload []byte) ([]byte, error)) error {
	probe := []byte("harborseal: the signing key works")
	signature, err := sign(probe)
	if err != nil {
		return fmt.Errorf("trial signature: %w", err)
	}
	if !public.Verifies(probe, signature) {
		return errors.New("a trial signature does not verify: private and public part do not belong together")
	}
	return nil
}

// randomized says whether the key's algorithm signs one payload in many ways.
func randomized(public PublicKey) bool {
	_, ok := public.key.(*ecdsa.PublicKey)
	return ok
}
