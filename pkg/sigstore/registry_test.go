package sigstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log" //nolint:depguard // what the in-memory registry takes
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/sigstore"
)

// memoryRegistry is go-containerregistry's registry on loopback, as far as its repository demo/app.
type memoryRegistry struct {
	t    testing.TB
	host string
}

func newRegistry(tb testing.TB) memoryRegistry {
	tb.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	tb.Cleanup(server.Close)
	return memoryRegistry{t: tb, host: strings.TrimPrefix(server.URL, "http://")}
}

type response struct {
	status   int
	location string
	body     []byte
}

func (r memoryRegistry) do(ctx context.Context, method, url, contentType string, body []byte) response {
	r.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = "http://" + r.host + url
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{status: resp.StatusCode, location: resp.Header.Get("Location"), body: content}
}

func (r memoryRegistry) putBlob(b artifact.Blob) {
	r.t.Helper()
	start := r.do(r.t.Context(), http.MethodPost, "/v2/demo/app/blobs/uploads/", "", nil)
	end := r.do(r.t.Context(), http.MethodPut, start.location+"?digest="+b.Digest, "application/octet-stream", b.Raw)
	if end.status != http.StatusCreated {
		r.t.Fatalf("pushing a blob: status %d, want 201", end.status)
	}
}

func (r memoryRegistry) putManifest(reference string, m artifact.Manifest) {
	r.t.Helper()
	resp := r.do(r.t.Context(), http.MethodPut, "/v2/demo/app/manifests/"+reference, m.MediaType, m.Raw)
	if resp.status != http.StatusCreated {
		r.t.Fatalf("putting a manifest: status %d, want 201", resp.status)
	}
}

func (r memoryRegistry) get(ctx context.Context, path string) []byte {
	r.t.Helper()
	resp := r.do(ctx, http.MethodGet, path, "", nil)
	if resp.status != http.StatusOK {
		r.t.Fatalf("GET %s: status %d, want 200", path, resp.status)
	}
	return resp.body
}

// putAll pushes blobs and then the manifest that needs them.
func (r memoryRegistry) putAll(reference string, m artifact.Manifest, pieces []artifact.Blob) {
	r.t.Helper()
	for _, piece := range pieces {
		r.putBlob(piece)
	}
	r.putManifest(reference, m)
}

func (r memoryRegistry) fetch() sigstore.Fetch {
	return func(ctx context.Context, digest string) ([]byte, error) {
		return r.get(ctx, "/v2/demo/app/blobs/"+digest), nil
	}
}

func (r memoryRegistry) referrers(digest string) []artifact.Descriptor {
	r.t.Helper()
	var index struct{ Manifests []artifact.Descriptor }
	if err := json.Unmarshal(r.get(r.t.Context(), "/v2/demo/app/referrers/"+digest), &index); err != nil {
		r.t.Fatal(err)
	}
	return index.Manifests
}

// putImage pushes a small image, by its digest if there is no tag.
func (r memoryRegistry) putImage(tag, content string) artifact.Descriptor {
	r.t.Helper()
	config := artifact.Blob{Raw: []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"created":"` + content + `"}`)}
	config.Digest = artifact.DigestOf(config.Raw)
	r.putBlob(config)
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	raw := mustJSON(r.t, map[string]any{
		"schemaVersion": 2, "mediaType": mediaType, "layers": []any{},
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.Digest, "size": len(config.Raw)},
	})
	if tag == "" {
		tag = artifact.DigestOf(raw)
	}
	r.putManifest(tag, artifact.Manifest{MediaType: mediaType, Raw: raw})
	return artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}
}
