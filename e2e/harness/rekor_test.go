//go:build e2e

package harness_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// TestRekor starts the real servers, where they are built, ends them in the middle, and starts them again.
func TestRekor(t *testing.T) {
	for _, tt := range []struct {
		name     string
		variable string
		start    func(context.Context, string) (*harness.Rekor, error)
		path     string
	}{
		{"v1", harness.EnvRekor, harness.StartRekorV1, "/api/v1/log"},
		{"v2", harness.EnvRekorTiles, func(ctx context.Context, dir string) (*harness.Rekor, error) {
			return harness.StartRekorV2(ctx, dir, harness.RekorOptions{})
		}, "/checkpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getenv(tt.variable) == "" {
				t.Skipf("%s is not set", tt.variable)
			}
			began := time.Now()
			r, err := tt.start(t.Context(), t.TempDir())
			if err != nil {
				t.Fatalf("starting: %v", err)
			}
			t.Cleanup(func() {
				if err := r.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			t.Logf("it answers %s after its start", time.Since(began).Round(time.Millisecond))
			at := r.URL
			if r.TilesURL != "" {
				at = r.TilesURL
			}
			before := origin(t, at+tt.path)
			if err := r.Stop(); err != nil {
				t.Fatalf("Stop: %v", err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatalf("Start: %v", err)
			}
			if after := origin(t, at+tt.path); before == "" || after != before {
				t.Errorf("the restarted log is %q, want %q", after, before)
			}
			if pem, err := os.ReadFile(r.PublicKey); err != nil || !strings.Contains(string(pem), "PUBLIC KEY") {
				t.Errorf("the public key is %q (%v), want a PEM file", pem, err)
			}
		})
	}
}

// origin gives the first line of a log's checkpoint.
func origin(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatalf("asking %s: %v", url, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("asking %s: %v", url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("asking %s: %v", url, err)
	}
	var info struct {
		SignedTreeHead string `json:"signedTreeHead"`
	}
	text := string(raw)
	if json.Unmarshal(raw, &info) == nil {
		text = info.SignedTreeHead
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}
