package fulcio_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/sigstore/fulcio"
)

func readFile(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // a file of the test
	if err != nil {
		tb.Fatal(err)
	}
	return string(content)
}

// The token is read for each certificate, and so is the one that Kubernetes has put there by changing a link.
func TestTokenIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		dir := t.TempDir()
		first, second := tokenUntil(time.Now().Add(time.Hour)), tokenUntil(time.Now().Add(2*time.Hour))
		for name, content := range map[string]string{"..1": first, "..2": second} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, "token"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		point := func(to string) {
			next := filepath.Join(dir, "..data_tmp")
			if err := os.Symlink(to, next); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		point("..1")
		cfg := s.config()
		cfg.TokenFile = filepath.Join(dir, "token")
		if err := os.Symlink(filepath.Join("..data", "token"), cfg.TokenFile); err != nil {
			t.Fatal(err)
		}
		i := newIdentity(t, cfg)
		sign(t, i)
		if want := time.Now().Add(time.Hour); !i.TokenExpires().Equal(want) {
			t.Errorf("TokenExpires() = %s, want %s", i.TokenExpires(), want)
		}
		point("..2")
		if want := time.Now().Add(2 * time.Hour); !i.TokenExpires().Equal(want) {
			t.Errorf("after a change TokenExpires() = %s, want %s", i.TokenExpires(), want)
		}
		after(life / 2)
		sign(t, i)
		after(0)
		if len(s.tokens) != 2 || s.tokens[0] != first || s.tokens[1] != second {
			t.Errorf("%d requests did not have the token of their time", len(s.tokens))
		}
	})
}

// Without a token that could be shown nobody is asked; as soon as there is one, it works.
func TestNoToken(t *testing.T) {
	good := tokenUntil(time.Now().Add(time.Hour))
	expired := tokenUntil(time.Now().Add(-time.Second))
	for _, tt := range []struct{ name, content string }{
		{"empty", ""},
		{"blank", " \n"},
		{"no token", "hello"},
		{"two parts", good[:strings.LastIndex(good, ".")]},
		{"not Base64", strings.Replace(good, ".", ".!", 1)},
		{"a line break within", strings.Replace(good, ".", ".\n", 1)},
		{"claims that are none", tokenOf("[]")},
		{"no end", tokenOf(`{"sub":"x"}`)},
		{"an end that is none", tokenOf(`{"exp":"tomorrow"}`)},
		{"an end before all time", tokenOf(`{"exp":-1}`)},
		{"an end after all time", tokenOf(`{"exp":1e300}`)},
		{"expired", expired},
		{"too long", strings.Repeat("a", 65<<10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.writeToken(tt.content)
			i := newIdentity(t, s.config())
			_, err := i.Sign(t.Context(), message)
			if got := fault.Of(err); err == nil || got.Kind != fault.Transient || got.Reason != fault.IdentityMissing {
				t.Fatalf("Sign: %v, want a transient %s", err, fault.IdentityMissing)
			}
			if content := strings.TrimSpace(tt.content); content != "" && strings.Contains(err.Error(), content) {
				t.Errorf("Sign repeats the token: %v", err)
			}
			if s.requests() != 0 {
				t.Errorf("%d requests were made, want none", s.requests())
			}
			if got := i.TokenExpires(); tt.content != expired && !got.IsZero() {
				t.Errorf("TokenExpires() = %s, want none", got)
			}
			s.writeToken(good + "\n")
			sign(t, i)
		})
	}
	s := newServer(t)
	if err := os.Remove(s.tokenFile); err != nil {
		t.Fatal(err)
	}
	if _, err := newIdentity(t, s.config()).Sign(t.Context(), message); err == nil || fault.Of(err).Reason != fault.IdentityMissing {
		t.Errorf("without a file Sign: %v, want %s", err, fault.IdentityMissing)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(tokenOf(`{"exp":1893456000}`))
	f.Add(tokenOf(`{"exp":1893456000.5}`))
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		at, err := fulcio.TokenExpiry(raw)
		if err == nil && (at.Before(time.Unix(0, 0)) || strings.ContainsAny(raw, "\r\n ")) {
			t.Errorf("%q is a token that expires at %s", raw, at)
		}
	})
}
