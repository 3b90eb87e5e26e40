package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log" //nolint:depguard // what the in-memory registry takes
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/egress"
	"github.com/harborseal/harborseal/pkg/registry"
)

const (
	username     = "robot$harborseal"
	secret       = "S3cr3t-of-the-robot"
	repository   = "demo/team/app"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is go-containerregistry's registry in memory, behind Harbor's token service, with uploads as distribution does
// them: a single POST uploads nothing, and a manifest needs its blobs.
type fake struct {
	inner http.Handler
	// intercept answers a request in the registry's place if it returns true.
	intercept func(w http.ResponseWriter, r *http.Request) bool
	// rights are the actions that tokens carry, and realm the token service that challenges name (empty: the right one).
	rights   []string
	realm    string
	lifetime int

	mu       sync.Mutex
	requests []string          // guarded by mu
	tokens   map[string]bool   // guarded by mu
	sessions map[string]string // guarded by mu: upload location to state
	issued   int               // guarded by mu
}

func newFake() *fake {
	return &fake{
		inner:  ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true)),
		rights: []string{"pull", "push"}, lifetime: 1800, tokens: make(map[string]bool), sessions: make(map[string]string),
	}
}

// seen gives the requests since the last call, as "METHOD path".
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.requests
	f.requests = nil
	return seen
}

// tokenRequests is how many tokens were asked for since the last look at the requests.
func (f *fake) tokenRequests() int {
	n := 0
	for _, request := range f.seen() {
		if request == "GET /service/token" {
			n++
		}
	}
	return n
}

func (f *fake) revokeTokens() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.tokens)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if !strings.Contains(r.UserAgent(), "cosign") {
		http.Error(w, "no cosign in the User-Agent", http.StatusTeapot)
		return
	}
	if f.intercept != nil && f.intercept(w, r) {
		return
	}
	if r.URL.Path == "/service/token" {
		f.serveToken(w, r)
		return
	}
	f.mu.Lock()
	known := f.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	f.mu.Unlock()
	if !known {
		f.challenge(w, r)
		return
	}
	f.serveRegistry(w, r)
}

func (f *fake) challenge(w http.ResponseWriter, r *http.Request) {
	realm := f.realm
	if realm == "" {
		realm = "http://" + r.Host + "/service/token"
	}
	w.Header().Set("Www-Authenticate", `Bearer realm="`+realm+`",service="harbor-registry",scope="repository:x:pull"`)
	reply(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
}

func (f *fake) serveToken(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	scope := strings.Split(r.URL.Query().Get("scope"), ":")
	subject, rights := user, f.rights
	if user != username || password != secret {
		subject, rights = "", []string{} // as Harbor: 200, and a token for nobody
	}
	f.mu.Lock()
	f.issued++
	token := makeToken(subject, scope[1], rights, f.issued)
	f.tokens[token] = true
	f.mu.Unlock()
	_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":%d}`, token, f.lifetime)
}

func makeToken(subject, repository string, actions []string, serial int) string {
	payload, err := json.Marshal(map[string]any{
		"sub": subject, "jti": serial,
		"access": []any{map[string]any{"type": "repository", "name": repository, "actions": actions}},
	})
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
}

// serveRegistry adds what distribution does and go-containerregistry's registry does not.
func (f *fake) serveRegistry(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/blobs/uploads/"):
		r.URL.RawQuery = "" // a digest here, and a body, are ignored
		r.Body = http.NoBody
		rec := httptest.NewRecorder()
		f.inner.ServeHTTP(rec, r)
		location := rec.Header().Get("Location")
		state := base64.URLEncoding.EncodeToString([]byte("state of " + location + "?&="))
		f.mu.Lock()
		f.sessions[location] = state
		f.mu.Unlock()
		w.Header().Set("Location", location+"?_state="+url.QueryEscape(state))
		w.WriteHeader(rec.Code)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/"):
		f.mu.Lock()
		state, known := f.sessions[r.URL.Path]
		f.mu.Unlock()
		if !known || r.URL.Query().Get("_state") != state {
			reply(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
			return
		}
		f.inner.ServeHTTP(w, r)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if missing := f.missing(r, body); missing != "" {
			reply(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: "+missing)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		f.inner.ServeHTTP(w, r)
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") && !strings.Contains(r.Header.Get("Accept"), indexType):
		reply(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "OCI index found, but accept header does not support OCI indexes")
	default:
		f.inner.ServeHTTP(w, r)
	}
}

// missing gives the first blob that a manifest names and the registry lacks.
func (f *fake) missing(r *http.Request, manifest []byte) string {
	var m struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if json.Unmarshal(manifest, &m) != nil {
		return ""
	}
	for _, piece := range append(m.Layers, m.Config) {
		req := httptest.NewRequestWithContext(r.Context(), http.MethodHead, strings.SplitAfter(r.URL.Path, repository)[0]+"/blobs/"+piece.Digest, http.NoBody)
		rec := httptest.NewRecorder()
		if f.inner.ServeHTTP(rec, req); piece.Digest != "" && rec.Code != http.StatusOK {
			return piece.Digest
		}
	}
	return ""
}

func reply(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message) //nolint:gosec // JSON for a program
}

func serve(tb testing.TB, handler http.Handler) *httptest.Server {
	tb.Helper()
	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)
	return server
}

func secretFile(tb testing.TB, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// newClient makes a client for a server; change may be nil.
func newClient(tb testing.TB, address string, change func(*registry.Config)) *registry.Client {
	tb.Helper()
	transport := newTransport(tb)
	cfg := registry.Config{URL: address, Username: username, SecretFile: secretFile(tb, secret+"\n"), Transport: transport, Logger: zerolog.Nop()}
	if change != nil {
		change(&cfg)
	}
	c, err := registry.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return c
}

// newTransport makes the transport that the programs use.
func newTransport(tb testing.TB) *http.Transport {
	tb.Helper()
	transport, err := egress.NewTransport(new(egress.Dialer), "")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// dialling changes how connections are opened.
func dialling(tb testing.TB, dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(*registry.Config) {
	tb.Helper()
	return func(cfg *registry.Config) {
		transport := newTransport(tb)
		transport.DialContext = dial
		cfg.Transport = transport
	}
}

func blob(content string) artifact.Blob {
	return artifact.Blob{Digest: artifact.DigestOf([]byte(content)), Raw: []byte(content)}
}

func manifest(pieces ...artifact.Blob) artifact.Manifest {
	var layers []string
	for _, b := range pieces[1:] {
		layers = append(layers, fmt.Sprintf(`{"mediaType":"a/b","size":%d,"digest":%q}`, len(b.Raw), b.Digest))
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"a/c","size":%d,"digest":%q},"layers":[%s]}`,
		manifestType, len(pieces[0].Raw), pieces[0].Digest, strings.Join(layers, ","))
	return artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
}

// operation is one call of the client and the request in it that a test answers differently.
type operation struct {
	name   string
	method string
	path   string // contained in the request's path
	run    func(ctx context.Context, c *registry.Client) error
	// asks says that the request is about credentials and not about content.
	asks bool
	// lists says that the request is about other manifests than the one that it names.
	lists bool
}

func operations() []operation {
	b := blob("content")
	m := manifest(b)
	readManifest := func(reference string) func(context.Context, *registry.Client) error {
		return func(ctx context.Context, c *registry.Client) error {
			_, err := c.Manifest(ctx, repository, reference)
			return err
		}
	}
	push := func(ctx context.Context, c *registry.Client) error { return c.PushBlob(ctx, repository, b) }
	check := func(ctx context.Context, c *registry.Client) error { return c.CheckPush(ctx, repository) }
	return []operation{
		{name: "manifest by digest", method: http.MethodGet, path: "/manifests/", run: readManifest(m.Digest)},
		{name: "manifest by tag", method: http.MethodGet, path: "/manifests/", run: readManifest("v1")},
		{name: "blob", method: http.MethodGet, path: "/blobs/", run: func(ctx context.Context, c *registry.Client) error {
			_, err := c.Blob(ctx, repository, b.Digest, 100)
			return err
		}},
		{name: "referrers", method: http.MethodGet, path: "/referrers/", lists: true, run: func(ctx context.Context, c *registry.Client) error {
			_, err := c.Referrers(ctx, repository, m.Digest)
			return err
		}},
		{name: "upload, start", method: http.MethodPost, path: "/blobs/uploads/", run: push},
		{name: "upload, finish", method: http.MethodPut, path: "/blobs/uploads/", run: push},
		{name: "put manifest", method: http.MethodPut, path: "/manifests/", run: func(ctx context.Context, c *registry.Client) error {
			return c.PutManifest(ctx, repository, "v1", m)
		}},
		{name: "token", method: http.MethodGet, path: "/service/token", run: check, asks: true},
		{name: "greeting", method: http.MethodGet, path: "/v2/", run: check, asks: true},
	}
}

// meets says whether a request is the one that the operation is about.
func (o operation) meets(r *http.Request) bool {
	if o.path == "/v2/" {
		return r.URL.Path == o.path
	}
	return r.Method == o.method && strings.Contains(r.URL.Path, o.path)
}
