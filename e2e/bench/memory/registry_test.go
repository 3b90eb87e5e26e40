package memory_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/harborseal/harborseal/e2e/bench/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a registry on the loopback interface.
type server struct {
	t        *testing.T
	url      string
	registry *memory.Registry
	client   *http.Client
}

func serve(t *testing.T, username, secret string) *server {
	t.Helper()
	registry := memory.New(username, secret)
	s := httptest.NewServer(registry)
	t.Cleanup(s.Close)
	return &server{t: t, url: s.URL, registry: registry, client: s.Client()}
}

// answer is an answer that was read to its end.
type answer struct {
	status int
	header http.Header
	length int64
	body   string
}

// do sends a request to a path.
func (s *server) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, body: string(raw)}
}

// want checks an answer's status and, if it is not empty, a part of its body.
func (s *server) want(status int, part, method, path, body string, header ...string) answer {
	s.t.Helper()
	got := s.do(method, path, body, header...)
	if got.status != status || !strings.Contains(got.body, part) {
		s.t.Errorf("%s %s = %d %s, want %d with %q", method, path, got.status, got.body, status, part)
	}
	return got
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// push uploads a blob and gives its digest.
func (s *server) push(repository, content string) string {
	s.t.Helper()
	got := s.want(http.StatusAccepted, "", http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "")
	location := got.header.Get("Location")
	if !strings.HasPrefix(location, "/v2/") || !strings.Contains(location, "?") {
		s.t.Fatalf("location %q, want a relative one with a query", location)
	}
	s.want(http.StatusCreated, "", http.MethodPut, location+"&digest="+digestOf(content), content)
	return digestOf(content)
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func manifestOf(config, layer, subject string) string {
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"a/b","config":{"mediaType":"c/d","size":2,"digest":%q},`+
		`"layers":[{"mediaType":"e/f","size":1,"digest":%q}]`, manifestType, config, layer)
	if subject != "" {
		m += fmt.Sprintf(`,"subject":{"mediaType":%q,"size":1,"digest":%q}`, manifestType, subject)
	}
	return m + "}"
}

func TestAnUploadInOnePostIsIgnored(t *testing.T) {
	t.Parallel()
	s := serve(t, "", "")
	digest := digestOf("content")
	s.want(http.StatusAccepted, "", http.MethodPost, "/v2/p/a/blobs/uploads/?digest="+digest, "content")
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", http.MethodGet, "/v2/p/a/blobs/"+digest, "")
}

func TestUploads(t *testing.T) {
	t.Parallel()
	s := serve(t, "", "")
	start := func() string {
		return s.want(http.StatusAccepted, "", http.MethodPost, "/v2/p/a/blobs/uploads/", "").header.Get("Location")
	}
	location := start()
	s.want(http.StatusBadRequest, "DIGEST_INVALID", http.MethodPut, location+"&digest="+digestOf("other"), "content")
	s.want(http.StatusBadRequest, "DIGEST_INVALID", http.MethodPut, location, "content")
	s.want(http.StatusCreated, "", http.MethodPut, location+"&digest="+digestOf("content"), "content")
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", http.MethodPut, location+"&digest="+digestOf("content"), "content")
	s.want(http.StatusOK, "content", http.MethodGet, "/v2/p/a/blobs/"+digestOf("content"), "")
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", http.MethodGet, "/v2/p/b/blobs/"+digestOf("content"), "")

	location = s.want(http.StatusAccepted, "", http.MethodPatch, start(), "one").header.Get("Location")
	location = s.want(http.StatusAccepted, "", http.MethodPatch, location, "two").header.Get("Location")
	s.want(http.StatusCreated, "", http.MethodPut, location+"&digest="+digestOf("onetwo"), "")
	s.want(http.StatusOK, "onetwo", http.MethodGet, "/v2/p/a/blobs/"+digestOf("onetwo"), "")

	mount := "/v2/p/b/blobs/uploads/?from=p/a&mount="
	s.want(http.StatusAccepted, "", http.MethodPost, mount+digestOf("unknown"), "")
	s.want(http.StatusCreated, "", http.MethodPost, mount+digestOf("content"), "")
	s.want(http.StatusOK, "content", http.MethodGet, "/v2/p/b/blobs/"+digestOf("content"), "")
}

func TestManifests(t *testing.T) {
	t.Parallel()
	s := serve(t, "", "")
	const path = "/v2/p/a/manifests/"
	config, layer := digestOf("{}"), digestOf("layer")
	m := manifestOf(config, layer, "")
	put := func(status int, part, reference, body string) answer {
		t.Helper()
		return s.want(status, part, http.MethodPut, path+reference, body, "Content-Type", manifestType)
	}
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", http.MethodGet, path+"v1", "")
	put(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "v1", m)
	s.push("p/a", "{}")
	put(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "v1", m)
	s.push("p/b", "layer")
	put(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "v1", m)
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", http.MethodGet, path+"v1", "")
	s.push("p/a", "layer")
	put(http.StatusBadRequest, "MANIFEST_INVALID", "v1", "no manifest")
	put(http.StatusBadRequest, "MANIFEST_INVALID", "v1", "{}")
	put(http.StatusBadRequest, "DIGEST_INVALID", digestOf("other"), m)
	if got := put(http.StatusCreated, "", "v1", m).header.Get("Docker-Content-Digest"); got != digestOf(m) {
		t.Errorf("the digest of what was put is %q, want %q", got, digestOf(m))
	}
	for _, reference := range []string{"v1", digestOf(m)} {
		got := s.do(http.MethodGet, path+reference, "")
		if got.body != m || got.header.Get("Content-Type") != manifestType || got.header.Get("Docker-Content-Digest") != digestOf(m) {
			t.Errorf("GET %s = %s with %v, want what was put", reference, got.body, got.header)
		}
		if got := s.do(http.MethodHead, path+reference, ""); got.length != int64(len(m)) || got.body != "" {
			t.Errorf("HEAD %s = %d bytes and the body %q, want %d bytes and none", reference, got.length, got.body, len(m))
		}
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"size":1,"digest":%q}]}`, manifestType, digestOf("unknown"))
	put(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "index", index)
	put(http.StatusCreated, "", "index", strings.Replace(index, digestOf("unknown"), digestOf(m), 1))
	s.want(http.StatusMethodNotAllowed, "UNSUPPORTED", http.MethodDelete, path+"v1", "")

	s.registry.Reset()
	s.want(http.StatusNotFound, "MANIFEST_UNKNOWN", http.MethodGet, path+"v1", "")
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	s := serve(t, "", "")
	config, layer := s.push("p/a", "{}"), s.push("p/a", "layer")
	subject := digestOf("a subject that is not there yet")
	path := "/v2/p/a/referrers/" + subject
	s.want(http.StatusOK, `"manifests":[]`, http.MethodGet, path, "")
	m := manifestOf(config, layer, subject)
	for range 2 {
		s.want(http.StatusCreated, "", http.MethodPut, "/v2/p/a/manifests/"+digestOf(m), m, "Content-Type", manifestType)
	}
	for query, want := range map[string]int{"": 1, "?artifactType=a/b": 1, "?artifactType=c/d": 0} {
		body := s.do(http.MethodGet, path+query, "").body
		var index struct {
			Manifests []struct{ Digest, ArtifactType string }
		}
		if err := json.Unmarshal([]byte(body), &index); err != nil || len(index.Manifests) != want {
			t.Errorf("referrers%s = %s, %v, want %d", query, body, err, want)
		} else if want > 0 && (index.Manifests[0].Digest != digestOf(m) || index.Manifests[0].ArtifactType != "a/b") {
			t.Errorf("referrers%s = %s, want %s of type a/b", query, body, digestOf(m))
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := serve(t, "robot", "secret")
	got := s.want(http.StatusUnauthorized, "UNAUTHORIZED", http.MethodGet, "/v2/", "")
	if got, want := got.header.Get("Www-Authenticate"), `Bearer realm="`+s.url+`/service/token",service="registry"`; got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	token := func(secret string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/service/token?scope=repository:p/a:pull,push", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("robot", secret)
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		var answer struct{ Token string }
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
			t.Fatalf("no token: %d, %v", resp.StatusCode, err)
		}
		return "Bearer " + answer.Token
	}
	s.want(http.StatusUnauthorized, "", http.MethodGet, "/v2/p/a/manifests/v1", "", "Authorization", token("wrong"))
	good := token("secret")
	s.want(http.StatusNotFound, "", http.MethodGet, "/v2/p/a/manifests/v1", "", "Authorization", good)
	s.want(http.StatusUnauthorized, "", http.MethodGet, "/v2/p/b/manifests/v1", "", "Authorization", good)
	s.want(http.StatusUnauthorized, "", http.MethodGet, "/v2/p/a/manifests/v1", "", "Authorization", good+"x")
	want := map[string]int64{"ping": 1, "token": 2, "manifest GET": 4}
	if got := s.registry.Requests(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// TestAnotherClient pushes and reads with go-containerregistry, which does it all differently.
func TestAnotherClient(t *testing.T) {
	t.Parallel()
	s := serve(t, "robot", "secret")
	img, err := random.Image(1<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(strings.TrimPrefix(s.url, "http://") + "/p/a:v1")
	if err != nil {
		t.Fatal(err)
	}
	options := []remote.Option{
		remote.WithContext(t.Context()), remote.WithTransport(s.client.Transport),
		remote.WithAuth(&authn.Basic{Username: "robot", Password: "secret"}),
	}
	if err := remote.Write(tag, img, options...); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(tag, options...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := got.RawManifest(); err != nil || !bytes.Equal(raw, want) {
		t.Errorf("read %s, %v, want %s", raw, err, want)
	}
}

func TestPathsThatAreNone(t *testing.T) {
	t.Parallel()
	s := serve(t, "", "")
	s.want(http.StatusOK, "", http.MethodGet, "/v2/", "")
	for _, path := range []string{"/", "/v2/a", "/v2/manifests/v1", "/v2/a/manifests/", "/v2/a/manifests/v1/x", "/v2/a/tags/list", "/service/token"} {
		s.want(http.StatusNotFound, "", http.MethodGet, path, "")
	}
	s.want(http.StatusMethodNotAllowed, "", http.MethodGet, "/v2/a/blobs/uploads/", "")
}
