package signer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/access"
	"github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/app/signer"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/sigstore/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an emulated Harbor and both programs in this process, under the race detector.
type site struct {
	dir    string
	harbor *harbortest.Harbor
	client *http.Client
	token  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s := &site{dir: t.TempDir(), harbor: harbortest.New(t, harbortest.Config{}), client: &http.Client{Transport: transport}}
	for file, content := range map[string]string{"key.pw": "key password", "queue.pw": "queue password", "hook": "hook secret"} {
		s.write(t, file, content)
	}
	if _, err := keys.Generate(filepath.Join(s.dir, "k"), filepath.Join(s.dir, "key.pw")); err != nil {
		t.Fatal(err)
	}
	token, line, err := access.NewToken("test")
	if err != nil {
		t.Fatal(err)
	}
	s.token = token
	s.write(t, "tokens", line)

	s.post(t, "/projects", map[string]any{"project_name": "demo"}, nil)
	var robot struct{ Name, Secret string }
	s.post(t, "/robots", map[string]any{
		"name": "harborseal", "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "demo", "access": []any{
			map[string]string{"resource": "repository", "action": "pull"},
			map[string]string{"resource": "repository", "action": "push"},
			map[string]string{"resource": "repository", "action": "list"},
			map[string]string{"resource": "artifact", "action": "list"},
		}}},
	}, &robot)
	s.write(t, "robot", robot.Secret)
	return s
}

func (s *site) write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) post(t *testing.T, path string, body, answer any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.harbor.URL()+"/api/v2.0"+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	s.do(t, req, http.StatusCreated, answer)
}

func (s *site) do(t *testing.T, req *http.Request, want int, answer any) {
	t.Helper()
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s = %d, want %d: %s", req.Method, req.URL.Path, resp.StatusCode, want, raw)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		t.Fatal(err)
	}
}

// run runs a program until the function that it gives is called, which waits for its end.
func run(t *testing.T, what string, program func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- program(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s ended with: %v", what, err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// waitFor polls: what is waited for has no other sign from outside.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}

func TestAPushIsSignedAndReported(t *testing.T) {
	s := newSite(t)
	s.write(t, "receiver.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {public_host: %q}
policies: [{projects: [demo], backfill: all}]
http: {listen: "127.0.0.1:0", allow_plain_http: true}
webhook: {secret_files: [hook]}
api: {tokens_file: tokens}
keys: [{name: k, public_key_file: k.pub}]
queue: {embedded: {store_dir: nats, listen: "127.0.0.1:0", max_store: 64MiB, users: [{name: signer, password_file: queue.pw}]}}
ledger: {sqlite: {path: ledger.db}}
`, s.harbor.Host()))
	receiverConfig, err := config.LoadReceiver(filepath.Join(s.dir, "receiver.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := receiver.New(t.Context(), receiverConfig, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	stopReceiver := run(t, "receiver", r.Run)
	waitFor(t, "the receiver to be ready", func() bool { return s.ready(t, r.OpsAddr().String()) })

	s.write(t, "signer.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {url: %q, username: "robot$harborseal", secret_file: robot}
keys: [{name: k, file: k.key, password_file: key.pw}]
queue: {urls: ["nats://%s"], username: signer, password_file: queue.pw}
`, s.harbor.URL(), r.QueueAddr()))
	signerConfig, err := config.LoadSigner(filepath.Join(s.dir, "signer.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := signer.New(t.Context(), signerConfig, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	stopSigner := run(t, "signer", a.Run)
	waitFor(t, "the signer to be ready", func() bool { return s.ready(t, a.OpsAddr().String()) })

	s.post(t, "/projects/demo/webhook/policies", map[string]any{
		"name": "harborseal", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []any{map[string]any{"type": "http", "address": r.PublicURL() + "/webhooks/harbor/demo", "auth_header": "hook secret"}},
	}, nil)
	image, err := random.Image(128, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(s.harbor.Host()+"/demo/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithContext(t.Context()), remote.WithTransport(s.client.Transport),
		remote.WithAuth(&authn.Basic{Username: "admin", Password: harbortest.DefaultAdminPassword})); err != nil {
		t.Fatal(err)
	}
	var page struct {
		Registry string
		Items    []struct {
			Digest, State, How string
			Tags               []string
			KeyID              string `json:"key_id"`
		}
	}
	waitFor(t, "the row of the report", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.PublicURL()+"/api/v1/signatures?project=demo&state=signed", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		s.do(t, req, http.StatusOK, &page)
		return len(page.Items) > 0 && len(page.Items[0].Tags) > 0 // a sweep may sign before the webhook has told of the tag
	})
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if page.Registry != s.harbor.Host() {
		t.Errorf("the report names the registry %q, want %q", page.Registry, s.harbor.Host())
	}
	if row := page.Items[0]; len(page.Items) != 1 || row.Digest != digest.String() || row.How != "made" || strings.Join(row.Tags, ",") != "v1" || row.KeyID == "" {
		t.Errorf("rows %+v, want one for %s with tag v1", page.Items, digest)
	}
	stopSigner()
	stopReceiver()
}

func (s *site) ready(t *testing.T, addr string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// TestWhatIsWrongStopsTheStart breaks one file at a time; --check-config finds the same.
func TestWhatIsWrongStopsTheStart(t *testing.T) {
	s := newSite(t)
	s.write(t, "signer.yaml", fmt.Sprintf(`
ops: {listen: "127.0.0.1:0"}
harbor: {url: %q, username: "robot$harborseal", secret_file: robot}
keys: [{name: k, file: k.key, password_file: key.pw}]
queue: {urls: ["nats://127.0.0.1:4222"], username: signer, password_file: queue.pw}
`, s.harbor.URL()))
	load := func(t *testing.T) *config.Signer {
		t.Helper()
		cfg, err := config.LoadSigner(filepath.Join(s.dir, "signer.yaml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	if err := signer.Check(t.Context(), load(t)); err != nil {
		t.Fatalf("the good configuration: %v", err)
	}
	tests := []struct {
		name, file, content string
		mode                os.FileMode
		want                string
	}{
		{"wrong password", "key.pw", "another", 0o600, "password"},
		{"key that others may read", "k.key", "", 0o644, "chmod 600"},
		{"no key", "k.key", "garbage", 0o600, "key"},
		{"secret that others may read", "robot", "", 0o640, "chmod 600"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(s.dir, tt.file)
			old, err := os.ReadFile(path) //nolint:gosec // a file that the test made
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.WriteFile(path, old, 0o600); err != nil { //nolint:gosec // as above
					t.Fatal(err)
				}
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
			}()
			if tt.content != "" {
				s.write(t, tt.file, tt.content)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			cfg := load(t)
			_, startErr := signer.New(t.Context(), cfg, zerolog.Nop())
			for how, err := range map[string]error{"start": startErr, "check": signer.Check(t.Context(), cfg)} {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: error %v, want one with %q", how, err, tt.want)
				} else if strings.Contains(err.Error(), "key password") || strings.Contains(err.Error(), "another") {
					t.Errorf("%s: error %q holds a secret", how, err)
				}
			}
		})
	}
}
