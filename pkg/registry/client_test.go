package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/registry"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if encoding := r.Header.Get("Accept-Encoding"); encoding != "identity" {
			t.Errorf("%s asks for the encoding %q, but digests are those of the bytes as stored", r.URL.Path, encoding)
		}
		return false
	}
	c := newClient(t, serve(t, f).URL, nil)
	config, layer := blob("{}"), blob("a payload")
	m := manifest(config, layer)

	if err := c.CheckPush(t.Context(), repository); err != nil {
		t.Fatalf("CheckPush: %v", err)
	}
	f.seen()
	_, err := c.Manifest(t.Context(), repository, m.Digest)
	if got := fault.Of(err); got.Kind != fault.Gone || got.Reason != fault.NotFound {
		t.Errorf("Manifest() before = %v, want gone", err)
	}
	if err := c.PushBlob(t.Context(), repository, layer); err != nil {
		t.Fatalf("PushBlob: %v", err)
	}
	err = c.PutManifest(t.Context(), repository, "v1", m)
	if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.BlobUnknown {
		t.Errorf("PutManifest() without its config = %v, want blob_unknown", err)
	}
	if err := c.PushBlob(t.Context(), repository, config); err != nil {
		t.Fatalf("PushBlob: %v", err)
	}
	for _, reference := range []string{"v1", m.Digest} {
		if err := c.PutManifest(t.Context(), repository, reference, m); err != nil {
			t.Fatalf("PutManifest at %s: %v", reference, err)
		}
		got, err := c.Manifest(t.Context(), repository, reference)
		if err != nil || got.Digest != m.Digest || !bytes.Equal(got.Raw, m.Raw) || got.MediaType != manifestType {
			t.Errorf("Manifest(%s) = %s %s, %v, want what was put", reference, got.MediaType, got.Digest, err)
		}
	}
	for _, b := range []artifact.Blob{config, layer} {
		if got, err := c.Blob(t.Context(), repository, b.Digest, 100); err != nil || !bytes.Equal(got, b.Raw) {
			t.Errorf("Blob() = %q, %v, want %q", got, err, b.Raw)
		}
	}
	// The whole of it, tokens included: 1 for a reading, 2 for each blob, 1 for a manifest.
	want := 1 + 2 + 1 + 2 + 2*2 + 2
	if seen := f.seen(); len(seen) != want {
		t.Errorf("%d requests, want %d:\n%s", len(seen), want, strings.Join(seen, "\n"))
	}
}

// TestCost counts what arrives at the registry, tokens and greetings included.
func TestCost(t *testing.T) {
	t.Parallel()
	b := blob("content")
	m := manifest(b)
	for _, tt := range []struct {
		name string
		warm int
		run  func(c *registry.Client, repository string) error
	}{
		{"manifest by digest", 1, func(c *registry.Client, repository string) error {
			_, err := c.Manifest(t.Context(), repository, m.Digest)
			return err
		}},
		{"manifest by tag", 1, func(c *registry.Client, repository string) error {
			_, err := c.Manifest(t.Context(), repository, "v1")
			return err
		}},
		{"missing manifest", 1, func(c *registry.Client, repository string) error {
			if _, err := c.Manifest(t.Context(), repository, "none"); !fault.Is(err, fault.Gone) {
				return fmt.Errorf("a missing tag: %w", err)
			}
			return nil
		}},
		{"blob", 1, func(c *registry.Client, repository string) error {
			_, err := c.Blob(t.Context(), repository, b.Digest, 100)
			return err
		}},
		{"referrers", 1, func(c *registry.Client, repository string) error {
			_, err := c.Referrers(t.Context(), repository, m.Digest)
			return err
		}},
		{"push blob", 2, func(c *registry.Client, repository string) error { return c.PushBlob(t.Context(), repository, b) }},
		{"put manifest", 1, func(c *registry.Client, repository string) error {
			return c.PutManifest(t.Context(), repository, "v1", m)
		}},
		{"check push", 1, func(c *registry.Client, repository string) error { return c.CheckPush(t.Context(), repository) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			server := serve(t, f)
			setup := newClient(t, server.URL, nil)
			for _, name := range []string{repository, "demo/other"} {
				if err := errors.Join(setup.PushBlob(t.Context(), name, b), setup.PutManifest(t.Context(), name, "v1", m)); err != nil {
					t.Fatal(err)
				}
			}
			f.seen()
			c := newClient(t, server.URL, nil)
			token := 1
			if tt.name == "check push" {
				token = 0 // it is about the token alone
			}
			for _, step := range []struct {
				name, repository string
				want             int
			}{
				{"cold", repository, 1 + token + tt.warm}, // a greeting, once in the client's life, and a token for the repository
				{"warm", repository, tt.warm},
				{"another repository", "demo/other", token + tt.warm},
				{"warm again", repository, tt.warm},
			} {
				if err := tt.run(c, step.repository); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				if seen := f.seen(); len(seen) != step.want {
					t.Errorf("%s: %d requests, want %d:\n%s", step.name, len(seen), step.want, strings.Join(seen, "\n"))
				}
			}
		})
	}
}

func TestReadingIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		size    int
		chunked bool
		want    fault.Reason
	}{
		{"as large as allowed", artifact.MaxManifest, false, ""},
		{"one byte more", artifact.MaxManifest + 1, false, fault.TooLarge},
		{"one byte more, length unknown", artifact.MaxManifest + 1, true, fault.TooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			content := bytes.Repeat([]byte("x"), tt.size)
			f := newFake()
			f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, repository) {
					return false
				}
				if !tt.chunked {
					w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				}
				_, _ = w.Write(content)
				return true
			}
			c := newClient(t, serve(t, f).URL, nil)
			_, manifestErr := c.Manifest(t.Context(), repository, artifact.DigestOf(content))
			_, blobErr := c.Blob(t.Context(), repository, artifact.DigestOf(content), artifact.MaxManifest)
			for _, err := range []error{manifestErr, blobErr} {
				if tt.want == "" && err != nil {
					t.Errorf("error = %v, want none", err)
				}
				if tt.want != "" && (!fault.Is(err, fault.Permanent) || fault.Of(err).Reason != tt.want) {
					t.Errorf("error = %v, want permanent %s", err, tt.want)
				}
			}
		})
	}
}

// endless answers every operation with a body that never ends, and counts what is read of it.
type endless struct {
	status int
	read   *int64
}

func (e endless) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/v2/" || r.URL.Path == "/service/token" {
		return canned(nil).RoundTrip(r)
	}
	header := http.Header{"Content-Type": {indexType}}
	return &http.Response{StatusCode: e.status, Header: header, Request: r, Body: io.NopCloser(e), ContentLength: -1}, nil
}

func (e endless) Read(p []byte) (int, error) {
	*e.read += int64(len(p))
	return len(p), nil
}

func TestEndlessAnswersAreNotReadToTheirEnd(t *testing.T) {
	t.Parallel()
	for _, op := range operations() {
		if op.asks {
			continue
		}
		for _, status := range []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNotFound, http.StatusBadGateway} {
			var read int64
			c := newClient(t, "http://harbor.example.com", func(cfg *registry.Config) { cfg.Transport = endless{status: status, read: &read} })
			err := op.run(t.Context(), c)
			if err == nil || fault.Is(err, fault.Gone) {
				t.Errorf("%s, %d: error = %v, want a fault other than gone", op.name, status, err)
			}
			if read > artifact.MaxManifest+1024 {
				t.Errorf("%s, %d: %d bytes were read, want at most %d", op.name, status, read, artifact.MaxManifest)
			}
		}
	}
}

func TestContentMustMatchItsDigest(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, repository) {
			return false
		}
		_, _ = w.Write([]byte("something else"))
		return true
	}
	c := newClient(t, serve(t, f).URL, nil)
	digest := artifact.DigestOf([]byte("what was asked for"))
	_, manifestErr := c.Manifest(t.Context(), repository, digest)
	_, blobErr := c.Blob(t.Context(), repository, digest, 100)
	for _, err := range []error{manifestErr, blobErr} {
		if err == nil || fault.Of(err).Reason != fault.DigestMismatch {
			t.Errorf("error = %v, want digest_mismatch", err)
		}
	}
	for header, want := range map[string]fault.Reason{"": "", digest: fault.DigestMismatch} {
		tagged := cannedClient(t, func(*http.Request) (int, http.Header, string) {
			return http.StatusOK, http.Header{"Content-Type": {manifestType}, "Docker-Content-Digest": {header}}, "something else"
		})
		got, err := tagged.Manifest(t.Context(), repository, "v1")
		if want == "" && (err != nil || got.Digest != artifact.DigestOf([]byte("something else"))) ||
			want != "" && (err == nil || fault.Of(err).Reason != want) {
			t.Errorf("Manifest() by tag with the digest %q beside it = %s, %v, want %q", header, got.Digest, err, want)
		}
	}
	// A tag says nothing of its content: the type must.
	for _, contentType := range []string{"", "text/html; charset=utf-8", "application/json", "json", manifestType + "x"} {
		page := cannedClient(t, func(*http.Request) (int, http.Header, string) {
			return http.StatusOK, http.Header{"Content-Type": {contentType}}, "{}"
		})
		if _, err := page.Manifest(t.Context(), repository, "v1"); err == nil || !fault.Is(err, fault.Transient) || fault.Of(err).Reason != fault.BadAnswer {
			t.Errorf("Manifest() by tag of an answer of type %q = %v, want bad_answer", contentType, err)
		}
	}
}

func TestStoredSomethingElse(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		w.Header().Set("Docker-Content-Digest", artifact.DigestOf(nil))
		w.WriteHeader(http.StatusCreated)
		return true
	}
	err := newClient(t, serve(t, f).URL, nil).PutManifest(t.Context(), repository, "v1", manifest(blob("{}")))
	if got := fault.Of(err); got.Kind != fault.Transient || got.Reason != fault.BadAnswer {
		t.Errorf("PutManifest() = %v, want bad_answer", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := registry.Config{
		URL: "https://harbor.example.com", Username: username, SecretFile: file("good", secret, 0o600), Transport: &http.Transport{},
	}
	if _, err := registry.New(good); err != nil {
		t.Fatalf("New: %v", err)
	}
	for name, tt := range map[string]struct {
		change func(*registry.Config)
		want   string
	}{
		"no URL":             {func(c *registry.Config) { c.URL = "" }, "https://host"},
		"no scheme":          {func(c *registry.Config) { c.URL = "harbor.example.com" }, "https://host"},
		"another scheme":     {func(c *registry.Config) { c.URL = "ftp://harbor.example.com" }, "https://host"},
		"unreadable URL":     {func(c *registry.Config) { c.URL = "https://u:" + secret + "@[" }, "cannot be read"},
		"credentials in URL": {func(c *registry.Config) { c.URL = "https://u:" + secret + "@h" }, "must not carry credentials"},
		"path":               {func(c *registry.Config) { c.URL = "https://h/v2" }, "no path"},
		"no user":            {func(c *registry.Config) { c.Username = "" }, "user name"},
		"user with a colon":  {func(c *registry.Config) { c.Username = "a:b" }, "user name"},
		"no secret":          {func(c *registry.Config) { c.SecretFile = "" }, "not set"},
		"missing secret":     {func(c *registry.Config) { c.SecretFile = filepath.Join(dir, "none") }, "none"},
		"secret is a folder": {func(c *registry.Config) { c.SecretFile = dir }, "secret file"},
		"open secret":        {func(c *registry.Config) { c.SecretFile = file("open", secret, 0o644) }, "chmod 600"},
		"secret of a group":  {func(c *registry.Config) { c.SecretFile = file("group", secret, 0o640) }, "chmod 600"},
		"empty secret":       {func(c *registry.Config) { c.SecretFile = file("empty", "\n", 0o600) }, "is empty"},
		"two lines":          {func(c *registry.Config) { c.SecretFile = file("two", secret+"\n"+secret, 0o600) }, "more than one line"},
		"huge secret":        {func(c *registry.Config) { c.SecretFile = file("huge", strings.Repeat(secret, 1<<13), 0o600) }, "cannot be a secret"},
		"no transport":       {func(c *registry.Config) { c.Transport = nil }, "transport is not set"},
		"user agent":         {func(c *registry.Config) { c.UserAgent = "Cosign/1" }, "cosign in lower case"},
		"user agent, lines":  {func(c *registry.Config) { c.UserAgent = "cosign\r\nX: y" }, "user agent"},
		"negative timeout":   {func(c *registry.Config) { c.Timeout = -time.Second }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			tt.change(&cfg)
			c, err := registry.New(cfg)
			if err == nil || c != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("New() = %v, %v, want an error with %q", c, err, tt.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
	_, err := registry.New(registry.Config{Timeout: -1})
	for _, part := range []string{"URL", "secret file", "user name", "transport", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("New() of nothing = %v, want all that is wrong at once, %q too", err, part)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := newClient(t, serve(t, newFake()).URL, func(cfg *registry.Config) { cfg.Registerer = reg })
	_, _ = c.Manifest(t.Context(), repository, "v1")
	if err := c.PushBlob(t.Context(), repository, blob("{}")); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP harborseal_registry_requests_total Requests to the registry by operation and class of status (error: no answer).
# TYPE harborseal_registry_requests_total counter
harborseal_registry_requests_total{code_class="2xx",operation="blob_upload_finish"} 1
harborseal_registry_requests_total{code_class="2xx",operation="blob_upload_start"} 1
harborseal_registry_requests_total{code_class="2xx",operation="token"} 1
harborseal_registry_requests_total{code_class="4xx",operation="manifest_get"} 1
harborseal_registry_requests_total{code_class="4xx",operation="ping"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "harborseal_registry_requests_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "harborseal_registry_request_seconds"); err != nil || n != 5 {
		t.Errorf("%d histograms, %v, want one for each of 5 operations", n, err)
	}
	if _, err := registry.New(registry.Config{
		URL: "https://h", Username: username, SecretFile: secretFile(t, secret), Transport: &http.Transport{}, Registerer: reg,
	}); err == nil {
		t.Error("New() registered its metrics twice")
	}
}
