//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/harborseal/harborseal/e2e/checker"
	"github.com/harborseal/harborseal/e2e/harness"
)

// stage is a world with several projects, on the suite's Harbor or on an emulator of its own.
type stage struct {
	*world
	// projects are enabled, and each has a webhook policy. The first one is the world's.
	projects []string
	// other is a project that is not enabled.
	other    string
	webhooks []*harness.Webhook
}

// newStage starts a system for so many projects. The option prepare, if there is one, is called with their names.
func newStage(t *testing.T, h *harness.Harbor, projects int, prepare func(projects []string) option) *stage {
	t.Helper()
	ctx := t.Context()
	s := &stage{other: harness.Random("e2e-")}
	var site *harness.Site
	stand := func(o *harness.Options) {
		s.projects = slices.Clone(o.Enabled)
		for range projects - 1 {
			s.projects = append(s.projects, harness.Random("e2e-"))
		}
		o.Enabled = s.projects
		all := append(slices.Clone(s.projects), s.other)
		site = o.Site
		if h == env.harbor {
			s.extend(ctx, t, site, all)
		} else {
			var err error
			if site, err = harness.NewSite(ctx, h, all...); err != nil {
				t.Fatalf("preparing Harbor: %v", err)
			}
			o.Site = site
		}
		rights := append(harness.SignerRights(), "immutable-tag:list")
		slices.Sort(rights)
		if err := h.UpdateRobot(ctx, site.Signer, slices.Compact(rights), all...); err != nil {
			t.Fatalf("preparing Harbor: %v", err)
		}
		if prepare != nil {
			prepare(s.projects)(o)
		}
	}
	s.world = newWorld(t, stand)
	s.site, s.developer = site, h.NewDeveloper(site.Developer)
	s.webhooks = []*harness.Webhook{s.webhook}
	for _, project := range s.projects[1:] {
		webhook, err := s.AddWebhook(ctx, project, "Default")
		if err != nil {
			t.Fatal(err)
		}
		s.webhooks = append(s.webhooks, webhook)
	}
	// From here on nobody finds what is pushed silently.
	s.awaitSweeps(t, len(s.projects))
	s.awaitCount(t, 1, "harborseal_sweeps_total", `kind="recent"`)
	return s
}

// silently runs f while Harbor reports nothing of these projects.
func (s *stage) silently(t *testing.T, f func()) {
	t.Helper()
	for _, disabled := range []bool{true, false} {
		for _, webhook := range s.webhooks {
			webhook.Disabled = disabled
			if err := s.site.Harbor.UpdateWebhook(t.Context(), webhook); err != nil {
				t.Fatal(err)
			}
		}
		if disabled {
			f()
		}
	}
}

// tell reports a push to the receiver, as Harbor would.
func (s *stage) tell(t *testing.T, p harness.Pushed) {
	t.Helper()
	project, repository, _ := strings.Cut(p.Repository, "/")
	status, body := s.post(t, project, s.WebhookAuth, jsonType, delivery(project, repository, p.Digest, p.Tag))
	if status != http.StatusAccepted {
		t.Fatalf("reporting a push: %d %v, want 202", status, body)
	}
}

// settled waits until no webhook is on its way and no signer has anything in work.
func (s *stage) settled(t *testing.T) {
	t.Helper()
	s.until(t, func(ctx context.Context) error {
		if h := s.site.Harbor; h.Emulated {
			stats, err := h.Stats(ctx)
			if err == nil && stats.Webhooks.Pending > 0 {
				err = fmt.Errorf("%d webhooks wait", stats.Webhooks.Pending)
			}
			if err != nil {
				return err
			}
		}
		for _, signer := range s.Signers {
			m, err := s.Metrics(ctx, signer)
			if err == nil && m.InFlight() > 0 {
				err = fmt.Errorf("%s has requests in work", signer.Name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// extend gives a site that exists the projects that it lacks.
func (s *stage) extend(ctx context.Context, t *testing.T, site *harness.Site, all []string) {
	t.Helper()
	for _, project := range all[1:] {
		if err := site.AddProject(ctx, project); err != nil {
			t.Fatalf("preparing Harbor: %v", err)
		}
	}
	if err := env.harbor.UpdateRobot(ctx, site.Developer, harness.DeveloperRights(), all...); err != nil {
		t.Fatalf("preparing Harbor: %v", err)
	}
}

// pushTo pushes something into one of the projects, or into none of them.
func (s *stage) pushTo(t *testing.T, repository, tag string, what remote.Taggable, err error) harness.Pushed {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.developer.Push(t.Context(), repository, tag, what)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newEmulator starts an emulator of one's own: with a version of one's choice, or the newest, and counters that nobody
// else moves.
func newEmulator(t *testing.T, version string) *harness.Harbor {
	t.Helper()
	speed := harness.EmulatorOptions{RetryScale: 0.02, DeliveryDelayScale: 0.1, Version: version}
	h, process, err := harness.StartEmulator(t.Context(), env.programs, t.TempDir(), speed)
	if err != nil {
		t.Fatal(err)
	}
	stopped := env.later(func() { _ = process.Kill() })
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Error(err)
		}
		stopped()
	})
	return h
}

// ask asks Harbor's API as its administrator.
func ask(t *testing.T, h *harness.Harbor, method, path string, body any, want int, answer any) http.Header {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(h.Username, h.Password)
	req.Header.Set("Content-Type", jsonType)
	req.Header.Set("X-Is-Resource-Name", "true")
	status, header, raw := exchange(t, req)
	if status != want {
		t.Fatalf("%s %s: the answer is %d, want %d: %.300s", method, path, status, want, raw)
	}
	if answer != nil {
		if err := json.Unmarshal(raw, answer); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return header
}

func exchange(t *testing.T, req *http.Request) (int, http.Header, []byte) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: env.patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // everything was read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, raw
}

// audit gives the report's row of a manifest as it is now.
func (w *world) audit(ctx context.Context, t *testing.T, p harness.Pushed) checker.Row {
	t.Helper()
	row, err := w.row(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// awaitSigned waits until the report says of all that they are signed.
func (w *world) awaitSigned(t *testing.T, pushed ...harness.Pushed) {
	t.Helper()
	for _, p := range pushed {
		for _, one := range p.All() {
			w.awaitState(t, one, "signed")
		}
	}
}

// image is how tools name a manifest.
func (w *world) image(p harness.Pushed) string {
	return w.site.Harbor.Host + "/" + p.Repository + "@" + p.Digest
}

// images names a manifest and its children.
func (w *world) images(pushed ...harness.Pushed) []string {
	var all []string
	for _, p := range pushed {
		for _, one := range p.All() {
			all = append(all, w.image(one))
		}
	}
	return all
}

// client finds a tool, with the developer's credentials for this world's Harbor.
func (w *world) client(t *testing.T, variable string) *harness.Tool {
	t.Helper()
	return w.clientOf(t, variable, w.site.Developer)
}

// clientOf finds a tool, with somebody's credentials for this world's Harbor.
func (w *world) clientOf(t *testing.T, variable string, who harness.Robot) *harness.Tool {
	t.Helper()
	tool, err := harness.NewTool(variable, filepath.Join(w.dir, harness.Random("client-")), w.site.Harbor, who, w.offline())
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

// offline are the variables by which a program reaches this world's Harbor, and else a proxy that tells the suite of it.
func (w *world) offline() []string {
	host, _, _ := strings.Cut(w.site.Harbor.Host, ":")
	return append(env.proxy.Env(), "NO_PROXY="+host)
}

// withKey runs cosign with a private key that needs its password.
func withKey(t *testing.T, cosign *harness.Tool, keys harness.Keys, args ...string) error {
	t.Helper()
	password, err := os.ReadFile(keys.Password)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cosign.RunWith(t.Context(), []string{"COSIGN_PASSWORD=" + strings.TrimSpace(string(password))}, args...)
	return err
}

// reconfigure changes a program's configuration and starts it again.
func (w *world) reconfigure(t *testing.T, p *harness.Program, change func(harness.Config)) {
	t.Helper()
	if err := p.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, p.Name+".yaml")
	raw, err := os.ReadFile(path) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	var c harness.Config
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	change(c)
	if raw, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.StartProgram(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// awaitSweeps waits until the signers have finished so many full sweeps of projects since they were started.
func (w *world) awaitSweeps(t *testing.T, want int) {
	t.Helper()
	w.until(t, func(ctx context.Context) error {
		done := 0.0
		for _, signer := range w.Signers {
			m, err := w.Metrics(ctx, signer)
			if err != nil {
				return err
			}
			done += m.Sum("harborseal_sweeps_total", `kind="full"`, `outcome="done"`)
		}
		if int(done) < want {
			return fmt.Errorf("the signers have finished %v full sweeps, want %d", done, want)
		}
		return nil
	})
}

// eventually waits for what the watch over the .sig tags does 30 seconds after a write.
func (w *world) eventually(t *testing.T, condition func(ctx context.Context) error) {
	t.Helper()
	if err := harness.Until(t.Context(), env.patience+90*time.Second, condition); err != nil {
		t.Fatalf("%v\n%s", err, w.Tails())
	}
}
