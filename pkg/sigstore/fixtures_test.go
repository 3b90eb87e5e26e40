package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log" //nolint:depguard // what the in-memory registry takes
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

const (
	password = "correct horse battery staple"
	host     = "harbor.example.com"
	identity = host + "/demo/app"
	digest   = "sha256:8c0583f16169c1819ddd88c00b3b1e05a63489b5d25c4b3150740d580d513b77"
	other    = "sha256:deec5364d333db6a899f614800c3e2c315ecd02255b9539ebff4e3a95c7aef43"
)

// rawKeys are made once: RSA keys take their time.
var rawKeys = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"p256":    must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"second":  must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"p384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ed25519": must(ed, err),
		"rsa":     must(rsa.GenerateKey(rand.Reader, 2048)),
		"p521":    must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"rsa1024": must(rsa.GenerateKey(rand.Reader, 1024)), //nolint:gosec // to be refused
	}
})

// loadedKeys are loaded once: decryption is slow by design.
var loadedKeys = sync.OnceValue(func() map[string]*keys.Key {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	passwordFile := filepath.Join(dir, "password")
	loaded := make(map[string]*keys.Key)
	for _, name := range []string{"p256", "second", "p384", "ed25519", "rsa"} {
		path := filepath.Join(dir, name)
		err := errors.Join(os.WriteFile(path, encryptKey(rawKeys()[name]), 0o600), os.WriteFile(passwordFile, []byte(password+"\n"), 0o600))
		if err == nil {
			loaded[name], err = keys.LoadFile(path, passwordFile)
		}
		if err != nil {
			panic(err)
		}
	}
	return loaded
})

func encryptKey(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return encryptBytes(der)
}

func encryptBytes(plain []byte) []byte {
	data, err := encrypted.Encrypt(plain, []byte(password))
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: data})
}

func newLegacy(tb testing.TB, signer *keys.Key, trusted ...sigstore.TrustedKey) *sigstore.Legacy {
	tb.Helper()
	l, err := sigstore.NewLegacy(sigstore.LegacyConfig{Signer: signer, Trusted: trusted})
	if err != nil {
		tb.Fatalf("NewLegacy: %v", err)
	}
	return l
}

// attach signs and gives the manifest that carries the signature, and its blobs.
func attach(tb testing.TB, l *sigstore.Legacy, existing *artifact.Manifest, identity, digest string) (artifact.Manifest, []artifact.Blob) {
	tb.Helper()
	s, err := l.Sign(tb.Context(), identity, digest)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	m, blobs, err := l.Append(existing, s)
	if err != nil {
		tb.Fatalf("Append: %v", err)
	}
	return m, blobs
}

// noFetch is for cases that must do with the manifest alone.
func noFetch(tb testing.TB) sigstore.Fetch {
	tb.Helper()
	return func(_ context.Context, digest string) ([]byte, error) {
		tb.Errorf("the payload %s was fetched, want it recomputed or ignored", digest)
		return nil, errors.New("not to be fetched")
	}
}

// memoryRegistry is go-containerregistry's registry on loopback.
type memoryRegistry struct {
	t    testing.TB
	host string
}

func newRegistry(tb testing.TB) memoryRegistry {
	tb.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	tb.Cleanup(server.Close)
	return memoryRegistry{t: tb, host: strings.TrimPrefix(server.URL, "http://")}
}

type response struct {
	status   int
	location string
	body     []byte
}

func (r memoryRegistry) do(ctx context.Context, method, url, contentType string, body []byte) response {
	r.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = "http://" + r.host + url
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{status: resp.StatusCode, location: resp.Header.Get("Location"), body: content}
}

func (r memoryRegistry) putBlob(repository string, b artifact.Blob) {
	r.t.Helper()
	start := r.do(r.t.Context(), http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	end := r.do(r.t.Context(), http.MethodPut, start.location+"?digest="+b.Digest, "application/octet-stream", b.Raw)
	if end.status != http.StatusCreated {
		r.t.Fatalf("pushing a blob: status %d, want 201", end.status)
	}
}

func (r memoryRegistry) putManifest(repository, reference string, m artifact.Manifest) {
	r.t.Helper()
	resp := r.do(r.t.Context(), http.MethodPut, "/v2/"+repository+"/manifests/"+reference, m.MediaType, m.Raw)
	if resp.status != http.StatusCreated {
		r.t.Fatalf("putting a manifest: status %d, want 201", resp.status)
	}
}

func (r memoryRegistry) get(ctx context.Context, path string) []byte {
	r.t.Helper()
	resp := r.do(ctx, http.MethodGet, path, "", nil)
	if resp.status != http.StatusOK {
		r.t.Fatalf("GET %s: status %d, want 200", path, resp.status)
	}
	return resp.body
}

// putImage pushes a small image and gives its digest.
func (r memoryRegistry) putImage(repository, tag, content string) string {
	r.t.Helper()
	config := artifact.Blob{Raw: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"created":"` + content + `"}`)}
	config.Digest = artifact.DigestOf(config.Raw)
	r.putBlob(repository, config)
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	raw := mustJSON(r.t, map[string]any{
		"schemaVersion": 2, "mediaType": mediaType, "layers": []any{},
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.Digest, "size": len(config.Raw)},
	})
	r.putManifest(repository, tag, artifact.Manifest{MediaType: mediaType, Raw: raw})
	return artifact.DigestOf(raw)
}

func write(tb testing.TB, path string, data []byte, mode os.FileMode) {
	tb.Helper()
	if mode == 0 {
		mode = 0o600
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		tb.Fatal(err)
	}
}
