package harness_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

func TestUntilSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	missing := errors.New("the moon is missing")
	err := harness.Until(t.Context(), 50*time.Millisecond, func(context.Context) error { return missing })
	if !errors.Is(err, missing) {
		t.Errorf("the error is %v, want %v", err, missing)
	}
	calls := 0
	err = harness.Until(t.Context(), time.Minute, func(context.Context) error {
		if calls++; calls < 3 {
			return missing
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("after %d calls the error is %v, want none after 3", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := harness.Until(ctx, time.Minute, func(context.Context) error { return missing }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}

func TestFreePorts(t *testing.T) {
	t.Parallel()
	// So many that some would meet if nothing kept them apart.
	addresses, err := harness.FreePorts(t.Context(), 200)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	if got := len(slices.Compact(slices.Clone(addresses))); got != 200 {
		t.Errorf("%d of 200 ports are different", got)
	}
	var lc net.ListenConfig
	for _, address := range addresses {
		l, err := lc.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatalf("%s is not free: %v", address, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	record := filepath.Join(t.TempDir(), "egress")
	if foreign, err := harness.Foreign(record, nil); err != nil || len(foreign) > 0 {
		t.Errorf("without a record: %q, %v, want nothing", foreign, err)
	}
	lines := `{"address":"harbor.example.com:443"}` + "\n" + `{"address":"rekor.sigstore.dev:443"}` + "\n"
	if err := os.WriteFile(record, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign, err := harness.Foreign(record, []string{"harbor.example.com:443"})
	if want := []string{"rekor.sigstore.dev:443"}; err != nil || !slices.Equal(foreign, want) {
		t.Errorf("foreign are %q, %v, want %q", foreign, err, want)
	}
	if err := os.WriteFile(record, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := harness.Foreign(record, nil); err == nil {
		t.Error("a record that cannot be read is no error")
	}
}

func TestProxyRemembersWhoWasAsked(t *testing.T) {
	t.Parallel()
	proxy, err := harness.StartProxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	if asked := proxy.Asked(); len(asked) > 0 {
		t.Errorf("asked are %q before anybody asked", asked)
	}
	_, address, _ := strings.Cut(proxy.Env()[0], "http://")
	for _, request := range []string{"CONNECT rekor.sigstore.dev:443 HTTP/1.1\r\nHost: rekor.sigstore.dev:443\r\n\r\n", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"} {
		var dialer net.Dialer
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 403" {
			t.Errorf("the answer is %q, %v, want a refusal", answer, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"rekor.sigstore.dev:443", "example.com"}; !slices.Equal(proxy.Asked(), want) {
		t.Errorf("asked are %q, want %q", proxy.Asked(), want)
	}
}

func TestNextPort(t *testing.T) {
	t.Parallel()
	if got, err := harness.NextPort("http://192.0.2.7:8080", 3); err != nil || got != "http://192.0.2.7:8083" {
		t.Errorf("the origin is %q, %v, want http://192.0.2.7:8083", got, err)
	}
	if _, err := harness.NextPort("http://192.0.2.7", 1); err == nil {
		t.Error("an origin without a port is no error")
	}
}

func TestMetricsSum(t *testing.T) {
	t.Parallel()
	m := harness.Metrics{`a{lane="live"}`: 1, `a{lane="bulk"}`: 2, `ab{lane="live"}`: 4, `a`: 8}
	if got := m.Sum("a"); got != 11 {
		t.Errorf("the sum is %v, want 11", got)
	}
	if got := m.Sum("a", `lane="live"`); got != 1 {
		t.Errorf("the sum of lane live is %v, want 1", got)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	launch := func(script string) *harness.Process {
		t.Helper()
		p, err := harness.Launch(t.Context(), harness.Command{
			Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: filepath.Join(dir, "log"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Run("that ends well", func(t *testing.T) {
		p := launch(`trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done`)
		if err := harness.Until(t.Context(), 10*time.Second, func(context.Context) error {
			if !strings.Contains(p.Tail(), "ready") {
				return errors.New("it has said nothing")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !p.Running() {
			t.Error("it does not run")
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if p.Running() || p.Killed() {
			t.Error("it still runs, or was killed")
		}
	})
	t.Run("that ends badly", func(t *testing.T) {
		p := launch(`trap 'exit 3' TERM; echo trapped; while :; do sleep 0.02; done`)
		if err := harness.Until(t.Context(), 10*time.Second, func(context.Context) error {
			if !strings.Contains(p.Tail(), "trapped") {
				return errors.New("it has said nothing")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := p.Stop(); err == nil {
			t.Error("status 3 is no error")
		}
	})
	t.Run("that is killed", func(t *testing.T) {
		p := launch(`while :; do sleep 0.02; done`)
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if !p.Killed() {
			t.Error("it was not killed")
		}
	})
}

func TestBundles(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"v2.15.2-080b0220": true, "v2.15.0": true, "v2.14.1-d8a8a0a1": false, "v2.8.0": false, "2.16.0": true, "v3.0.0": true, "v1.30.0": false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); r.URL.Path != "/api/v2.0/systeminfo" || user != "admin" || password != "secret" {
				http.NotFound(w, r)
				return
			}
			_, _ = fmt.Fprintf(w, `{"auth_mode":"db_auth","harbor_version":%q}`, version)
		}))
		h, err := harness.NewHarbor(server.URL, "admin", "secret", false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Bundles(t.Context()); err != nil || got != want {
			t.Errorf("%s takes bundles: got %v, %v, want %v", version, got, err, want)
		}
		server.Close()
	}
}

func TestVaultIsNeverAlike(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	vault, err := harness.StartVault(t.Context(), dir, "images")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vault.Close(); err != nil {
			t.Error(err)
		}
	})
	token, err := os.ReadFile(filepath.Join(dir, "images.token")) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	sign := func(token string) (int, []byte) {
		t.Helper()
		body := strings.NewReader(`{"input":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `","prehashed":true}`)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+vault.Key.Address+"/v1/transit/sign/images/sha2-256", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // everything was read
		var answer struct{ Data struct{ Signature string } }
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(answer.Data.Signature, "vault:v1:"))
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, raw
	}
	if status, _ := sign("wrong"); status != http.StatusForbidden {
		t.Errorf("with a wrong token the answer is %d, want 403", status)
	}
	_, first := sign(strings.TrimSpace(string(token)))
	_, second := sign(strings.TrimSpace(string(token)))
	if bytes.Equal(first, second) {
		t.Error("two signatures are alike")
	}
	if got := vault.Alike(second); len(got) != 2 || !bytes.Equal(got[0], first) {
		t.Errorf("signatures over the same: got %d, want 2, the first one first", len(got))
	}
	if got := vault.Alike([]byte("another")); got != nil {
		t.Errorf("signatures like one of others: got %d, want none", len(got))
	}
}
