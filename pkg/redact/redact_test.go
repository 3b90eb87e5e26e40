package redact_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/redact"
)

func TestText(t *testing.T) {
	const secret = `p&ss "wörd"/é` //nolint:gosec // of this test alone
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		limit      int
		want       string
	}{
		{"nothing to do", "bad header", 100, "bad header"},
		{"empty", "", 100, ""},
		{"plain", "bad header " + secret + "!", 100, "bad header [secret]!"},
		{"twice", secret + secret, 100, "[secret][secret]"},
		{"in a query", "GET /?x=" + url.QueryEscape(secret), 100, "GET /?x=[secret]"},
		{"in a path", "GET /" + url.PathEscape(secret), 100, "GET /[secret]"},
		{"in JSON", string(quoted), 100, `"[secret]"`},
		{"in a quoted string", fmt.Sprintf("%q", secret), 100, `"[secret]"`},
		{"in a quoted string of ASCII", fmt.Sprintf("%+q", secret), 100, `"[secret]"`},
		{"in an error of package time", parsing(secret), 100, `parsing time "[secret]" as "2006": cannot parse "[secret]" as "2006"`},
		{"torn by invalid bytes", "p&ss\xff\"wörd\"/é", 100, "[secret]"},
		{"the shorter is a part of the longer", "token-of-robot", 100, "[secret]"},
		{"the shorter alone", "a token", 100, "a [secret]"},
		{"control characters", "\x1b[31mred\x00\r\n\u0085\u2028x\x7f", 100, "[31mred x"},
		{"cut off", "0123456789", 4, "0123…"},
		{"cut off within a character", "012é", 4, "012…"},
		{"no part of a secret stays at the cut", "x " + secret, 6, "x [sec…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := redact.New(secret, "", "token", "token-of-robot").Text(tt.text, tt.limit); got != tt.want {
				t.Errorf("Text(%q) = %q, want %q", tt.text, got, tt.want)
			}
		})
	}
	if got := new(redact.Redactor).Text("a token", 100); got != "a token" {
		t.Errorf("the zero value gives %q, want the text", got)
	}
}

func parsing(text string) string {
	_, err := time.Parse("2006", text)
	return err.Error()
}

func TestWithLeavesTheOther(t *testing.T) {
	one := redact.New("first")
	two := one.With("second")
	if got := one.Text("first second", 100); got != "[secret] second" {
		t.Errorf("the first gives %q after With, want it unchanged", got)
	}
	if got := two.Text("first second", 100); got != "[secret] [secret]" {
		t.Errorf("With gives %q, want both secrets away", got)
	}
}

func TestError(t *testing.T) {
	err := redact.New("hunter2").Error(fmt.Errorf("hunter2\n: %w", io.EOF), 100)
	if err.Error() != "[secret] : EOF" || !errors.Is(err, io.EOF) {
		t.Errorf("Error() = %q, want the clean text, and io.EOF beneath it", err)
	}
}

// TestNothingShows mixes secrets with text that is made to hide them.
func TestNothingShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[a-z]{3}[ -~]{0,3}[0-9]{3}`).Draw(t, "secret")
		pieces := rapid.SliceOfN(rapid.SampledFrom([]string{
			secret, url.QueryEscape(secret), secret[:3], secret[3:], " ", "\x00", "\xff", "\xc3", "\u0085", "{", "secret", "é",
		}), 0, 12).Draw(t, "pieces")
		limit := rapid.IntRange(0, 60).Draw(t, "limit")
		got := redact.New(secret).Text(strings.Join(pieces, ""), limit)
		if strings.Contains(got, secret) || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || len(got) > limit+len("…") {
			t.Fatalf("Text(%q, %d) = %q with the secret %q", pieces, limit, got, secret)
		}
	})
}
