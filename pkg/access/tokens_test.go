package access_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/harborseal/harborseal/pkg/access"
)

// token is one that somebody made by hand, before there were prefixes.
const token = "6b3f0b1e8d5a4c2799e1c0ffee123456" //nolint:gosec // of these tests alone

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func (d door) want(t *testing.T, token, verdict string) {
	t.Helper()
	if got := d.try(t, bearer(token), here); got != verdict {
		t.Errorf("token %.4s…: %s, want %s", token, got, verdict)
	}
}

func TestTokensAreReadAgain(t *testing.T) {
	const other = "0123456789abcdef0123456789abcdef"
	d := open(t, "# auditors\n\nbob:"+hashed(token)+"\n")
	d.want(t, token, "in")
	d.want(t, other, "wrong")

	// Same length, written within the same tick of the file system's clock.
	before, err := os.Stat(d.tokens)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.tokens, "# auditors\n\nann:"+hashed(other)+"\n")
	if err := os.Chtimes(d.tokens, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	d.want(t, token, "wrong")
	d.want(t, other, "in")

	// Two tokens of one name, in a file that replaces the other, and an old one at that.
	write(t, d.tokens+"2", "ann:"+hashed(token)+"\r\n  ann:"+strings.ToUpper(hashed(other))+"  ")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(d.tokens+"2", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.tokens+"2", d.tokens); err != nil {
		t.Fatal(err)
	}
	d.want(t, token, "in")
	d.want(t, other, "in")

	// Another file of the same size and time in its place.
	write(t, d.tokens+"3", "ann:"+hashed(token)+"\r\n  ann:"+strings.ToUpper(hashed("x"))+"  ")
	if err := os.Chtimes(d.tokens+"3", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.tokens+"3", d.tokens); err != nil {
		t.Fatal(err)
	}
	d.want(t, other, "wrong")

	// Only what a token may do has changed.
	write(t, d.tokens, "ann:"+hashed(token))
	d.want(t, token, "in")
	d.log.Reset()
	write(t, d.tokens, "ann:"+hashed(token)+":change")
	if may, err := d.Can(t.Context(), d.enter(t, bearer(token)), access.Change, "demo"); err != nil || !may {
		t.Errorf("with a new scope: %t, %v; want that it may change", may, err)
	}
	if !strings.Contains(d.log.String(), "read again") {
		t.Errorf("log %q, want that the file was read again", d.log)
	}

	// A slip of the editor, and a file that is away: the tokens of before stay.
	d.log.Reset()
	write(t, d.tokens, "ann:"+token)
	d.want(t, token, "in")
	if err := os.Remove(d.tokens); err != nil {
		t.Fatal(err)
	}
	d.want(t, token, "in")
	if got := strings.Count(d.log.String(), `"level":"error"`); got != 1 || !strings.Contains(d.log.String(), "line 1") {
		t.Errorf("log %q has %d errors, want one that names the line", d.log, got)
	}

	// An empty file lets nobody in.
	write(t, d.tokens, "# nobody\n")
	d.want(t, token, "wrong")
	d.want(t, "", "wrong")
	d.want(t, hashed(token), "wrong")
}

func TestTokensFileRefused(t *testing.T) {
	tests := []struct{ name, content, says string }{
		{"no colon", "x:" + hashed(token) + "\n" + hashed(token), "line 2"},
		{"no name", ":" + hashed(token), "line 1"},
		{"name with a space", "a b:" + hashed(token), "line 1"},
		{"long name", strings.Repeat("a", 65) + ":" + hashed(token), "line 1"},
		{"the token itself", "ann:" + token, "SHA-256"},
		{"no hexadecimal", "ann:" + strings.Repeat("x", 64), "SHA-256"},
		{"comment behind", "ann:" + hashed(token) + " # ann", "SHA-256"},
		{"large", strings.Repeat("#\n", 1<<20), "bytes"},
		{"empty scope", "ann:" + hashed(token) + ":", "scope"},
		{"unknown scope", "ann:" + hashed(token) + ":admin", "scope"},
		{"the token as its scope", "ann:" + hashed(token) + ":" + token, "scope"},
		{"empty projects", "ann:" + hashed(token) + ":read:", "projects"},
		{"one empty project", "ann:" + hashed(token) + ":read:a||b", "projects"},
		{"a glob that is none", "ann:" + hashed(token) + ":read:demo|[a", "projects"},
		{"a blank in a project", "ann:" + hashed(token) + ":read:a | b", "projects"},
		{"a repository", "ann:" + hashed(token) + ":read:demo/app", "projects"},
		{"empty expires", "ann:" + hashed(token) + ":read:*:", "2026-01-31"},
		{"no day", "ann:" + hashed(token) + ":read:*:2026-02-30", "2026-01-31"},
		{"no zone", "ann:" + hashed(token) + ":read:*:2026-01-31T12:00:00", "2026-01-31"},
		{"zero time", "ann:" + hashed(token) + ":read:*:0001-01-01T00:00:00Z", "2026-01-31"},
		{"a field too many", "ann:" + hashed(token) + ":read:*:2026-01-31:x", "2026-01-31"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir() + "/tokens"
			write(t, path, tt.content)
			_, err := access.New(access.Config{TokensFile: path})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("New: error %v, want one with %q", err, tt.says)
			}
			for _, secret := range []string{token, hashed(token)} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("New: error %v repeats the file", err)
				}
			}
		})
	}
}

func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01T00:00:00Z
		d := open(t, strings.Join([]string{
			"day:" + hashed("day") + ":read:*:2000-01-01",
			"time:" + hashed("time") + ":change:demo:2000-01-01T14:00:00+02:00",
			"early:" + hashed("two") + ":change:*:2000-01-01T01:00:00Z",
			"late:" + hashed("two") + ":read:demo:2000-01-03",
			"gone:" + hashed("gone") + ":read:*:1999-12-31",
		}, "\n"))
		d.want(t, "day", "in")
		d.want(t, "time", "in")
		d.want(t, "gone", "wrong")
		two := func() (change bool) {
			t.Helper()
			change, err := d.Can(t.Context(), d.enter(t, bearer("two")), access.Change, "app")
			if err != nil {
				t.Fatal(err)
			}
			return change
		}
		if !two() {
			t.Error("two lines of one token: the second counts, want the first")
		}
		time.Sleep(time.Hour)
		if two() {
			t.Error("two lines of one token: the first counts after its time, want the second")
		}
		time.Sleep(11*time.Hour - time.Nanosecond)
		d.want(t, "time", "in")
		time.Sleep(time.Nanosecond)
		_, err := d.Authenticate(t.Context(), bearer("time"), here)
		if !errors.Is(err, access.ErrUnauthenticated) || !strings.Contains(err.Error(), "the token time has expired at 2000-01-01T12:00:00Z") {
			t.Errorf("after its time: %v, want an ErrUnauthenticated that says so", err)
		}
		time.Sleep(12*time.Hour - time.Nanosecond)
		d.want(t, "day", "in")
		time.Sleep(time.Nanosecond)
		d.want(t, "day", "wrong")
	})
}

func TestTokensThatExpireSoonAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, "never:"+hashed("never")+"\nlater:"+hashed("later")+":read:*:2000-01-16\nsoon:"+hashed("soon")+":read:*:2000-01-14\npast:"+hashed("past")+":read:*:1999-12-30")
		logged := func() (got []string) {
			for line := range strings.Lines(d.log.String()) {
				if strings.Contains(line, `"level":"warn"`) {
					_, rest, _ := strings.Cut(line, `"token":"`)
					name, _, _ := strings.Cut(rest, `"`)
					got = append(got, name)
				}
			}
			d.log.Reset()
			return got
		}
		if got := logged(); !slices.Equal(got, []string{"soon", "past"}) {
			t.Errorf("at the start: %q, want soon and past", got)
		}
		time.Sleep(24*time.Hour - time.Second)
		d.want(t, "never", "in")
		if got := logged(); len(got) != 0 {
			t.Errorf("on the same day: %q, want nothing", got)
		}
		time.Sleep(48 * time.Hour)
		d.want(t, "never", "in")
		d.want(t, "never", "in")
		if got := logged(); !slices.Equal(got, []string{"later", "soon", "past"}) {
			t.Errorf("two days later: %q, want all of them once", got)
		}
		write(t, d.tokens, "never:"+hashed("never")+"\nnew:"+hashed("new")+":read:*:2000-01-10")
		d.want(t, "never", "in")
		if got := logged(); !slices.Equal(got, []string{"new"}) {
			t.Errorf("with a new file: %q, want new", got)
		}
	})
}

// TestNewToken makes tokens for all kinds of names: the line of each that is made must be taken, and its token let in.
func TestNewToken(t *testing.T) {
	var file strings.Builder
	var made []string
	for _, name := range []string{"a", "ann@example.com", "ci.pipeline_2-x", "@", strings.Repeat("z", 64)} {
		token, line, err := access.NewToken(name)
		if err != nil {
			t.Fatalf("NewToken(%q): %v", name, err)
		}
		if line != name+":"+hashed(token) || len(token) < 64 || slices.Contains(made, token) || !strings.HasPrefix(token, "hs_") {
			t.Errorf("NewToken(%q) = %q, %q; want a new token and the line of its hash", name, token, line)
		}
		made = append(made, token)
		file.WriteString(line + "\n")
	}
	d := open(t, file.String())
	for _, token := range made {
		d.want(t, token, "in")
	}
	for _, name := range []string{"", "a b", "a:b", "#a", "é", "a\nb", strings.Repeat("z", 65)} {
		if token, line, err := access.NewToken(name); err == nil || token != "" || line != "" {
			t.Errorf("NewToken(%q) = %q, %q, %v; want an error alone", name, token, line, err)
		}
	}
}

// TestTokensAreNotSlowedDown: nobody guesses 256 bits, and a wrong token in a pipeline must not keep others out.
func TestTokensAreNotSlowedDown(t *testing.T) {
	d := open(t, "ci:"+hashed(token))
	for range 100 {
		d.want(t, "hs_0", "wrong")
	}
	d.want(t, token, "in")
	if got := d.try(t, basic("ann", "p"), here); got != "in" {
		t.Errorf("an account from there: %s, want in", got)
	}
}
