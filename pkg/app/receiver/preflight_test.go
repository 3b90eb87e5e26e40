package receiver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/app/receiver"
	"github.com/harborseal/harborseal/pkg/config"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/preflight"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is an emulated Harbor with the projects demo and other, and a folder of files.
type place struct {
	dir    string
	harbor *harbortest.Harbor
	client *http.Client
}

func newPlace(t *testing.T) *place {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := &place{dir: t.TempDir(), harbor: harbortest.New(t, harbortest.Config{}), client: &http.Client{Transport: transport}}
	for _, name := range []string{"demo", "other"} {
		p.admin(t, http.MethodPost, "/projects", map[string]any{"project_name": name}, nil)
	}
	access := []any{map[string]string{"resource": "project", "action": "read"}}
	for _, action := range []string{"list", "read", "create", "update", "delete"} {
		access = append(access, map[string]string{"resource": "notification-policy", "action": action})
	}
	var robot struct{ Secret string }
	p.admin(t, http.MethodPost, "/robots", map[string]any{
		"name": "receiver", "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "*", "access": access}},
	}, &robot)
	p.write(t, "robot", robot.Secret)
	p.write(t, "master", strings.Repeat("m", 32))
	return p
}

func (p *place) write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *place) admin(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.harbor.URL()+"/api/v2.0"+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: got %d, want a success", method, path, resp.StatusCode)
	}
	if answer == nil {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		t.Fatal(err)
	}
}

// start runs a receiver until the end of the test.
func (p *place) start(t *testing.T, yaml string) *receiver.App {
	t.Helper()
	p.write(t, "receiver.yaml", yaml)
	cfg, err := config.LoadReceiver(filepath.Join(p.dir, "receiver.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	app, err := receiver.New(t.Context(), cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the receiver ended with: %v", err)
		}
	})
	// One that is stopped before it has begun leaves to the end of the process what New has opened.
	waitFor(t, "the queue", func() bool { return app.QueueAddr() != "" })
	return app
}

const rest = `
ops: {listen: "127.0.0.1:0"}
http: {listen: "127.0.0.1:0", allow_plain_http: true}
queue: {embedded: {store_dir: nats, listen: "127.0.0.1:0", max_store: 64MiB, users: [{name: signer, password_file: robot}]}}
ledger: {sqlite: {path: ledger.db}}
`

// hooks gives the webhooks of demo as Harbor has them.
func (p *place) hooks(t *testing.T) []map[string]any {
	t.Helper()
	var hooks []map[string]any
	p.admin(t, http.MethodGet, "/projects/demo/webhook/policies", nil, &hooks)
	return hooks
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

// want checks that there is one check of a name, with this status, and words in its detail.
func want(t *testing.T, checks []preflight.Check, name preflight.Name, status preflight.Status, detail string) {
	t.Helper()
	i := slices.IndexFunc(checks, func(c preflight.Check) bool { return c.Name == name })
	if i < 0 || checks[i].Status != status || !strings.Contains(checks[i].Detail, detail) {
		t.Errorf("got %+v, want %s to be %s with %q", checks, name, status, detail)
	}
}

func TestPreflight(t *testing.T) {
	p := newPlace(t)
	public := httptest.NewServer(http.NotFoundHandler()) // where Harbor would reach the receiver
	defer public.Close()
	app := p.start(t, fmt.Sprintf(`
harbor: {url: %q, username: "robot$receiver", secret_file: robot}
policies: [{projects: [demo], backfill: all}]
webhook: {url: %q, master_secret_files: [master]}
`, p.harbor.URL(), public.URL)+rest)
	waitFor(t, "the webhook of demo", func() bool {
		for _, c := range app.Preflight(t.Context(), "demo") {
			if c.Name == preflight.Webhook {
				return c.Status == preflight.OK
			}
		}
		return false
	})

	self := app.Preflight(t.Context(), "")
	want(t, self, preflight.Receiver, preflight.OK, "answers")
	want(t, self, preflight.WebhookAddress, preflight.OK, "answers")
	want(t, self, preflight.Login, preflight.OK, "robot account")
	want(t, self, preflight.DNS, preflight.OK, "127.0.0.1")
	want(t, self, preflight.Notifications, preflight.OK, "")

	if checks := app.Preflight(t.Context(), "other"); slices.ContainsFunc(checks, func(c preflight.Check) bool { return c.Name == preflight.Webhook }) {
		t.Errorf("got %+v, want nothing about a webhook: the project is not enabled", checks)
	}

	for _, c := range []struct {
		name   string
		change func(hook map[string]any)
		detail string
	}{
		{"disabled", func(h map[string]any) { h["enabled"] = false }, "disabled"},
		{"other events", func(h map[string]any) { h["event_types"] = []string{"DELETE_ARTIFACT"} }, "does not tell of pushes"},
		{"elsewhere", func(h map[string]any) { target(t, h)["address"] = "http://127.0.0.1:1/x" }, "points elsewhere"},
		{"another secret", func(h map[string]any) { target(t, h)["auth_header"] = "Bearer guessed" }, "another secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hook := p.hooks(t)[0]
			kept, err := json.Marshal(hook)
			if err != nil {
				t.Fatal(err)
			}
			path := fmt.Sprintf("/projects/demo/webhook/policies/%v", hook["id"])
			c.change(hook)
			p.admin(t, http.MethodPut, path, hook, nil)
			checks := app.Preflight(t.Context(), "demo")
			want(t, checks, preflight.Webhook, preflight.Failed, c.detail)
			for _, check := range checks {
				if strings.Contains(fmt.Sprint(check), "guessed") || strings.Contains(fmt.Sprint(check), "hs1.") {
					t.Errorf("got %+v, want no secret in it", check)
				}
			}
			p.admin(t, http.MethodPut, path, json.RawMessage(kept), nil)
		})
	}
	want(t, app.Preflight(t.Context(), "demo"), preflight.Webhook, preflight.OK, "")
	p.admin(t, http.MethodDelete, fmt.Sprintf("/projects/demo/webhook/policies/%v", p.hooks(t)[0]["id"]), nil, nil)
	want(t, app.Preflight(t.Context(), "demo"), preflight.Webhook, preflight.Failed, "no webhook")
}

// target gives the only target of a webhook.
func target(t *testing.T, hook map[string]any) map[string]any {
	t.Helper()
	targets, ok := hook["targets"].([]any)
	if !ok || len(targets) != 1 {
		t.Fatalf("got the targets %v, want one", hook["targets"])
	}
	first, ok := targets[0].(map[string]any)
	if !ok {
		t.Fatalf("got the target %v, want an object", targets[0])
	}
	return first
}

func TestPreflightWithoutAccount(t *testing.T) {
	p := newPlace(t)
	p.write(t, "hook", "by hand")
	app := p.start(t, `
harbor: {public_host: harbor.example.com}
policies: [{projects: [demo], backfill: all}]
webhook: {secret_files: [hook]}
`+rest)
	for _, project := range []string{"", "demo"} {
		checks := app.Preflight(t.Context(), project)
		want(t, checks, preflight.Receiver, preflight.Skipped, "no account")
		if len(checks) != 1 {
			t.Errorf("got %+v, want one check", checks)
		}
	}
}
