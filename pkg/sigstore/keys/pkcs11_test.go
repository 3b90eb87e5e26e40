//go:build pkcs11 && cgo

package keys_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// The tests of this file run one after the other: SoftHSM 2.6 may drop a session that opens while the last other one of its
// token closes.
const pin = "Hunter2-1234"

// hsm is SoftHSM with its tokens: a PKCS #11 module knows one configuration per process.
type hsm struct {
	module, folder string
	// skip says why there is no SoftHSM.
	skip string
}

// tokens of softHSM. The PIN of a token is known or unknown per process, not per key: tests of it have tokens of their own.
func tokenNames() []string { return []string{"main", "pins", "pinned", "removed", "twin", "twin"} }

// softHSM is started once, before any module is loaded.
var softHSM = sync.OnceValues(func() (hsm, error) {
	util, err := exec.LookPath("softhsm2-util")
	if err != nil {
		return hsm{skip: "softhsm2-util is not installed (Debian: apt-get install softhsm2)"}, nil
	}
	found := slices.Concat(glob("/usr/lib/softhsm/libsofthsm2.so"), glob("/usr/lib/*/softhsm/libsofthsm2.so"),
		glob("/usr/lib*/pkcs11/libsofthsm2.so"), glob("/usr/local/lib/softhsm/libsofthsm2.so"))
	if len(found) == 0 {
		return hsm{skip: "softhsm2-util is installed, but libsofthsm2.so is in none of the usual places"}, nil
	}
	h := hsm{module: found[0], folder: filepath.Join(scratch, "softhsm")}
	conf := filepath.Join(h.folder, "softhsm2.conf")
	store := filepath.Join(h.folder, "tokens")
	err = errors.Join(os.MkdirAll(store, 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+store+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600),
		os.Setenv("SOFTHSM2_CONF", conf))
	if err != nil {
		return h, err
	}
	run := func(args ...string) {
		if out, runErr := exec.Command(util, args...).CombinedOutput(); runErr != nil { //nolint:gosec // the test's own arguments
			err = errors.Join(err, fmt.Errorf("softhsm2-util %q: %w: %s", args, runErr, out))
		}
	}
	for _, token := range tokenNames() {
		run("--init-token", "--free", "--label", token, "--so-pin", "so-"+pin, "--pin", pin)
	}
	load := func(token, label, id, name string, more ...string) {
		path := filepath.Join(h.folder, name+".pem")
		err = errors.Join(err, os.WriteFile(path, pkcs8PEM(rawKeys()[name]), 0o600))
		run(append([]string{"--import", path, "--token", token, "--label", label, "--id", id, "--pin", pin}, more...)...)
	}
	for i, name := range []string{"p256", "p384", "rsa", "ed25519"} {
		load("main", name, fmt.Sprintf("a%d", i), name)
	}
	load("main", "same", "b1", "p256")
	load("main", "same", "b2", "second")
	load("main", "private", "c1", "second", "--no-public-key")
	load("pins", "key", "01", "p256")
	load("pinned", "key", "01", "p256")
	load("removed", "key", "01", "p256")
	return h, err
})

func glob(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	return found
}

func source(t *testing.T, token, label string) keys.Source {
	t.Helper()
	h, err := softHSM()
	if err != nil {
		t.Fatal(err)
	}
	if h.skip != "" {
		t.Skip(h.skip)
	}
	return keys.Source{
		Name:   "hsm",
		PKCS11: keys.PKCS11Options{Module: h.module, Token: token, Label: label, PINFile: file(t, pin+"\n")},
	}
}

func TestPKCS11(t *testing.T) {
	if !slices.Contains(keys.Providers(), "pkcs11") {
		t.Errorf("Providers() = %q, want pkcs11 among them", keys.Providers())
	}
	for _, name := range []string{"p256", "p384", "rsa", "ed25519"} {
		t.Run(name, func(t *testing.T) {
			key, err := keys.Open(t.Context(), source(t, "main", name))
			if err != nil {
				t.Fatal(err)
			}
			defer closeKey(t, key)
			if got, want := key.ID(), loadedKeys()[name].ID(); got != want {
				t.Errorf("ID() = %s, want %s", got, want)
			}
			wantSigns(t, key, rawKeys()[name].Public())
		})
	}
}

func TestPKCS11NamesOneKey(t *testing.T) {
	private := file(t, string(loadedKeys()["second"].PublicPEM()))
	for _, tt := range []struct {
		name, label, id, pinned string
		want                    string // the name of a key, or
		wantErr                 string
	}{
		{name: "by label", label: "p256", want: "p256"},
		{name: "by id", id: "A1", want: "p384"},
		{name: "by both", label: "same", id: "b2", want: "second"},
		{name: "several", label: "same", wantErr: "several match: name both label and id"},
		{name: "none", label: "nobody", wantErr: "there is none on this token"},
		{name: "label and id of two keys", label: "p256", id: "a1", wantErr: "there is none on this token"},
		{name: "no public key", label: "private", wantErr: "name a public key file"},
		{name: "no public key but a pinned one", label: "private", pinned: private, want: "second"},
		{name: "another pinned", label: "p256", pinned: private, wantErr: "is not the one in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t, "main", tt.label)
			s.PKCS11.ID, s.PublicKeyFile = tt.id, tt.pinned
			key, err := keys.Open(t.Context(), s)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("Open() = %v, want an error with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeKey(t, key)
			wantSigns(t, key, rawKeys()[tt.want].Public())
		})
	}
}

func TestPKCS11Refuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*keys.PKCS11Options)
		want   string
	}{
		"no such token":     {func(o *keys.PKCS11Options) { o.Token = "nobody" }, `there is no token with this label, but "`},
		"two such tokens":   {func(o *keys.PKCS11Options) { o.Token = "twin" }, "2 tokens have this label"},
		"no token":          {func(o *keys.PKCS11Options) { o.Token = "" }, "name the token by its label"},
		"no key":            {func(o *keys.PKCS11Options) { o.Label = "" }, "name the key by its label, its id or both"},
		"an odd id":         {func(o *keys.PKCS11Options) { o.ID = "xyz" }, "not hexadecimal"},
		"a relative module": {func(o *keys.PKCS11Options) { o.Module = "libsofthsm2.so" }, "want an absolute path"},
		"no such module":    {func(o *keys.PKCS11Options) { o.Module = "/none/libsofthsm2.so" }, "no such file"},
		"no module at all":  {func(o *keys.PKCS11Options) { o.Module = o.PINFile }, "no PKCS #11 library for this machine"},
		"no PIN":            {func(o *keys.PKCS11Options) { o.PINFile = "none" }, "PIN: "},
	} {
		s := source(t, "main", "p256")
		tt.change(&s.PKCS11)
		_, err := keys.Open(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open() = %v, want an error with %q", name, err, tt.want)
			continue
		}
		wantNoSecret(t, err, pin)
	}
}

// wrongPIN is another one each time: what a token refused, this process does not try again.
func wrongPIN() string { return "Hunter3-" + strconv.FormatInt(time.Now().UnixNano(), 36) }

// wantRefusedPIN checks an error of Open.
func wantRefusedPIN(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || fault.Of(err).Reason != fault.Unauthorized || !strings.Contains(err.Error(), text) {
		t.Fatalf("Open() = %v with the reason %s, want %s and %q", err, fault.Of(err).Reason, fault.Unauthorized, text)
	}
	if strings.Contains(err.Error(), "set public_key_file") {
		t.Errorf("Open() = %v, want no advice to start without it", err)
	}
	wantNoSecret(t, err, "Hunter3", pin)
}

func TestPKCS11WrongPIN(t *testing.T) {
	s := source(t, "pins", "key")
	write(t, s.PKCS11.PINFile, []byte(wrongPIN()), 0)
	_, err := keys.Open(t.Context(), s)
	wantRefusedPIN(t, err, "the token refused the PIN in "+s.PKCS11.PINFile+": correct the file")
	write(t, s.PKCS11.PINFile, []byte(pin), 0)
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	wantSigns(t, key, rawKeys()["p256"].Public())
}

// TestPKCS11KeysShareAWrongPIN opens several keys of one token, as a start does: the token sees one attempt for each wrong PIN.
func TestPKCS11KeysShareAWrongPIN(t *testing.T) {
	first, second := wrongPIN(), wrongPIN()+"-2"
	link := filepath.Join(t.TempDir(), "module.so")
	for i, tt := range []struct {
		pin, want string
		linked    bool
	}{
		{first, ": correct the file", false},
		{first, "it is not tried again", false},
		{second, ": correct the file", false},
		{first, "it is not tried again", false},
		{second, "it is not tried again", true},
	} {
		s := source(t, "pins", fmt.Sprintf("key%d", i)) // the PIN comes before the key
		if tt.linked {
			if err := os.Symlink(s.PKCS11.Module, link); err != nil {
				t.Fatal(err)
			}
			s.PKCS11.Module = link
		}
		write(t, s.PKCS11.PINFile, []byte(tt.pin), 0)
		_, err := keys.Open(t.Context(), s)
		wantRefusedPIN(t, err, tt.want)
	}
}

// TestPKCS11UnknownToken is a wrong configuration, also for a pinned key.
func TestPKCS11UnknownToken(t *testing.T) {
	s := source(t, "nobody", "key")
	for _, pinned := range []string{"", file(t, string(loadedKeys()["p256"].PublicPEM()))} {
		s.PublicKeyFile = pinned
		_, err := keys.Open(t.Context(), s)
		if err == nil || fault.Of(err).Reason != fault.Unknown || strings.Contains(err.Error(), "set public_key_file") ||
			!strings.Contains(err.Error(), "there is no token with this label") {
			t.Errorf("pinned by %q: Open() = %v with the reason %s, want it refused for good", pinned, err, fault.Of(err).Reason)
		}
	}
}

// TestPKCS11ModuleThatHangs loads a library that waits for a reader of a pipe, as one waits for a daemon or a network HSM.
func TestPKCS11ModuleThatHangs(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("there is no C compiler")
	}
	folder := t.TempDir()
	pipe, code, library := filepath.Join(folder, "pipe"), filepath.Join(folder, "hang.c"), filepath.Join(folder, "hang.so")
	write(t, code, []byte(`#include <fcntl.h>
#include <unistd.h>
static unsigned long initialize(void *args) { close(open(PIPE, O_RDONLY)); return 5; }
static struct { unsigned char version[2]; void *functions[100]; } list = {{2, 40}, {initialize}};
unsigned long C_GetFunctionList(void **to) { *to = &list; return 0; }
`), 0)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), compiler, "-shared", "-fPIC", fmt.Sprintf("-DPIPE=%q", pipe), "-o", library, code).CombinedOutput() //nolint:gosec // the test's own
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := keys.Source{
		Name: "hsm", Timeout: 200 * time.Millisecond,
		PKCS11: keys.PKCS11Options{Module: library, Token: "any", Label: "key", PINFile: file(t, pin)},
	}
	_, err = keys.Open(t.Context(), s)
	wantUnavailable(t, err, "no answer within 200ms")
	s.PublicKeyFile = file(t, string(loadedKeys()["p256"].PublicPEM()))
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatalf("Open() of a pinned key = %v, want it unproven", err)
	}
	wantUnavailable(t, key.Unproven(), "no answer within 200ms")
	end, err := os.OpenFile(pipe, os.O_RDWR, 0) //nolint:gosec // the test's own; it lets all go on that wait for somebody who writes
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close() //nolint:errcheck // nothing was written
	closeKey(t, key)
}

// TestPKCS11TriesAWrongPINOnce is so for a key that is not proven yet, too: tokens lock themselves.
func TestPKCS11TriesAWrongPINOnce(t *testing.T) {
	s := source(t, "pinned", "key")
	s.PublicKeyFile = file(t, string(loadedKeys()["p256"].PublicPEM()))
	wrong := wrongPIN()
	write(t, s.PKCS11.PINFile, []byte(wrong), 0)
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	for range 5 {
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, "it is not tried again, lest the token lock itself")
		wantNoSecret(t, err, wrong, pin)
	}
	wantNoSecret(t, key.Unproven(), wrong, pin)
	write(t, s.PKCS11.PINFile, []byte(pin), 0)
	wantSigns(t, key, rawKeys()["p256"].Public())
}

func TestPKCS11ClosesWhileALoginHangs(t *testing.T) {
	done := make(chan error, 1)
	go func() { done <- keys.CloseWhileALoginHangs() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("close() = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("close() waits for the login")
	}
}

// TestPKCS11LogsInAgain logs the process out behind the key's back, as an HSM that restarts does.
func TestPKCS11LogsInAgain(t *testing.T) {
	s := source(t, "removed", "key")
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, key)
	logout(t, s.PKCS11)
	write(t, s.PKCS11.PINFile, []byte(wrongPIN()), 0)
	for _, want := range []string{"signing with key", "the token refused the PIN", "it is not tried again, lest the token lock itself"} {
		_, err = key.Sign(t.Context(), []byte("payload"))
		wantUnavailable(t, err, want)
		wantNoSecret(t, err, "Hunter3", pin)
	}
	write(t, s.PKCS11.PINFile, []byte(pin), 0)
	wantSigns(t, key, rawKeys()["p256"].Public())
}

// logout ends what all sessions of this process with the token may do.
func logout(t *testing.T, o keys.PKCS11Options) {
	t.Helper()
	module := pkcs11.New(o.Module) // stays loaded: see hsmKey
	slots, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err != nil || info.Label != o.Token {
			continue
		}
		if err := module.CloseAllSessions(slot); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("there is no token %q", o.Token)
}

func TestPKCS11SeveralAtOnce(t *testing.T) {
	s := source(t, "main", "p256")
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	other := source(t, "main", "rsa")
	second, err := keys.Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		for _, k := range []*keys.Key{key, second} {
			all.Go(func() {
				for range 25 {
					if _, err := k.Sign(t.Context(), []byte("payload")); err != nil { // verified by Sign
						t.Errorf("Sign: %v", err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	// Closing one key leaves the other of the same token alone.
	closeKey(t, key)
	closeKey(t, key)
	if _, err := key.Sign(t.Context(), []byte("payload")); err == nil {
		t.Error("a closed key signs")
	}
	wantSigns(t, second, rawKeys()["rsa"].Public())
	closeKey(t, second)
}

func BenchmarkPKCS11(b *testing.B) {
	h, err := softHSM()
	if err != nil || h.skip != "" {
		b.Skip(h.skip, err)
	}
	path := filepath.Join(b.TempDir(), "pin")
	write(b, path, []byte(pin), 0)
	for _, limit := range []int{1, 4, 16} {
		key, err := keys.Open(b.Context(), keys.Source{MaxCalls: limit, PKCS11: keys.PKCS11Options{Module: h.module, Token: "main", Label: "p256", PINFile: path}})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("at most %d", limit), func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := key.Sign(b.Context(), []byte("payload")); err != nil {
						b.Error(err)
					}
				}
			})
		})
		closeKey(b, key)
	}
}
