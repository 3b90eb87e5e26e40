package harbor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

func secret(t *testing.T, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newClient(t *testing.T, url, password string, change ...func(*harbor.Config)) *harbor.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	cfg := harbor.Config{URL: url, Username: "admin", SecretFile: secret(t, password), Transport: transport}
	for _, c := range change {
		c(&cfg)
	}
	c, err := harbor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// post asks Harbor's own API for something, as the admin.
func post(t *testing.T, url string, body any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode/100 != 2 {
		answer, _ := io.ReadAll(resp.Body)
		t.Fatalf("POST %s: %s: %s", url, resp.Status, answer)
	}
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
	for name, transport := range map[string]http.RoundTripper{
		"one listing":              nil,
		"repository by repository": oldHarbor{}, // before 2.12
	} {
		for _, pageSize := range []int64{1, 2, 100} {
			t.Run(fmt.Sprintf("%s, pages of %d", name, pageSize), func(t *testing.T) {
				c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) {
					cfg.PageSize = pageSize
					if transport != nil {
						cfg.Transport = oldHarbor{next: cfg.Transport}
					}
				})
				var got, tags []string
				err := c.Population(t.Context(), project, func(_ context.Context, page []artifact.Listed) error {
					for _, l := range page {
						got = append(got, l.Ref.String())
						tags = append(tags, l.Tags...)
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
		err = c.Population(t.Context(), project, func(_ context.Context, page []artifact.Listed) error {
			for _, l := range page {
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
		want := fault.New(fault.Transient, fault.QueueFull, io.ErrShortWrite)
		err := c.Population(t.Context(), project, func(context.Context, []artifact.Listed) error { return want })
		if got := fault.Of(err).Reason; got != fault.QueueFull {
			t.Errorf("reason %s, want %s", got, fault.QueueFull)
		}
	})
	t.Run("missing project", func(t *testing.T) {
		c := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
		err := c.Population(t.Context(), "nothing", func(context.Context, []artifact.Listed) error { return nil })
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
		recorder.WriteHeader(http.StatusNotFound)
		return recorder.Result(), nil
	}
	return o.next.RoundTrip(req)
}

func TestProjectsAndVersion(t *testing.T) {
	h := harbortest.New(t, harbortest.Config{})
	for i := range 5 {
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": fmt.Sprintf("p%d", i)})
	}
	c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) { cfg.PageSize = 2 })
	got, err := c.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if !slices.Contains(got, fmt.Sprintf("p%d", i)) {
			t.Errorf("projects %v lack p%d", got, i)
		}
	}
	version, err := c.Version(t.Context())
	if err != nil || !strings.HasPrefix(version, "v2.15.2") {
		t.Errorf("Version = %q, %v; want v2.15.2…", version, err)
	}
}

func TestFaults(t *testing.T) {
	const password = "very-secret-value"
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const harborError = `{"errors":[{"code":"SOME\u001bCODE","message":"in Harbor's words"}]}`
	tests := []struct {
		name    string
		handler http.HandlerFunc
		kind    fault.Kind
		reason  fault.Reason
		after   time.Duration
	}{
		{"401", answer(401, harborError), fault.Permanent, fault.Unauthorized, 0},
		{"403", answer(403, harborError), fault.Permanent, fault.Denied, 0},
		{"404", answer(404, harborError), fault.Gone, fault.NotFound, 0},
		{"412", answer(412, harborError), fault.Permanent, fault.Rejected, 0},
		{"429", answer(429, "", "Retry-After", "7"), fault.Transient, fault.RateLimited, 7 * time.Second},
		{"500", answer(500, "<html>"), fault.Transient, fault.Unavailable, 0},
		{"503", answer(503, "", "Retry-After", "3"), fault.Transient, fault.Unavailable, 3 * time.Second},
		{"redirect", answer(302, "", "Location", "https://elsewhere.example/"), fault.Permanent, fault.ForeignOrigin, 0},
		{"HTML", answer(200, "<html>", "Content-Type", "text/html"), fault.Transient, fault.BadAnswer, 0},
		{"cut off", answer(200, `[{"name":`), fault.Transient, fault.BadAnswer, 0},
		{"connection breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Transient, fault.Unreachable, 0},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, fault.Transient, fault.Timeout, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			c := newClient(t, server.URL, password, func(cfg *harbor.Config) { cfg.Timeout = 200 * time.Millisecond })
			operations := map[string]func() error{
				"Projects": func() error { _, err := c.Projects(t.Context()); return err },
				"Version":  func() error { _, err := c.Version(t.Context()); return err },
				"Population": func() error {
					return c.Population(t.Context(), "demo", func(context.Context, []artifact.Listed) error { return nil })
				},
			}
			for name, operation := range operations {
				err := operation()
				if err == nil {
					t.Errorf("%s gives no error", name)
					continue
				}
				got := fault.Of(err)
				if got.Kind != tt.kind || got.Reason != tt.reason || got.RetryAfter != tt.after {
					t.Errorf("%s: %s, %s, %s; want %s, %s, %s (%v)", name, got.Kind, got.Reason, got.RetryAfter, tt.kind, tt.reason, tt.after, err)
				}
				if strings.Contains(err.Error(), password) || strings.ContainsRune(err.Error(), '\x1b') {
					t.Errorf("%s: error %q holds the secret or a control character", name, err)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	good := harbor.Config{URL: "https://harbor.example.com", Username: "robot$x", SecretFile: secret(t, "s")}
	for name, change := range map[string]func(*harbor.Config){
		"no scheme":      func(c *harbor.Config) { c.URL = "harbor.example.com" },
		"other scheme":   func(c *harbor.Config) { c.URL = "ftp://harbor.example.com" },
		"credentials":    func(c *harbor.Config) { c.URL = "https://user:hunter2@harbor.example.com" },
		"no user":        func(c *harbor.Config) { c.Username = "" },
		"no secret file": func(c *harbor.Config) { c.SecretFile = filepath.Join(t.TempDir(), "none") },
		"page too large": func(c *harbor.Config) { c.PageSize = 101 },
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
