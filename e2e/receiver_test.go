//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/e2e/harness"
)

const jsonType = "application/json"

// delivery is the body of Harbor's report of a push, in its Default format.
func delivery(project, repository, digest, tag string) string {
	return string(harness.Delivery(project, repository, digest, tag))
}

// report tells the receiver of a push, as Harbor would.
func (w *world) report(t *testing.T, p harness.Pushed) {
	t.Helper()
	_, repository, _ := strings.Cut(p.Repository, "/")
	tag := p.Tag
	if tag == "" {
		tag = p.Digest
	}
	status, body := w.post(t, w.project, w.WebhookAuth, jsonType, delivery(w.project, repository, p.Digest, tag))
	if status != http.StatusAccepted {
		t.Fatalf("reporting a push: %d %v, want 202", status, body)
	}
}

// post sends a body to the receiver's webhook address and gives the decoded answer.
func (w *world) post(t *testing.T, project, auth, contentType, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/webhooks/harbor/"+project, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	req.Header.Set("Content-Type", contentType)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return do(t, &http.Client{Transport: transport}, req)
}

func do(t *testing.T, client *http.Client, req *http.Request) (int, map[string]any) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // everything was read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s %s: the type of answer %d is %q, want a problem document", req.Method, req.URL.Path, resp.StatusCode, got)
		}
	}
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s: a 503 names no time to try again", req.Method, req.URL.Path)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil && len(raw) > 0 {
		t.Errorf("%s %s: answer %d is no JSON object: %.200s", req.Method, req.URL.Path, resp.StatusCode, raw)
	}
	return resp.StatusCode, answer
}

// The receiver's answers, over its real listener.
func TestReceiverAnswers(t *testing.T) {
	w := prepareWorld(t)
	if err := w.StartProgram(t.Context(), w.Receiver); err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	good := delivery(w.project, "app", digest, "v1")
	tests := []struct {
		name, project, auth, contentType, body string
		want                                   int
		// key and value are what the answer must say.
		key, value string
	}{
		{"no secret", w.project, "", jsonType, good, 401, "", ""},
		{"wrong secret", w.project, w.WebhookAuth + "x", jsonType, good, 401, "", ""},
		{"wrong secret, too large", w.project, "no", jsonType, strings.Repeat(" ", 300<<10), 401, "", ""},
		{"too large", w.project, w.WebhookAuth, jsonType, good + strings.Repeat(" ", 300<<10), 413, "", ""},
		{"form", w.project, w.WebhookAuth, "application/x-www-form-urlencoded", good, 415, "", ""},
		{"no JSON", w.project, w.WebhookAuth, jsonType, "{", 400, "", ""},
		{"wrong digest", w.project, w.WebhookAuth, jsonType, strings.ReplaceAll(good, digest, "sha256:12"), 400, "field", "event_data.resources[0].digest"},
		{"another project's address", w.project + "-x", w.WebhookAuth, jsonType, good, 400, "field", "event_data.repository.namespace"},
		{"another event", w.project, w.WebhookAuth, jsonType, strings.ReplaceAll(good, "PUSH_ARTIFACT", "PULL_ARTIFACT"), 202, "reason", "not_a_push"},
		{"project that is not enabled", "other", w.WebhookAuth, jsonType, delivery("other", "app", digest, "v1"), 202, "reason", "project_not_enabled"},
		{
			"signature", w.project, w.WebhookAuth, jsonType,
			delivery(w.project, "app", digest, "sha256-"+strings.Repeat("ab", 32)+".sig"), 202, "reason", "accessory",
		},
		{"push", w.project, w.WebhookAuth, jsonType, good, 202, "status", "queued"},
		{"the same push again", w.project, w.WebhookAuth, jsonType, good, 202, "status", "duplicate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := w.post(t, tt.project, tt.auth, tt.contentType, tt.body)
			if status != tt.want {
				t.Fatalf("the answer is %d %v, want %d", status, answer, tt.want)
			}
			if tt.key != "" && answer[tt.key] != tt.value {
				t.Errorf("the answer's %s is %v, want %q: %v", tt.key, answer[tt.key], tt.value, answer)
			}
		})
	}
}

// Webhook secrets are replaced without a gap: both count while both are configured, and changes need no restart.
func TestWebhookSecretRotates(t *testing.T) {
	var second string
	w := newWorld(t, func(o *harness.Options) {
		second = filepath.Join(o.Dir, "webhook2.secret")
		o.EditReceiver = func(c harness.Config) {
			harness.Set(c, []string{filepath.Join(o.Dir, "webhook.secret"), second}, "webhook", "secret_files")
			if err := os.WriteFile(second, []byte("not in use yet\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	w.pushImage(t, "app", "old")
	w.awaitAll(t)
	old, fresh := w.WebhookAuth, "Bearer "+rand.Text()
	replace(t, second, fresh)
	w.webhook.AuthHeader = fresh
	if err := env.harbor.UpdateWebhook(t.Context(), w.webhook); err != nil {
		t.Fatal(err)
	}
	w.pushImage(t, "app", "new")
	w.awaitAll(t)
	body := delivery("other", "app", "sha256:"+strings.Repeat("ab", 32), "v1")
	for _, auth := range []string{old, fresh} {
		if status, _ := w.post(t, "other", auth, jsonType, body); status != http.StatusAccepted {
			t.Errorf("during the change the answer is %d, want 202", status)
		}
	}
	replace(t, filepath.Join(w.dir, "webhook.secret"), "nobody has it")
	if status, _ := w.post(t, "other", old, jsonType, body); status != http.StatusUnauthorized {
		t.Errorf("the answer to the old secret is %d, want 401", status)
	}
	if status, _ := w.post(t, "other", fresh, jsonType, body); status != http.StatusAccepted {
		t.Errorf("the answer to the new secret is %d, want 202", status)
	}
}

// replace puts a new file in the place of a secret, as tools that mount secrets do.
func replace(t *testing.T, path, secret string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// The listener speaks TLS 1.2 and later with a certificate from files, and takes a renewed one without a restart.
func TestTLS(t *testing.T) {
	var cert, key string
	host := "127.0.0.1"
	w := prepareWorld(t, func(o *harness.Options) {
		if o.Advertise != "" {
			o.Advertise = strings.Replace(o.Advertise, "http://", "https://", 1)
			if u, err := url.Parse(o.Advertise); err == nil && net.ParseIP(u.Hostname()) != nil {
				host = u.Hostname() // Where a name is advertised, the receiver listens on, and is asked at, 0.0.0.0.
			} else {
				host = "0.0.0.0"
			}
		}
		cert, key = filepath.Join(o.Dir, "tls.crt"), filepath.Join(o.Dir, "tls.key")
		o.EditReceiver = func(c harness.Config) {
			harness.Set(c, false, "http", "allow_plain_http")
			harness.Set(c, cert, "http", "tls", "cert_file")
			harness.Set(c, key, "http", "tls", "key_file")
		}
	})
	w.webhook.Address = strings.Replace(w.webhook.Address, "http://", "https://", 1)
	if err := env.harbor.UpdateWebhook(t.Context(), w.webhook); err != nil {
		t.Fatal(err)
	}
	pool := writeCertificate(t, cert, key, host)
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.URL = strings.Replace(w.URL, "http://", "https://", 1)
	w.TrustTLS(pool)
	w.pushImage(t, "app", "v1")
	w.awaitAll(t)

	if status := w.keysStatus(t.Context(), t, "http://", &tls.Config{MinVersion: tls.VersionTLS12}); status == http.StatusOK {
		t.Error("the listener speaks plain HTTP")
	}
	if status := w.keysStatus(t.Context(), t, "https://", &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); status != 0 { //nolint:gosec // it must be refused
		t.Errorf("the answer over TLS 1.1 is %d, want none", status)
	}
	renewed := writeCertificate(t, cert, key, host)
	w.until(t, func(ctx context.Context) error {
		if status := w.keysStatus(ctx, t, "https://", &tls.Config{RootCAs: renewed, MinVersion: tls.VersionTLS12}); status != http.StatusOK {
			return fmt.Errorf("the answer with the renewed certificate is %d, want 200", status)
		}
		return nil
	})
}

// keysStatus asks for the public keys; 0 means that there was no answer.
func (w *world) keysStatus(ctx context.Context, t *testing.T, scheme string, config *tls.Config) int {
	t.Helper()
	_, rest, _ := strings.Cut(w.URL, "://")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+rest+"/api/v1/keys", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// writeCertificate makes a self-signed certificate and gives the pool that trusts it.
func writeCertificate(t *testing.T, certFile, keyFile, host string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		var buffer bytes.Buffer
		if err := pem.Encode(&buffer, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, buffer.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}
