package harbor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func secret(tb testing.TB, value string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func newClient(tb testing.TB, url, password string, change ...func(*harbor.Config)) *harbor.Client {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	cfg := harbor.Config{URL: url, Username: "admin", SecretFile: secret(tb, password), Transport: transport}
	for _, c := range change {
		c(&cfg)
	}
	c, err := harbor.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func post(t *testing.T, url string, body any) []byte {
	t.Helper()
	return admin(t, http.MethodPost, url, body)
}

// admin asks Harbor's own API for something, as the admin.
func admin(t *testing.T, method, url string, body any) []byte {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s, %v: %s", method, url, resp.Status, err, answer)
	}
	return answer
}

func push(t *testing.T, h *harbortest.Harbor, repository string, subject remote.Taggable) {
	t.Helper()
	ref, err := name.NewTag(h.Host()+"/"+repository, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	options := []remote.Option{
		remote.WithTransport(transport), remote.WithContext(t.Context()),
		remote.WithAuth(&authn.Basic{Username: "admin", Password: harbortest.DefaultAdminPassword}),
	}
	switch s := subject.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, s, options...)
	case v1.Image:
		err = remote.Write(ref, s, options...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digestOf(t *testing.T, d interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := d.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// TestPopulation lists a project with everything that a listing can leave out, by both ways.
func TestPopulation(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	const project = "2024" // an all-digit name is taken for an id unless the client says otherwise
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	plain, nested := randomImage(t), randomImage(t)
	push(t, h, project+"/app:v1", plain)
	push(t, h, project+"/team/app:v1", nested)
	push(t, h, project+"/multi:v1", index)
	want := []string{
		project + "/app@" + digestOf(t, plain), project + "/team/app@" + digestOf(t, nested), project + "/multi@" + digestOf(t, index),
		project + "/multi@" + manifest.Manifests[0].Digest.String(), project + "/multi@" + manifest.Manifests[1].Digest.String(),
	}
	slices.Sort(want)
	for name, through := range map[string]func(http.RoundTripper) http.RoundTripper{
		"one listing":              func(next http.RoundTripper) http.RoundTripper { return next },
		"repository by repository": func(next http.RoundTripper) http.RoundTripper { return oldHarbor{next} }, // before 2.12
		"a proxy drops the total":  func(next http.RoundTripper) http.RoundTripper { return withoutTotal{next} },
	} {
		for _, pageSize := range []int64{1, 2, 100} {
			t.Run(fmt.Sprintf("%s, pages of %d", name, pageSize), func(t *testing.T) {
				c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) {
					cfg.PageSize, cfg.Transport = pageSize, through(cfg.Transport)
				})
				var got, tags, children []string
				total := 0
				err := c.Population(t.Context(), project, artifact.Cursor{}, func(_ context.Context, page artifact.Page) error {
					total += page.Total
					for _, l := range page.Manifests {
						got = append(got, l.Ref.String())
						tags = append(tags, l.Tags...)
						children = append(children, l.Children...)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("population:\n got %v\nwant %v", got, want)
				}
				if len(tags) != 3 {
					t.Errorf("tags %v, want v1 three times", tags)
				}
				if len(children) != 2 {
					t.Errorf("children %v, want the 2 of the index", children)
				}
				if wantTotal := len(want); name != "a proxy drops the total" && total != wantTotal {
					t.Errorf("Harbor's total %d, want %d", total, wantTotal)
				}
			})
		}
	}
	t.Run("signatures", func(t *testing.T) {
		tag := "sha256-" + strings.TrimPrefix(digestOf(t, plain), "sha256:") + ".sig"
		// Harbor takes for a signature what has the tag and a layer of this type; it verifies nothing.
		layer := static.NewLayer([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json")
		signature, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			t.Fatal(err)
		}
		push(t, h, project+"/app:"+tag, signature)
		c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
		var got []string
		err = c.Population(t.Context(), project, artifact.Cursor{}, func(_ context.Context, page artifact.Page) error {
			for _, l := range page.Manifests {
				if l.Ref.Digest() == digestOf(t, signature) {
					t.Error("the signature stands in the population")
				}
				got = append(got, l.Signatures...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{digestOf(t, signature)}; !slices.Equal(got, want) {
			t.Errorf("signatures %v, want %v", got, want)
		}
	})
	t.Run("an error of the callback comes back", func(t *testing.T) {
		c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
		for _, want := range []error{
			fault.New(fault.Transient, fault.QueueFull, io.ErrShortWrite),
			fault.New(fault.Gone, fault.NotFound, io.ErrShortWrite), // which does not mean that Harbor has no listing
		} {
			calls := 0
			err := c.Population(t.Context(), project, artifact.Cursor{}, func(context.Context, artifact.Page) error { calls++; return want })
			if got := fault.Of(err).Reason; got != fault.Of(want).Reason || calls != 1 {
				t.Errorf("reason %s after %d calls, want %s after 1", got, calls, fault.Of(want).Reason)
			}
		}
	})
	t.Run("missing project", func(t *testing.T) {
		c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
		err := c.Population(t.Context(), "nothing", artifact.Cursor{}, nowhere)
		if !fault.Is(err, fault.Gone) {
			t.Errorf("error %v, want a fault of kind gone", err)
		}
	})
}

// oldHarbor answers the project-wide listing as a Harbor that has none.
type oldHarbor struct{ next http.RoundTripper }

func (o oldHarbor) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.Contains(req.URL.Path, "/repositories") {
		recorder := httptest.NewRecorder()
		recorder.Header().Set("Content-Type", "application/json; charset=utf-8")
		recorder.WriteHeader(http.StatusNotFound)
		return recorder.Result(), nil
	}
	return o.next.RoundTrip(req)
}

// withoutTotal is a proxy that passes on the headers that it knows.
type withoutTotal struct{ next http.RoundTripper }

func (w withoutTotal) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err == nil {
		resp.Header.Del("X-Total-Count")
	}
	return resp, err
}

// nowhere takes a page and does nothing.
func nowhere(context.Context, artifact.Page) error { return nil }

func TestAllProjects(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	for i := range 5 {
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": fmt.Sprintf("p%d", i)})
	}
	c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) { cfg.PageSize = 2 })
	projects, err := c.AllProjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range projects {
		got = append(got, p.Name)
	}
	slices.Sort(got)
	if want := []string{"library", "p0", "p1", "p2", "p3", "p4"}; !slices.Equal(got, want) {
		t.Errorf("projects %v, want %v", got, want)
	}
}

// robot makes a robot account with one right on all projects that there will be, and a client that uses it.
func robot(t *testing.T, h *harbortest.Harbor, name, resource, action string) *harbor.Client {
	t.Helper()
	return robotWith(t, h, name, "project", "*", resource+":"+action)
}

// robotWith makes a robot account with rights on a kind of namespace, and a client that uses it.
func robotWith(t *testing.T, h *harbortest.Harbor, name, kind, namespace string, rights ...string) *harbor.Client {
	t.Helper()
	access := make([]any, 0, len(rights))
	for _, right := range rights {
		resource, action, _ := strings.Cut(right, ":")
		access = append(access, map[string]any{"resource": resource, "action": action})
	}
	raw := post(t, h.URL()+"/api/v2.0/robots", map[string]any{
		"name": name, "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": kind, "namespace": namespace, "access": access}},
	})
	var account struct{ Name, Secret string }
	if err := json.Unmarshal(raw, &account); err != nil {
		t.Fatal(err)
	}
	return newClient(t, h.URL(), account.Secret, func(cfg *harbor.Config) { cfg.Username = account.Name })
}

func TestProjectExists(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	admin := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	signer := robot(t, h, "signer", "repository", "pull")
	stranger := newClient(t, h.URL(), "wrong")
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "2024"})
	for name, c := range map[string]*harbor.Client{"admin": admin, "robot": signer} {
		if there, err := c.ProjectExists(t.Context(), "2024"); err != nil || !there {
			t.Errorf("%s, a project: %t, %v; want true", name, there, err)
		}
		if there, err := c.ProjectExists(t.Context(), "nothing"); err != nil || there {
			t.Errorf("%s, no project: %t, %v; want false", name, there, err)
		}
	}
	if there, err := stranger.ProjectExists(t.Context(), "nothing"); there || !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Unauthorized {
		t.Errorf("a wrong secret: %t, %v; want unauthorized", there, err)
	}
}

// TestRecordedHead reads the answers of a real Harbor, whose HEAD has no body, and one of something else.
func TestRecordedHead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		header string
		there  bool
		want   fault.Reason
	}{
		{"there", http.StatusOK, "", true, ""},
		{"not there", http.StatusNotFound, "application/json; charset=utf-8", false, ""},
		{"a proxy's 404", http.StatusNotFound, "text/html", false, fault.BadAnswer},
		{"a 404 of nobody", http.StatusNotFound, "", false, fault.BadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodHead || r.URL.RequestURI() != "/api/v2.0/projects?project_name=demo" {
					t.Errorf("%s %s, want a HEAD of the project by name", r.Method, r.URL)
				}
				w.Header()["Content-Type"] = []string{tt.header}
				w.WriteHeader(tt.status)
			}))
			defer server.Close()
			there, err := newClient(t, server.URL, "s3cr3t").ProjectExists(t.Context(), "demo")
			if there != tt.there || (err != nil) != (tt.want != "") {
				t.Fatalf("ProjectExists = %t, %v; want %t", there, err, tt.there)
			}
			if err != nil && (fault.Of(err).Reason != tt.want || !fault.Is(err, fault.Transient)) {
				t.Errorf("error %v, want a transient %s", err, tt.want)
			}
		})
	}
}

// TestEveryRequest looks at what all requests have in common.
func TestEveryRequest(t *testing.T) {
	for configured, want := range map[string]string{"": harbor.DefaultUserAgent, "corp (cosign)": "corp (cosign)"} {
		var turns atomic.Int64
		turn := turnFunc(func(context.Context) error { turns.Add(1); return nil })
		requests := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			if got := r.UserAgent(); got != want {
				t.Errorf("%s: user agent %q, want %q", r.URL, got, want)
			}
			if user, password, ok := r.BasicAuth(); !ok || user != "admin" || password != "s3cr3t" {
				t.Errorf("%s: credentials of %q, want those of admin", r.URL, user)
			}
			if strings.Contains(r.URL.RawQuery, "+") || strings.Contains(r.URL.Query().Get("q"), "+") {
				t.Errorf("%s: a plus sign in the query, which Harbor decodes twice", r.URL)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "[]")
		}))
		c := newClient(t, server.URL, "s3cr3t", func(cfg *harbor.Config) { cfg.UserAgent, cfg.Limiter = configured, turn })
		for name, operation := range operations(t, c) {
			before := requests
			_ = operation() // an empty list is no good answer to all of them
			if requests == before {
				t.Errorf("%s makes no request", name)
			}
		}
		server.Close()
		if got := turns.Load(); got != int64(requests) {
			t.Errorf("%d requests have waited for their turn, want all %d", got, requests)
		}
	}
}

// turnFunc is a limiter.
type turnFunc func(context.Context) error

func (f turnFunc) Wait(ctx context.Context) error { return f(ctx) }

// TestNoTurn lets requests wait for a turn that does not come.
func TestNoTurn(t *testing.T) {
	c := cannedClient(t, func(*http.Request) (int, string, error) {
		t.Error("a request without a turn")
		return http.StatusOK, "[]", nil
	}, func(cfg *harbor.Config) {
		cfg.Timeout = 20 * time.Millisecond
		cfg.Limiter = turnFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	})
	if _, err := c.AllProjects(t.Context()); !fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.Timeout {
		t.Errorf("AllProjects() = %v, want a transient timeout", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.AllProjects(ctx); !errors.Is(err, context.Canceled) || fault.Of(err).Reason != fault.Canceled {
		t.Errorf("AllProjects() = %v, want canceled", err)
	}
}

// operations are all that a client can do.
func operations(t *testing.T, c *harbor.Client) map[string]func() error {
	t.Helper()
	ref, err := artifact.NewRef("demo/team/app", "sha256:"+strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	hook := artifact.Webhook{ID: 1, Name: "harborseal", Events: []string{"PUSH_ARTIFACT"}, Address: "https://hook.example.com", AuthHeader: hookSecret}
	return map[string]func() error{
		"AllProjects":   func() error { _, err := c.AllProjects(t.Context()); return err },
		"Project":       func() error { _, err := c.Project(t.Context(), "demo"); return err },
		"ProjectID":     func() error { _, err := c.ProjectID(t.Context(), "demo"); return err },
		"Roles":         func() error { _, err := c.Roles(t.Context()); return err },
		"RoleIn":        func() error { _, _, err := c.RoleIn(t.Context(), "demo"); return err },
		"ProjectExists": func() error { _, err := c.ProjectExists(t.Context(), "demo"); return err },
		"LockedBy":      func() error { _, err := c.LockedBy(t.Context(), "demo/app", "v1"); return err },
		"Bundles":       func() error { _, _, err := c.Bundles(t.Context()); return err },
		"System":        func() error { _, err := c.System(t.Context()); return err },
		"Population":    func() error { return c.Population(t.Context(), "demo", artifact.Cursor{}, nowhere) },
		"PushedSince": func() error {
			return c.PushedSince(t.Context(), "demo", time.Now(), func(context.Context, []artifact.Listed) error { return nil })
		},
		"Feed": func() error {
			_, err := c.Feed(t.Context(), time.Now(), time.Time{}, func(context.Context, []artifact.Pushed) error { return nil })
			return err
		},
		"Artifact":       func() error { _, err := c.Artifact(t.Context(), ref); return err },
		"Webhooks":       func() error { _, err := c.Webhooks(t.Context(), "demo"); return err },
		"CreateWebhook":  func() error { _, err := c.CreateWebhook(t.Context(), "demo", hook); return err },
		"UpdateWebhook":  func() error { return c.UpdateWebhook(t.Context(), "demo", hook) },
		"DeleteWebhook":  func() error { return c.DeleteWebhook(t.Context(), "demo", 1) },
		"Deliveries":     func() error { _, err := c.Deliveries(t.Context(), "demo", 1); return err },
		"Quota":          func() error { _, err := c.Quota(t.Context(), 1); return err },
		"CurrentAccount": func() error { _, err := c.CurrentAccount(t.Context()); return err },
		"TokenActions":   func() error { _, err := c.TokenActions(t.Context(), "demo/app", []string{"pull"}); return err },
		"RobotExpiry":    func() error { _, err := c.RobotExpiry(t.Context()); return err },
		"RemoveArtifact": func() error { return c.RemoveArtifact(t.Context(), ref) },

		"RemoveEmptyRepository": func() error { return c.RemoveEmptyRepository(t.Context(), ref) },
		"MissingRights":         func() error { _, err := c.MissingRights(t.Context(), "demo", []string{"quota:list"}); return err },
	}
}

// hookSecret is what Harbor would send to a webhook.
const hookSecret = "Bearer hs1.1.0123456789abcdef" //nolint:gosec // of these tests alone

func TestNewRefuses(t *testing.T) {
	good := harbor.Config{URL: "https://harbor.example.com", Username: "robot$x", SecretFile: secret(t, "s"), Transport: &http.Transport{}}
	for name, change := range map[string]func(*harbor.Config){
		"no scheme":      func(c *harbor.Config) { c.URL = "harbor.example.com" },
		"other scheme":   func(c *harbor.Config) { c.URL = "ftp://harbor.example.com" },
		"credentials":    func(c *harbor.Config) { c.URL = "https://user:hunter2@harbor.example.com" },
		"no user":        func(c *harbor.Config) { c.Username = "" },
		"no secret file": func(c *harbor.Config) { c.SecretFile = filepath.Join(t.TempDir(), "none") },
		"page too large": func(c *harbor.Config) { c.PageSize = 101 },
		"no transport":   func(c *harbor.Config) { c.Transport = nil },
		"user agent":     func(c *harbor.Config) { c.UserAgent = "cosign\r\nX: y" },
	} {
		cfg := good
		change(&cfg)
		_, err := harbor.New(cfg)
		if err == nil {
			t.Errorf("%s: New gives no error", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %q holds the password", name, err)
		}
	}
	if _, err := harbor.New(good); err != nil {
		t.Errorf("the good configuration: %v", err)
	}
}
