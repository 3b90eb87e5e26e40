//go:build !no_hashivault

package signer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
)

// load makes a configuration with these keys, beside a token and whatever files the test made in dir.
func load(t *testing.T, dir, keys string) *config.Signer {
	t.Helper()
	const rest = `
harbor: {url: "http://127.0.0.1:1", username: robot, secret_file: robot}
queue: {urls: ["nats://127.0.0.1:1"]}
sign: {key: a}
keys:
`
	path := filepath.Join(dir, "signer.yaml")
	for file, content := range map[string]string{"token": "hvs.hunter2\n", "robot": "secret\n", "signer.yaml": rest + keys} { //nolint:gosec // of the stand-in
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.LoadSigner(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// vault stands in for a transit engine with one key, called k.
func vault(t *testing.T) (server *httptest.Server, public []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	reply := func(w http.ResponseWriter, data any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string]any{"data": data}); err != nil {
			t.Errorf("answering as Vault: %v", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/transit/keys/k", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"type": "ecdsa-p256", "latest_version": 1, "keys": map[string]any{"1": map[string]any{"public_key": string(public)}}})
	})
	mux.HandleFunc("PUT /v1/transit/sign/k/sha2-256", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Input []byte }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Errorf("what was to be signed: %v", err)
		}
		signature, err := ecdsa.SignASN1(rand.Reader, key, in.Input)
		if err != nil {
			t.Errorf("signing as Vault: %v", err)
		}
		reply(w, map[string]any{"signature": "vault:v1:" + base64.StdEncoding.EncodeToString(signature)})
	})
	server = httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server, public
}

func TestPublicKeyOfAKMS(t *testing.T) {
	server, public := vault(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "k.pub"), public, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := load(t, dir, fmt.Sprintf(`
  - {name: a, kms: "hashivault://k", vault: {address: %[1]q, token_file: token}}
  - {name: pinned, kms: "hashivault://k", vault: {address: %[1]q, token_file: token}, public_key_file: k.pub}
  - {name: away, kms: "hashivault://k", vault: {address: "http://127.0.0.1:1", token_file: token}, public_key_file: k.pub}
`, server.URL))
	for _, name := range []string{"a", "pinned"} {
		got, err := signer.PublicKey(t.Context(), cfg, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(got.PEM()) != string(public) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.PEM(), public)
		}
	}
	// The file of a key that nobody has seen proves nothing.
	if got, err := signer.PublicKey(t.Context(), cfg, "away"); err == nil || !got.IsZero() || strings.Count(err.Error(), `key "away"`) != 1 {
		t.Errorf("away: got the key %q and error %v, want none and an error that names it once", got.ID(), err)
	}
}

// TestKeysAreOpenedTogether has a Vault that answers nobody before every key has asked: it is waited for once, not once
// for each key.
func TestKeysAreOpenedTogether(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	var mu sync.Mutex
	asked := make(map[string]bool)
	all := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if !asked[r.URL.Path] {
			asked[r.URL.Path] = true
			if len(asked) == len(names) {
				close(all)
			}
		}
		mu.Unlock()
		select {
		case <-all:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	var keys strings.Builder
	for _, name := range names {
		fmt.Fprintf(&keys, "  - {name: %s, kms: 'hashivault://%[1]s', vault: {address: %q, token_file: token}, timeout: 5s}\n", name, server.URL)
	}
	keys.WriteString("  - {name: e, state: revoked, public_key_file: none.pub}\n  - {name: f, file: none.key}\n")
	cfg := load(t, t.TempDir(), keys.String())
	err := signer.Check(t.Context(), cfg)
	if err == nil {
		t.Fatal("got no error of a Vault that refuses")
	}
	if got := strings.Count(err.Error(), "403 from Vault"); got != len(names) {
		t.Errorf("got %d answers of Vault, want %d: %v", got, len(names), err)
	}
	// All that is wrong is told in the order of the configuration, each under its name.
	last := -1
	for _, name := range append(names, "e", "f") {
		label := fmt.Sprintf("key %q: ", name)
		if got := strings.Count(err.Error(), label); got != 1 {
			t.Errorf("got %q %d times, want once: %v", label, got, err)
		}
		if at := strings.Index(err.Error(), label); at < last {
			t.Errorf("got the error of key %q too early: %v", name, err)
		} else {
			last = at
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %q holds the token", err)
	}
}
