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
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

const pkcs11Built = true

// hsmKey is a key pair on a token. It keeps sessions open between calls, at most as many as calls ran at a time. A session
// that met an error is closed, so that the next call logs in anew: that is all it takes when an HSM comes back.
//
// The module stays loaded until the process ends: PKCS #11 knows one state of a module per process, which other keys
// may use. For the same reason a token has one PIN per process: who is logged in with one session is with all.
type hsmKey struct {
	options PKCS11Options
	id      []byte
	module  *pkcs11.Ctx

	mu     sync.Mutex
	free   []session // guarded by mu: the sessions that no call uses
	closed bool      // guarded by mu

	// entry is held by who logs in, so that one PIN at most is tried at a time. It is not mu, because a login may hang.
	entry sync.Mutex
	// refused is the hash of a PIN that the token did not take, which is not tried again: tokens lock themselves after a few
	// wrong ones. Guarded by entry.
	refused [sha256.Size]byte
}

// session is logged in, and knows the handle of the private key.
type session struct {
	handle pkcs11.SessionHandle
	key    pkcs11.ObjectHandle
}

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
	module := pkcs11.New(o.Module)
	if module == nil {
		return nil, fmt.Errorf("PKCS #11 module %s cannot be loaded: it is no PKCS #11 library for this machine, or a library that it needs "+
			"is missing", o.Module)
	}
	if err := module.Initialize(); err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		module.Destroy()
		return nil, fmt.Errorf("PKCS #11 module %s: initializing it: %w", o.Module, err)
	}
	return &hsmKey{options: o, id: id, module: module}, nil
}

func isCode(err error, code uint) bool {
	var got pkcs11.Error
	return errors.As(err, &got) && uint(got) == code
}

func (k *hsmKey) publicKey(context.Context) (public crypto.PublicKey, err error) {
	err = k.with(func(s session) error {
		object, err := k.find(s.handle, pkcs11.CKO_PUBLIC_KEY)
		if errors.Is(err, errNoObject) {
			return errNoPublicKey
		}
		if err == nil {
			public, err = readPublic(k.module, s.handle, object)
		}
		return err
	})
	return public, err
}

// fits takes every key: the hash is ours.
func (k *hsmKey) fits(crypto.PublicKey) error { return nil }

func (k *hsmKey) sign(_ context.Context, public crypto.PublicKey, payload []byte) (signature []byte, err error) {
	err = k.with(func(s session) error {
		signature, err = signWith(k.module, s, public, payload)
		return err
	})
	return signature, err
}

// with runs do with a session of its own. A session is used again only if all went well.
func (k *hsmKey) with(do func(session) error) error {
	s, err := k.session()
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		_ = k.module.CloseSession(s.handle) // whatever is wrong with it, it is not used again
		_ = k.drop()                        // the error that is told is the first
		return err
	}
	k.keep(s)
	return nil
}

func (k *hsmKey) session() (session, error) {
	if s, found := k.reuse(); found {
		return s, nil
	}
	k.entry.Lock()
	defer k.entry.Unlock()
	return k.login()
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
		_ = k.module.CloseSession(s.handle) // nobody is left to tell
		return
	}
	k.free = append(k.free, s)
}

// login opens a session and finds the private key. The caller holds entry.
func (k *hsmKey) login() (session, error) {
	slot, err := k.slot()
	if err != nil {
		return session{}, err
	}
	handle, err := k.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, fmt.Errorf("opening a session: %w", err)
	}
	if err = k.tryPIN(handle); err == nil {
		var key pkcs11.ObjectHandle
		if key, err = k.find(handle, pkcs11.CKO_PRIVATE_KEY); err == nil {
			return session{handle: handle, key: key}, nil
		}
	}
	return session{}, errors.Join(err, k.module.CloseSession(handle))
}

func (k *hsmKey) tryPIN(handle pkcs11.SessionHandle) error {
	pin, err := secretfile.ReadLine(k.options.PINFile)
	if err != nil {
		return fmt.Errorf("PIN: %w", err)
	}
	sum := sha256.Sum256([]byte(pin))
	if sum == k.refused {
		return fmt.Errorf("the token refused the PIN in %s: it is not tried again, lest the token lock itself; correct the file", k.options.PINFile)
	}
	err = k.module.Login(handle, pkcs11.CKU_USER, pin)
	switch {
	case err == nil, isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case isCode(err, pkcs11.CKR_PIN_INCORRECT), isCode(err, pkcs11.CKR_PIN_INVALID), isCode(err, pkcs11.CKR_PIN_LEN_RANGE):
		k.refused = sum
		return fmt.Errorf("the token refused the PIN in %s: correct the file", k.options.PINFile)
	case isCode(err, pkcs11.CKR_PIN_LOCKED):
		k.refused = sum
		return errors.New("the token is locked after too many wrong PINs: its security officer unlocks it")
	default:
		return fmt.Errorf("logging in: %w", err)
	}
}

// slot finds the token by its label.
func (k *hsmKey) slot() (uint, error) {
	slots, err := k.module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("listing the tokens: %w", err)
	}
	var found []uint
	var labels []string
	for _, slot := range slots {
		info, err := k.module.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // pulled out meanwhile, or empty
		}
		if info.Label == k.options.Token {
			found = append(found, slot)
		}
		labels = append(labels, fmt.Sprintf("%q", info.Label))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, fmt.Errorf("there is no token with this label, but %s", redact.New().Text(strings.Join(append(labels, "no other"), ", "), maxText))
	default:
		return 0, fmt.Errorf("%d tokens have this label: relabel all but one", len(found))
	}
}

var errNoObject = errors.New("there is none")

// find gives the one object of a class that has the key's label and id.
func (k *hsmKey) find(handle pkcs11.SessionHandle, class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if k.options.Label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.options.Label))
	}
	if len(k.id) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, k.id))
	}
	what := fmt.Sprintf("looking for the key with label %q and id %q", k.options.Label, k.options.ID)
	if err := k.module.FindObjectsInit(handle, template); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	found, _, err := k.module.FindObjects(handle, 2)
	if err := errors.Join(err, k.module.FindObjectsFinal(handle)); err != nil {
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
func signWith(module *pkcs11.Ctx, s session, public crypto.PublicKey, payload []byte) ([]byte, error) {
	mechanism, input := mechanismFor(public), payload
	if mechanism == pkcs11.CKM_ECDSA {
		sum := sha256.Sum256(payload)
		input = sum[:]
	}
	if err := module.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, s.key); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	signature, err := module.Sign(s.handle, input)
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
		if err := k.module.CloseSession(s.handle); err != nil {
			failed = append(failed, fmt.Errorf("closing a session: %w", err))
		}
	}
	k.free = nil
	return errors.Join(failed...)
}
