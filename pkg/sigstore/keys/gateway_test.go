//go:build !no_hashivault

package keys_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

// TestVaultSweepsFolders leaves alone what may be in use.
func TestVaultSweepsFolders(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	leave := func(name string, listening bool, age time.Duration) {
		path := filepath.Join(folder, "harborseal-vault-"+name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(path, "s"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		if !listening { // as a killed process does: the socket's file stays
			unix, ok := listener.(*net.UnixListener)
			if !ok {
				t.Fatalf("got a %T", listener)
			}
			unix.SetUnlinkOnClose(false)
			_ = unix.Close()
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	leave("killed", false, time.Hour)
	leave("starting", false, 0)
	leave("running", true, time.Hour)
	leave("strange", true, time.Hour)
	if err := os.Rename(filepath.Join(folder, "harborseal-vault-strange", "s"), filepath.Join(folder, "harborseal-vault-strange", "other")); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(folder, "harborseal-vault-strange"), then, then); err != nil {
		t.Fatal(err)
	}
	key, err := keys.Open(t.Context(), newVault(t, rawKeys()["p256"]).source(t))
	if err != nil {
		t.Fatal(err)
	}
	closeKey(t, key)
	found, err := filepath.Glob(filepath.Join(folder, "harborseal-vault-*"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range []string{"running", "starting", "strange"} {
		want = append(want, filepath.Join(folder, "harborseal-vault-"+name))
	}
	if !slices.Equal(found, want) {
		t.Errorf("got the folders %q, want %q", found, want)
	}
}

func TestVaultNamesATooLongTMPDIR(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s := newVault(t, rawKeys()["p256"]).source(t)
	t.Setenv("TMPDIR", folder)
	_, err := keys.Open(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "set TMPDIR to a shorter folder") {
		t.Errorf("Open() = %v, want the advice about TMPDIR", err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestVaultLeavesNoFolder(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	v := newVault(t, rawKeys()["p256"])
	s := v.source(t)
	key, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(folder, "harborseal-vault-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("got the folders %q, want one", found)
	}
	if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v (%v), want 0700", info.Mode(), err)
	}
	closeKey(t, key)
	v.breakWith(answerWith(403, `{"errors":["permission denied"]}`))
	if _, err := keys.Open(t.Context(), s); err == nil {
		t.Error("Open() succeeded, want an error")
	}
	s.PublicKeyFile = file(t, string(key.PublicPEM()))
	unproven, err := keys.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	closeKey(t, unproven)
	if found, err := filepath.Glob(filepath.Join(folder, "harborseal-vault-*")); err != nil || len(found) != 0 {
		t.Errorf("the folders %q were left behind (%v)", found, err)
	}
}
