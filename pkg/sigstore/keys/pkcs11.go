//go:build pkcs11 && cgo

package keys

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/harborseal/harborseal/pkg/secretfile"
)

const pkcs11Built = true

// hsmKey is a key pair on a token. It keeps sessions open between calls, at most as many as calls ran at a time. A session
// that met an error is closed, so that the next call logs in anew: that is all it takes when an HSM comes back.
type hsmKey struct {
	options PKCS11Options
	id      []byte
	token   *token

	mu     sync.Mutex
	free   []session // guarded by mu: the sessions that no call uses
	closed bool      // guarded by mu
}

// session is logged in, and knows the handle of the private key.
type session struct {
	module *pkcs11.Ctx
	handle pkcs11.SessionHandle
	key    pkcs11.ObjectHandle
}

// openPKCS11 leaves the module alone: loading one may hang, which the first call is bounded for.
func openPKCS11(o PKCS11Options) (remote, error) {
	id, err := hex.DecodeString(o.ID)
	switch {
	case err != nil:
		return nil, errors.New("PKCS #11: the id of the key is not hexadecimal")
	case !filepath.IsAbs(o.Module):
		return nil, fmt.Errorf("PKCS #11: module %q: want an absolute path", o.Module)
	case o.Token == "":
		return nil, errors.New("PKCS #11: name the token by its label")
	case o.Label == "" && o.ID == "":
		return nil, errors.New("PKCS #11: name the key by its label, its id or both")
	}
	if _, err := os.Stat(o.Module); err != nil {
		return nil, fmt.Errorf("PKCS #11 module: %w", err)
	}
	if _, err := secretfile.ReadLine(o.PINFile); err != nil {
		return nil, fmt.Errorf("PKCS #11 PIN: %w", err)
	}
	return &hsmKey{options: o, id: id, token: shared.token(o.Module, o.Token)}, nil
}

func (k *hsmKey) publicKey(context.Context) (public crypto.PublicKey, err error) {
	err = k.with(func(s session) error {
		object, err := k.find(s.module, s.handle, pkcs11.CKO_PUBLIC_KEY)
		if errors.Is(err, errNoObject) {
			return errNoPublicKey
		}
		if err == nil {
			public, err = readPublic(s.module, s.handle, object)
		}
		return err
	})
	return public, err
}

// fits takes every key: the hash is ours.
func (k *hsmKey) fits(crypto.PublicKey) error { return nil }

func (k *hsmKey) sign(_ context.Context, public crypto.PublicKey, payload []byte) (signature []byte, err error) {
	err = k.with(func(s session) error {
		signature, err = signWith(s, public, payload)
		return err
	})
	return signature, err
}

// with runs do with a session of its own. A session is used again only if all went well.
func (k *hsmKey) with(do func(session) error) error {
	s, err := k.session()
	if err != nil {
		return explainToken(err)
	}
	if err := do(s); err != nil {
		_ = s.module.CloseSession(s.handle) // whatever is wrong with it, it is not used again
		_ = k.drop()                        // the error that is told is the first
		return explainToken(err)
	}
	k.keep(s)
	return nil
}

func (k *hsmKey) session() (session, error) {
	if s, found := k.reuse(); found {
		return s, nil
	}
	module, err := k.token.module.load()
	if err != nil {
		return session{}, err
	}
	k.token.entry.Lock()
	defer k.token.entry.Unlock()
	return k.login(module)
}

func (k *hsmKey) reuse() (s session, found bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.free)
	if n == 0 {
		return session{}, false
	}
	s, k.free = k.free[n-1], k.free[:n-1]
	return s, true
}

func (k *hsmKey) keep(s session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		_ = s.module.CloseSession(s.handle) // nobody is left to tell
		return
	}
	k.free = append(k.free, s)
}

// login opens a session and finds the private key. The caller holds the token's entry.
func (k *hsmKey) login(module *pkcs11.Ctx) (session, error) {
	slot, err := k.token.slot(module)
	if err != nil {
		return session{}, err
	}
	handle, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, fmt.Errorf("opening a session: %w", err)
	}
	if err = k.token.login(module, handle, k.options.PINFile); err == nil {
		var key pkcs11.ObjectHandle
		if key, err = k.find(module, handle, pkcs11.CKO_PRIVATE_KEY); err == nil {
			return session{module: module, handle: handle, key: key}, nil
		}
	}
	return session{}, errors.Join(err, module.CloseSession(handle))
}

var errNoObject = errors.New("there is none")

// find gives the one object of a class that has the key's label and id.
func (k *hsmKey) find(module *pkcs11.Ctx, handle pkcs11.SessionHandle, class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if k.options.Label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.options.Label))
	}
	if len(k.id) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, k.id))
	}
	what := fmt.Sprintf("looking for the key with label %q and id %q", k.options.Label, k.options.ID)
	if err := module.FindObjectsInit(handle, template); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	found, _, err := module.FindObjects(handle, 2)
	if err := errors.Join(err, module.FindObjectsFinal(handle)); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, fmt.Errorf("%s: %w on this token", what, errNoObject)
	default:
		return 0, fmt.Errorf("%s: several match: name both label and id", what)
	}
}

// signWith makes the signature that cosign verifies. For ECDSA the hash is made here, so that P-384 signs a SHA-256 too.
func signWith(s session, public crypto.PublicKey, payload []byte) ([]byte, error) {
	mechanism, input := mechanismFor(public), payload
	if mechanism == pkcs11.CKM_ECDSA {
		sum := sha256.Sum256(payload)
		input = sum[:]
	}
	if err := s.module.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, s.key); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	signature, err := s.module.Sign(s.handle, input)
	if err != nil {
		return nil, fmt.Errorf("C_Sign: %w", err)
	}
	if mechanism == pkcs11.CKM_ECDSA {
		return derSignature(signature)
	}
	return signature, nil
}

// close gives the sessions back. One that a hanging call holds is closed by that call, should it ever return.
func (k *hsmKey) close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	return k.drop()
}

// drop closes the sessions that no call uses. What broke one of them has likely broken all.
func (k *hsmKey) drop() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var failed []error
	for _, s := range k.free {
		if err := s.module.CloseSession(s.handle); err != nil {
			failed = append(failed, fmt.Errorf("closing a session: %w", err))
		}
	}
	k.free = nil
	return errors.Join(failed...)
}
