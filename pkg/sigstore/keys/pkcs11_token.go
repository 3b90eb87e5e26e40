//go:build pkcs11 && cgo

package keys

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/harborseal/harborseal/pkg/redact"
	"github.com/harborseal/harborseal/pkg/secretfile"
)

// module is a PKCS #11 library. Once loaded, it stays so until the process ends: PKCS #11 knows one state of a module per process,
// which other keys may use.
type module struct {
	path string
	// loading is held by who loads, and guards loaded. Loading may hang.
	loading sync.Mutex
	loaded  *pkcs11.Ctx // nil before
}

// token is what the keys of one token share. Who is logged in with one session is so with all sessions of the process: a token has
// one PIN per process, and its keys share what it refused.
type token struct {
	module *module
	label  string
	// entry is held by who logs in, so that one PIN at most is tried at a time. A login may hang.
	entry sync.Mutex
	// refused holds the hashes of the PINs that the token did not take, which are not tried again: tokens lock themselves after
	// a few wrong ones. Guarded by entry.
	refused map[[sha256.Size]byte]struct{}
}

// hsms holds the modules and tokens that this process uses.
type hsms struct {
	mu      sync.Mutex
	modules map[string]*module   // guarded by mu, by path
	tokens  map[[2]string]*token // guarded by mu, by path of the module and label
}

//nolint:gochecknoglobals // PKCS #11 has one state per process, and a token counts the wrong PINs of all its keys together
var shared = hsms{modules: make(map[string]*module), tokens: make(map[[2]string]*token)}

// token gives the one token with a label. It asks nobody.
func (h *hsms) token(path, label string) *token {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.modules[path]
	if m == nil {
		m = &module{path: path}
		h.modules[path] = m
	}
	t := h.tokens[[2]string{path, label}]
	if t == nil {
		t = &token{module: m, label: label, refused: make(map[[sha256.Size]byte]struct{})}
		h.tokens[[2]string{path, label}] = t
	}
	return t
}

// load gives the module, loaded and initialized.
func (m *module) load() (*pkcs11.Ctx, error) {
	m.loading.Lock()
	defer m.loading.Unlock()
	if m.loaded != nil {
		return m.loaded, nil
	}
	loaded := pkcs11.New(m.path)
	if loaded == nil {
		return nil, fmt.Errorf("PKCS #11 module %s cannot be loaded: it is no PKCS #11 library for this machine, or a library that it needs "+
			"is missing", m.path)
	}
	if err := loaded.Initialize(); err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		loaded.Destroy()
		return nil, fmt.Errorf("PKCS #11 module %s: initializing it: %s", m.path, err.Error()) // a text: no code may mark it as passing
	}
	m.loaded = loaded
	return loaded, nil
}

// slot finds the token by its label.
func (t *token) slot(module *pkcs11.Ctx) (uint, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("listing the tokens: %w", err)
	}
	var found []uint
	var labels []string
	for _, slot := range slots {
		info, err := module.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // pulled out meanwhile, or empty
		}
		if info.Label == t.label {
			found = append(found, slot)
		}
		labels = append(labels, fmt.Sprintf("%q", info.Label))
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fmt.Errorf("%d tokens have this label: relabel all but one", len(found))
	case len(labels) == 0:
		return 0, away(errors.New("there is no token at all: is the HSM on and connected?"))
	default:
		return 0, fmt.Errorf("there is no token with this label, but %s", redact.New().Text(strings.Join(labels, ", "), maxText))
	}
}

// login logs a session in with the PIN of a file. The caller holds entry.
func (t *token) login(module *pkcs11.Ctx, handle pkcs11.SessionHandle, pinFile string) error {
	pin, err := secretfile.ReadLine(pinFile)
	if err != nil {
		return fmt.Errorf("PIN: %w", err)
	}
	sum := sha256.Sum256([]byte(pin))
	if _, found := t.refused[sum]; found {
		return refused(fmt.Errorf("the token refused the PIN in %s: it is not tried again, lest the token lock itself; correct the file, "+
			"or restart if it is right by now", pinFile))
	}
	err = module.Login(handle, pkcs11.CKU_USER, pin)
	switch {
	case err == nil, isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case isCode(err, pkcs11.CKR_PIN_INCORRECT), isCode(err, pkcs11.CKR_PIN_INVALID), isCode(err, pkcs11.CKR_PIN_LEN_RANGE):
		t.refused[sum] = struct{}{}
		return refused(fmt.Errorf("the token refused the PIN in %s: correct the file", pinFile))
	case isCode(err, pkcs11.CKR_PIN_LOCKED):
		t.refused[sum] = struct{}{}
		return refused(errors.New("the token is locked after too many wrong PINs: its security officer unlocks it"))
	default:
		return fmt.Errorf("logging in: %w", err)
	}
}

func isCode(err error, code uint) bool {
	var got pkcs11.Error
	return errors.As(err, &got) && uint(got) == code
}

// explainToken marks the errors of a module that tell of a token or HSM which is gone, restarts or cannot serve now.
func explainToken(err error) error {
	var code pkcs11.Error
	if err == nil || isRefused(err) || isAway(err) || !errors.As(err, &code) {
		return err
	}
	switch uint(code) {
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_HOST_MEMORY,
		pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_SESSION_HANDLE_INVALID:
		return away(err)
	}
	if uint(code) >= pkcs11.CKR_VENDOR_DEFINED { // network HSMs tell here that they cannot be reached
		return away(err)
	}
	return err
}
