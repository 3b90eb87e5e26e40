//go:build e2e

package harness_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

// restartable is a server that can be ended and started again.
type restartable interface {
	Start(ctx context.Context) error
	Stop() error
}

// TestTSAAndFulcio starts the real servers, where they are built, ends them, and starts them again: they have the same chain.
func TestTSAAndFulcio(t *testing.T) {
	for _, tt := range []struct {
		name, variable string
		// start gives the server, where it tells its chain, and the chain's file.
		start func(t *testing.T) (r restartable, address, file string)
	}{
		{"tsa", harness.EnvTSA, func(t *testing.T) (restartable, string, string) {
			t.Helper()
			a, err := harness.StartTSA(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			return a, a.URL + "/certchain", a.Chain
		}},
		{"fulcio", harness.EnvFulcio, func(t *testing.T) (restartable, string, string) {
			t.Helper()
			f, err := harness.StartFulcio(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			return f, f.URL + "/api/v1/rootCert", f.Chain
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getenv(tt.variable) == "" {
				t.Skipf("%s is not set", tt.variable)
			}
			began := time.Now()
			r, address, file := tt.start(t)
			t.Logf("it answers %s after its start", time.Since(began).Round(time.Millisecond))
			chain, err := os.ReadFile(file) //nolint:gosec // the harness has written it
			if err != nil {
				t.Fatal(err)
			}
			if got := page(t, address); compact(got) != compact(string(chain)) {
				t.Errorf("its chain is\n%s\nwant\n%s", got, chain)
			}
			if err := r.Stop(); err != nil {
				t.Fatalf("Stop: %v", err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatalf("Start: %v", err)
			}
			if got := page(t, address); compact(got) != compact(string(chain)) {
				t.Errorf("after a restart its chain is\n%s\nwant\n%s", got, chain)
			}
		})
	}
}

func page(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v", address, resp.StatusCode, err)
	}
	return string(body)
}

// compact leaves blank lines out.
func compact(text string) string { return strings.Join(strings.Fields(text), "\n") }
