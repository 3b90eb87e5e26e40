//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// The report answers each kind of question, page by page, and only to who may ask.
func TestReport(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	start := time.Now().UTC()
	for i := range 5 {
		w.pushImage(t, "app", fmt.Sprintf("v%d", i))
	}
	nested := w.pushImage(t, "team/api", "v1")
	w.awaitAll(t)
	report := w.Report()

	t.Run("pages", func(t *testing.T) {
		for _, limit := range []string{"1", "2", "6", "100"} {
			rows, err := report.Rows(ctx, url.Values{"limit": {limit}})
			if err != nil {
				t.Fatal(err)
			}
			digests := make(map[string]bool)
			for _, row := range rows {
				digests[row.Digest] = true
			}
			if len(rows) != len(w.pushed) || len(digests) != len(w.pushed) {
				t.Errorf("in pages of %s, %d rows of %d digests come, want %d", limit, len(rows), len(digests), len(w.pushed))
			}
			newestFirst := func(a, b checker.Row) int { return b.FirstSeenAt.Compare(a.FirstSeenAt) }
			if !slices.IsSortedFunc(rows, newestFirst) {
				t.Errorf("in pages of %s, the rows are not newest first", limit)
			}
		}
	})
	for _, tt := range []struct {
		name  string
		query url.Values
		want  int
	}{
		{"project", url.Values{"project": {w.project}}, 6},
		{"another project", url.Values{"project": {"other"}}, 0},
		{"repository", url.Values{"repository": {nested.Repository}}, 1},
		{"repository below its project", url.Values{"project": {w.project}, "repository": {"team/api"}}, 1},
		{"digest", url.Values{"digest": {nested.Digest}}, 1},
		{"beginning of a digest", url.Values{"digest": {nested.Digest[:20]}}, 1},
		{"signed", url.Values{"state": {"signed"}}, 6},
		{"dead", url.Values{"state": {"dead"}}, 0},
		{"since", url.Values{"since": {start.Add(-time.Minute).Format(time.RFC3339)}}, 6},
		{"until", url.Values{"until": {start.Add(-time.Minute).Format(time.RFC3339)}}, 0},
		{"since the future", url.Values{"since": {start.Add(time.Hour).Format(time.RFC3339)}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := report.Rows(ctx, tt.query)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) != tt.want {
				t.Errorf("%d rows come, want %d: %+v", len(rows), tt.want, rows)
			}
		})
	}
	for _, tt := range []struct {
		name, query, token string
		want               int
		field              string
	}{
		{"no token", "", "", 401, ""},
		{"wrong token", "", "wrong", 401, ""},
		{"unknown parameter", "colour=red", w.Token, 400, ""},
		{"unknown state", "state=blue", w.Token, 400, "state"},
		{"bad digest", "digest=sha256:xyz", w.Token, 400, "digest"},
		{"bad time", "since=yesterday", w.Token, 400, "since"},
		{"bad cursor", "cursor=x", w.Token, 400, "cursor"},
		{"limit beyond all bounds", "limit=100000", w.Token, 400, "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/api/v1/signatures?"+tt.query, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if tt.token != "" {
				req.Header.Set("Authorization", "Bearer "+tt.token)
			}
			status, answer := do(t, &http.Client{Transport: &http.Transport{}}, req)
			if status != tt.want {
				t.Fatalf("the answer is %d %v, want %d", status, answer, tt.want)
			}
			if tt.field != "" && answer["field"] != tt.field {
				t.Errorf("the answer names the field %v, want %q", answer["field"], tt.field)
			}
		})
	}
}

// The public keys are open to all, and are those that verify.
func TestKeys(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/api/v1/keys", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // everything was read
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the answer is %d, %v, want 200", resp.StatusCode, err)
	}
	var keys []struct{ ID, Name, State, PEM string }
	if err := json.Unmarshal(raw, &keys); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	file, err := os.ReadFile(w.Keys.Public)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || strings.TrimSpace(keys[0].PEM) != strings.TrimSpace(string(file)) || keys[0].State != "active" {
		t.Fatalf("the keys are %+v, want one active one: %s", keys, file)
	}
	key, err := checker.ParseKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := checker.KeyID(key); err != nil || id != keys[0].ID {
		t.Errorf("the key's id is %q, want %q (%v)", keys[0].ID, id, err)
	}
}

// A configuration that is wrong stops the start, with a reason, before anything is done.
func TestCheckConfig(t *testing.T) {
	for _, program := range []string{"receiver", "signer"} {
		t.Run(program, func(t *testing.T) {
			w := prepareWorld(t)
			p := w.Receiver
			if program == "signer" {
				p = w.Signers[0]
			}
			if out, err := w.CheckConfig(t.Context(), p); err != nil {
				t.Errorf("the good configuration: %v: %s", err, out)
			}
			if program == "signer" {
				if err := os.Chmod(w.Keys.Private, 0o644); err != nil { //nolint:gosec // that it is refused is the point
					t.Fatal(err)
				}
				if out, err := w.CheckConfig(t.Context(), p); err == nil || !strings.Contains(out, "chmod 600") {
					t.Errorf("a key that others may read: %v: %s, want a refusal that says what to do", err, out)
				}
			}
			out, err := w.CheckConfig(t.Context(), p, "HARBORSEAL_LOG_LEVEL=loud", "HARBORSEAL_NO_SUCH_KEY=1")
			if err == nil || !strings.Contains(out, "log.level") || !strings.Contains(out, "HARBORSEAL_NO_SUCH_KEY") {
				t.Errorf("two mistakes: %v: %s, want both named", err, out)
			}
		})
	}
}

// A password or key of the signer is in no log line.
func TestLogsHoldNoSecrets(t *testing.T) {
	w := newWorld(t)
	w.pushImage(t, "app", "v1")
	w.awaitAll(t)
	secrets := []string{w.WebhookAuth, w.Token, w.site.Signer.Secret}
	for _, file := range []string{"image.password", "queue.password"} {
		content, err := os.ReadFile(filepath.Join(w.dir, file)) //nolint:gosec // a file of this test
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimSpace(string(content)))
	}
	for _, p := range append([]*harness.Program{w.Receiver}, w.Signers...) {
		log, err := os.ReadFile(filepath.Join(w.dir, p.Name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if len(log) == 0 {
			t.Errorf("%s logs nothing", p.Name)
		}
		for i, secret := range secrets {
			if strings.Contains(string(log), secret) {
				t.Errorf("secret %d is in the log of %s", i, p.Name)
			}
		}
	}
}
