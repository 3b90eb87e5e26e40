package printable_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
	"github.com/harborseal/harborseal/pkg/printable"
)

// unprintable gives the first character that does something but print; empty if there is none.
func unprintable(text string, allowed string) string {
	for i, r := range text {
		if !utf8.ValidString(text[i:]) && r == utf8.RuneError {
			return "a byte that is no text"
		}
		if !unicode.IsPrint(r) && !strings.ContainsRune(allowed, r) {
			return string(r)
		}
	}
	return ""
}

func TestJSONStaysTheSameDocument(t *testing.T) {
	t.Parallel()
	texts := append(ledgertest.HostileTexts(), "\u009b31m", "\u2066\u2069", "\U000e0041", "größe 图像 ✓ 🎉", "\u00a0", "\x7f")
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.MapOf(rapid.OneOf(rapid.String(), rapid.SampledFrom(texts)), rapid.OneOf(rapid.String(), rapid.SampledFrom(texts))).Draw(t, "value")
		raw, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got := printable.JSON(raw)
		if bad := unprintable(string(got), "\n"); bad != "" {
			t.Fatalf("%q has %q", got, bad)
		}
		var before, after map[string]string
		if err := errors.Join(json.Unmarshal(raw, &before), json.Unmarshal(got, &after)); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if len(before) != len(after) {
			t.Fatalf("%s has become %s", raw, got)
		}
		for name, text := range before {
			if after[name] != text {
				t.Fatalf("%q has become %q", text, after[name])
			}
		}
	})
}

func TestWhatPrintsStays(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", `{"a":"plain"}` + "\n", `{"a":"größe 图像 ✓ 🎉"}`} {
		if got := string(printable.JSON([]byte(text))); got != text {
			t.Errorf("%q has become %q", text, got)
		}
	}
}

// lines keeps what each Write was.
type lines struct {
	all []string
	err error
}

func (l *lines) Write(p []byte) (int, error) {
	l.all = append(l.all, string(p))
	return len(p), l.err
}

func TestLog(t *testing.T) {
	t.Parallel()
	out := &lines{}
	w := printable.Log(out)
	line := "\x1b[31mERR\x1b[0m tag=\u009b31m\u202e\xff\r\t\n"
	if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
		t.Errorf("Write gives %d, %v; want %d and no error", n, err, len(line))
	}
	if want := "\x1b[31mERR\x1b[0m tag=" + `\u009b31m\u202e\ufffd\u000d\u0009` + "\n"; len(out.all) != 1 || out.all[0] != want {
		t.Errorf("written: %q, want %q at once", out.all, want)
	}
	out.err = errors.New("full")
	if _, err := w.Write([]byte("x")); !errors.Is(err, out.err) {
		t.Errorf("Write gives %v, want %v", err, out.err)
	}
	if raw := []byte("{}\n"); !bytes.Equal(printable.JSON(raw), raw) {
		t.Error("plain text has changed")
	}
}
