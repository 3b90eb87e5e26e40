package api_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/harborseal/harborseal/pkg/api"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/ledger"
)

func (d door) wantStatus(t *testing.T, token string, want int) {
	t.Helper()
	if got := d.get(t, "/api/v1/signatures", with(token)); got.Code != want {
		t.Errorf("token %.4s…: %d %s, want %d", token, got.Code, got.Body, want)
	}
}

func TestTokensAreReadAgain(t *testing.T) {
	const other = "0123456789abcdef0123456789abcdef"
	d := open(t, &report{page: ledger.Page{Items: []ledger.Row{}}})
	d.wantStatus(t, token, http.StatusOK)
	d.wantStatus(t, other, http.StatusUnauthorized)

	// Same length, written within the same tick of the file system's clock.
	before, err := os.Stat(d.tokens)
	if err != nil {
		t.Fatal(err)
	}
	writeTokens(t, d.tokens, "# auditors\n\nann:"+hashed(other)+"\n")
	if err := os.Chtimes(d.tokens, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	d.wantStatus(t, token, http.StatusUnauthorized)
	d.wantStatus(t, other, http.StatusOK)

	// Two tokens of one name, in a file that replaces the other, and an old one at that.
	writeTokens(t, d.tokens+"2", "ann:"+hashed(token)+"\r\n  ann:"+strings.ToUpper(hashed(other))+"  ")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(d.tokens+"2", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.tokens+"2", d.tokens); err != nil {
		t.Fatal(err)
	}
	d.wantStatus(t, token, http.StatusOK)
	d.wantStatus(t, other, http.StatusOK)

	// Another file of the same size and time in its place.
	writeTokens(t, d.tokens+"3", "ann:"+hashed(token)+"\r\n  ann:"+strings.ToUpper(hashed("x"))+"  ")
	if err := os.Chtimes(d.tokens+"3", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.tokens+"3", d.tokens); err != nil {
		t.Fatal(err)
	}
	d.wantStatus(t, other, http.StatusUnauthorized)

	// A slip of the editor, and a file that is away: the tokens of before stay.
	d.log.Reset()
	writeTokens(t, d.tokens, "ann:"+token)
	d.wantStatus(t, token, http.StatusOK)
	if err := os.Remove(d.tokens); err != nil {
		t.Fatal(err)
	}
	d.wantStatus(t, token, http.StatusOK)
	if got := strings.Count(d.log.String(), `"level":"error"`); got != 1 || !strings.Contains(d.log.String(), "line 1") {
		t.Errorf("log %q has %d errors, want one that names the line", d.log, got)
	}

	// An empty file lets nobody in.
	writeTokens(t, d.tokens, "# nobody\n")
	d.wantStatus(t, token, http.StatusUnauthorized)
	d.wantStatus(t, "", http.StatusUnauthorized)
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
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir() + "/tokens"
			writeTokens(t, path, tt.content)
			_, err := api.New(api.Config{Signatures: &report{}, TokensFile: path})
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

// TestNewToken makes tokens for all kinds of names: the line of each that is made must be taken, and its token let in.
func TestNewToken(t *testing.T) {
	d := open(t, &report{page: ledger.Page{Items: []ledger.Row{}}})
	var file strings.Builder
	var made []string
	for _, name := range []string{"a", "ann@example.com", "ci.pipeline_2-x", "@", strings.Repeat("z", 64)} {
		token, line, err := api.NewToken(name)
		if err != nil {
			t.Fatalf("NewToken(%q): %v", name, err)
		}
		if line != name+":"+hashed(token) || len(token) < 64 || slices.Contains(made, token) {
			t.Errorf("NewToken(%q) = %q, %q; want a new token and the line of its hash", name, token, line)
		}
		made = append(made, token)
		file.WriteString(line + "\n")
	}
	writeTokens(t, d.tokens, file.String())
	for _, token := range made {
		d.wantStatus(t, token, http.StatusOK)
	}
	for _, name := range []string{"", "a b", "a:b", "#a", "é", "a\nb", strings.Repeat("z", 65)} {
		if token, line, err := api.NewToken(name); err == nil || token != "" || line != "" {
			t.Errorf("NewToken(%q) = %q, %q, %v; want an error alone", name, token, line, err)
		}
	}
}

// TestNothingSecretLeaves looks for tokens and their hashes in all logs and answers.
func TestNothingSecretLeaves(t *testing.T) {
	const wrong = "fedcba9876543210fedcba9876543210"
	d := open(t, &report{err: fault.Newf(fault.Transient, fault.StorageUnavailable, "down")}, func(cfg *api.Config) {
		cfg.Logger = cfg.Logger.Level(zerolog.TraceLevel)
	})
	var answers strings.Builder
	for _, header := range []http.Header{with(token), with(wrong), {"Authorization": {wrong}}, {"Authorization": {"Bearer " + token, wrong}}} {
		for _, target := range []string{"/api/v1/signatures", "/api/v1/signatures?limit=x", "/api/v1/keys"} {
			rec := d.get(t, target, header)
			answers.WriteString(rec.Body.String())
			if err := rec.Header().Write(&answers); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeTokens(t, d.tokens, "ann:"+hashed(token)+"\n"+token)
	d.get(t, "/api/v1/signatures", with(token))
	if d.log.Len() == 0 {
		t.Error("nothing was logged: the test looks at nothing")
	}
	for _, secret := range []string{token, wrong, hashed(token), hashed(wrong)} {
		if strings.Contains(answers.String(), secret) || strings.Contains(d.log.String(), secret) {
			t.Errorf("%q is in an answer or in the log:\n%s\n%s", secret, answers.String(), d.log)
		}
	}
}
