package harbortest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

const testTimeout = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// login is who a test speaks as.
type login struct{ name, secret string }

func admin() login { return login{"admin", harbortest.DefaultAdminPassword} }

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("decoding %q: %v", a.body, err)
	}
}

// fast starts an emulator that delivers webhooks at once and retries them within milliseconds.
func fast(t *testing.T) *harbortest.Harbor {
	t.Helper()
	return harbortest.New(t, harbortest.Config{DeliveryDelayScale: 0.001, RetryScale: 0.0001, Seed: 1})
}

// client makes requests over connections of its own, so that no test leaks a goroutine into the next.
type client struct {
	t    *testing.T
	h    *harbortest.Harbor
	http *http.Client
}

func newClient(t *testing.T, h *harbortest.Harbor) *client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t: t, h: h, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// do sends a request; body is nil, a string, or a value to send as JSON.
func (c *client) do(who login, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatalf("encoding the body: %v", err)
		}
		reader = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), testTimeout)
	defer cancel()
	url := path
	if strings.HasPrefix(path, "/") {
		url = c.h.URL() + path
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		c.t.Fatalf("building %s %s: %v", method, path, err)
	}
	if who.name != "" {
		req.SetBasicAuth(who.name, who.secret)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("reading %s %s: %v", method, path, err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: raw}
}

// want sends a request and fails the test unless it answers with the status.
func (c *client) want(status int, who login, method, path string, body any, headers ...string) answer {
	c.t.Helper()
	got := c.do(who, method, path, body, headers...)
	if got.status != status {
		c.t.Fatalf("%s %s as %q: got status %d, want %d; body %s", method, path, who.name, got.status, status, got.body)
	}
	return got
}

func (c *client) project(name string, metadata map[string]string) {
	c.t.Helper()
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects",
		map[string]any{"project_name": name, "metadata": metadata})
}

// robot makes a system robot with rights, as "repository:push", on projects ("*" for all), or with the kind "system"
// on the system.
func (c *client) robot(name, kind, namespace string, rights ...string) login {
	c.t.Helper()
	return c.robotOf("system", name, kind, namespace, rights...)
}

func (c *client) robotOf(level, name, kind, namespace string, rights ...string) login {
	c.t.Helper()
	access := make([]map[string]string, 0, len(rights))
	for _, r := range rights {
		resource, action, _ := strings.Cut(r, ":")
		access = append(access, map[string]string{"resource": resource, "action": action})
	}
	var made struct{ Name, Secret string }
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/robots", map[string]any{
		"name": name, "level": level, "duration": -1,
		"permissions": []any{map[string]any{"kind": kind, "namespace": namespace, "access": access}},
	}).decode(c.t, &made)
	return login{made.Name, made.Secret}
}

func (c *client) policy(project, name, address, format string) {
	c.t.Helper()
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/"+project+"/webhook/policies",
		map[string]any{
			"name": name, "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
			"targets": []any{map[string]any{
				"type": "http", "address": address, "auth_header": "Bearer hook-secret-1", "payload_format": format,
			}},
		})
}

// ref parses a reference in the emulator's registry.
func (c *client) ref(format string, args ...any) name.Reference {
	c.t.Helper()
	r, err := name.ParseReference(c.h.Host()+"/"+fmt.Sprintf(format, args...), name.Insecure)
	if err != nil {
		c.t.Fatalf("parsing a reference: %v", err)
	}
	return r
}

func (c *client) options(who login) []remote.Option {
	return []remote.Option{
		remote.WithAuth(&authn.Basic{Username: who.name, Password: who.secret}),
		remote.WithTransport(c.http.Transport), remote.WithContext(c.t.Context()),
	}
}

func (c *client) image() v1.Image {
	c.t.Helper()
	img, err := random.Image(64, 1)
	if err != nil {
		c.t.Fatalf("making an image: %v", err)
	}
	return img
}

func (c *client) index() v1.ImageIndex {
	c.t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: c.image(), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return idx
}

func (c *client) push(who login, img v1.Image, format string, args ...any) v1.Hash {
	c.t.Helper()
	if err := remote.Write(c.ref(format, args...), img, c.options(who)...); err != nil {
		c.t.Fatalf("pushing: %v", err)
	}
	d, err := img.Digest()
	if err != nil {
		c.t.Fatalf("digest: %v", err)
	}
	return d
}
