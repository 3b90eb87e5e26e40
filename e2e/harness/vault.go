package harness

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Vault stands in for a server of HashiCorp Vault with one key in its transit engine. As there, no two signatures of the key
// are alike. It is safe for concurrent use.
//
// SPEC: Vault HTTP API, Transit secrets engine: Read Key, Sign Data.
type Vault struct {
	// Key is how a system uses the key.
	Key Key

	private *ecdsa.PrivateKey
	public  string
	token   string
	server  *http.Server

	mu sync.Mutex
	// made are the signatures of each hash, in the order in which they were made; guarded by mu.
	made map[string][][]byte
}

// StartVault starts the stand-in, with the files that a system needs for it in dir.
func StartVault(ctx context.Context, dir, name string) (*Vault, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("starting Vault: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("starting Vault: %w", err)
	}
	v := &Vault{
		private: private, public: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
		token: rand.Text(), made: make(map[string][][]byte),
	}
	public, token := filepath.Join(dir, name+".pub"), filepath.Join(dir, name+".token")
	for path, content := range map[string]string{public: v.public, token: v.token + "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("starting Vault: %w", err)
		}
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting Vault: %w", err)
	}
	v.Key = Key{
		Name: name, Public: public, Address: listener.Addr().String(),
		Source: Config{"kms": "hashivault://" + name, "vault": Config{"address": "http://" + listener.Addr().String(), "token_file": token}},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/transit/keys/"+name, v.allowed(v.readKey))
	mux.HandleFunc("PUT /v1/transit/sign/"+name+"/sha2-256", v.allowed(v.sign))
	v.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = v.server.Serve(listener) }() // Ends with Close.
	return v, nil
}

// Close ends the stand-in.
func (v *Vault) Close() error { return wrap("stopping Vault", v.server.Close()) }

// Alike gives all signatures over the hash over which this one was made, in the order in which they were made; nil if it was
// not made here.
func (v *Vault) Alike(signature []byte) [][]byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, all := range v.made {
		if slices.ContainsFunc(all, func(one []byte) bool { return bytes.Equal(one, signature) }) {
			return slices.Clone(all)
		}
	}
	return nil
}

// allowed asks for the token first.
func (v *Vault) allowed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != v.token {
			http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

func (v *Vault) readKey(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"type": "ecdsa-p256", "latest_version": 1,
		"keys": map[string]any{"1": map[string]any{"name": "P-256", "public_key": v.public, "creation_time": "2026-01-31T12:00:00Z"}},
	})
}

func (v *Vault) sign(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Input     []byte `json:"input"`
		Prehashed bool   `json:"prehashed"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || !in.Prehashed {
		http.Error(w, `{"errors":["invalid input"]}`, http.StatusBadRequest)
		return
	}
	signature, err := ecdsa.SignASN1(rand.Reader, v.private, in.Input)
	if err != nil {
		http.Error(w, `{"errors":["1 error occurred"]}`, http.StatusInternalServerError)
		return
	}
	v.mu.Lock()
	hash := hex.EncodeToString(in.Input)
	v.made[hash] = append(v.made[hash], signature)
	v.mu.Unlock()
	answer(w, map[string]any{"key_version": 1, "signature": "vault:v1:" + base64.StdEncoding.EncodeToString(signature)})
}

func answer(w http.ResponseWriter, data any) {
	raw, err := json.Marshal(map[string]any{"request_id": "1", "data": data})
	if err != nil {
		http.Error(w, `{"errors":["1 error occurred"]}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // Nobody can be told.
}
