package harbortest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

func TestPushAndPullWithARealClient(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	pusher := c.robot("pusher", "project", "*", "repository:push", "repository:pull")

	img := c.image()
	want := c.push(pusher, img, "demo/team/app:v1")
	got, err := remote.Image(c.ref("demo/team/app:v1"), c.options(pusher)...)
	if err != nil {
		t.Fatalf("pulling: %v", err)
	}
	if d, err := got.Digest(); err != nil || d != want {
		t.Errorf("pulled digest: got %v (%v), want %v", d, err, want)
	}
	layers, err := got.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers: got %d (%v), want 1", len(layers), err)
	}
	if _, err := layers[0].Uncompressed(); err != nil {
		t.Errorf("reading the layer: %v", err)
	}
	tags, err := remote.List(c.ref("demo/team/app:v1").Context(), c.options(pusher)...)
	if err != nil || len(tags) != 1 || tags[0] != "v1" {
		t.Errorf("tags: got %v (%v), want [v1]", tags, err)
	}

	if err := remote.WriteIndex(c.ref("demo/multi:v1"), c.index(), c.options(pusher)...); err != nil {
		t.Fatalf("pushing an index: %v", err)
	}
	for path, want := range map[string]string{
		"/api/v2.0/projects/demo/repositories/multi/artifacts":          "1",
		"/api/v2.0/projects/demo/repositories/multi/artifacts?q=base=*": "3",
		"/api/v2.0/projects/demo/artifacts":                             "2",
		"/api/v2.0/projects/demo/artifacts?q=base%3D*":                  "4",
	} {
		a := c.want(http.StatusOK, admin(), http.MethodGet, path, nil)
		if got := a.header.Get("X-Total-Count"); got != want {
			t.Errorf("%s: got X-Total-Count %s, want %s", path, got, want)
		}
	}
}

func TestReferrersWithARealClient(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	subject := c.push(admin(), c.image(), "demo/app:v1")
	size := len(c.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil,
		"Accept", allManifestTypes).body)
	referrer, ok := mutate.Subject(
		mutate.ConfigMediaType(mutate.MediaType(c.image(), types.OCIManifestSchema1), "application/vnd.example+json"),
		v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: subject, Size: int64(size)}).(v1.Image)
	if !ok {
		t.Fatal("a referrer is an image")
	}
	d, err := referrer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	c.push(admin(), referrer, "demo/app@%s", d)
	index, err := remote.Referrers(c.ref("demo/app@%s", subject).Context().Digest(subject.String()), c.options(admin())...)
	if err != nil {
		t.Fatalf("listing referrers: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest != d {
		t.Fatalf("referrers: got %+v (%v), want %s alone", manifest, err, d)
	}
	tags, err := remote.List(c.ref("demo/app").Context(), c.options(admin())...)
	if err != nil || len(tags) != 1 {
		t.Errorf("tags: got %v (%v): the client fell back to a referrers tag", tags, err)
	}
	filtered := c.want(http.StatusOK, admin(), http.MethodGet,
		fmt.Sprintf("/v2/demo/app/referrers/%s?artifactType=application/none", subject), nil)
	if filtered.header.Get("OCI-Filters-Applied") != "artifactType" || !bytes.Contains(filtered.body, []byte(`"manifests":[]`)) {
		t.Errorf("filtered referrers: got %v %s, want none and the header OCI-Filters-Applied", filtered.header, filtered.body)
	}
}

func TestUploads(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("other", nil)
	const uploads = "/v2/demo/app/blobs/uploads/"
	body := "some blob"
	d := digestOf([]byte(body))
	blob := "/v2/demo/app/blobs/" + d
	start := func() string {
		return c.want(http.StatusAccepted, admin(), http.MethodPost, uploads, nil).header.Get("Location")
	}

	// SPEC: distribution ignores the body of a single-request upload: 202, and the blob is absent.
	single := c.want(http.StatusAccepted, admin(), http.MethodPost, uploads+"?digest="+d, body)
	c.want(http.StatusNotFound, admin(), http.MethodHead, blob, nil)
	if single.header.Get("Location") == "" {
		t.Error("a single-request upload: got no Location to go on with")
	}

	c.want(http.StatusBadRequest, admin(), http.MethodPut, start()+"&digest="+digestOf([]byte("else")), body)
	c.want(http.StatusNotFound, admin(), http.MethodHead, blob, nil)

	location := start()
	chunk := c.want(http.StatusAccepted, admin(), http.MethodPatch, location, body[:4], "Content-Range", "0-3")
	if got := chunk.header.Get("Range"); got != "0-3" {
		t.Errorf("Range after a chunk: got %q, want 0-3", got)
	}
	c.want(http.StatusRequestedRangeNotSatisfiable, admin(), http.MethodPatch, location, body[4:], "Content-Range", "7-11")
	c.want(http.StatusCreated, admin(), http.MethodPut, chunk.header.Get("Location")+"&digest="+d, body[4:])
	if got := c.want(http.StatusOK, admin(), http.MethodGet, blob, nil); string(got.body) != body {
		t.Errorf("blob: got %q, want %q", got.body, body)
	}
	c.want(http.StatusNotFound, admin(), http.MethodPatch, location, "late")

	mount := "/v2/other/app/blobs/uploads/?mount=" + d + "&from=demo/app"
	c.want(http.StatusCreated, admin(), http.MethodPost, mount, nil)
	c.want(http.StatusOK, admin(), http.MethodHead, "/v2/other/app/blobs/"+d, nil)
	c.want(http.StatusAccepted, admin(), http.MethodPost, strings.Replace(mount, "demo", "other/no", 1), nil)

	pushOther := c.robot("pushother", "project", "other", "repository:push")
	c.want(http.StatusUnauthorized, pushOther, http.MethodPost, mount, nil)

	location = start()
	c.want(http.StatusNoContent, admin(), http.MethodDelete, location, nil)
	c.want(http.StatusNotFound, admin(), http.MethodPut, location+"&digest="+d, body)
}

func TestManifestRefusals(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	s := &stage{client: c}
	config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	manifest := func(extra map[string]any) []byte {
		m := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{}}
		maps.Copy(m, extra)
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	absent := map[string]any{"mediaType": ociManifest, "digest": digestOf([]byte("absent")), "size": 6}
	for name, test := range map[string]struct {
		path string
		body []byte
		code string
	}{
		"blob missing":       {"demo/app/manifests/v1", manifest(map[string]any{"layers": []any{absent}}), "MANIFEST_BLOB_UNKNOWN"},
		"blob elsewhere":     {"demo/other/manifests/v1", manifest(nil), "MANIFEST_BLOB_UNKNOWN"},
		"child missing":      {"demo/app/manifests/v1", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"` + digestOf(nil) + `"}]}`), "MANIFEST_BLOB_UNKNOWN"},
		"digest of others":   {"demo/app/manifests/" + digestOf([]byte("x")), manifest(nil), "DIGEST_INVALID"},
		"larger than 4 MiB":  {"demo/app/manifests/v1", append(manifest(nil), bytes.Repeat([]byte(" "), 4<<20)...), "MANIFEST_INVALID"},
		"no JSON":            {"demo/app/manifests/v1", []byte("no"), "MANIFEST_INVALID"},
		"no media type":      {"demo/app/manifests/v1", []byte("{}"), "MANIFEST_INVALID"},
		"tag with a newline": {"demo/app/manifests/v%0a1", manifest(nil), "TAG_INVALID"},
	} {
		mediaType := ociManifest
		if bytes.Contains(test.body, []byte("image.index")) {
			mediaType = "application/vnd.oci.image.index.v1+json"
		}
		got := c.do(admin(), http.MethodPut, "/v2/"+test.path, test.body, "Content-Type", mediaType)
		if got.status != http.StatusBadRequest || !bytes.Contains(got.body, []byte(test.code)) {
			t.Errorf("%s: got %d %s, want 400 %s", name, got.status, got.body, test.code)
		}
	}
	c.want(http.StatusCreated, admin(), http.MethodPut, "/v2/demo/app/manifests/v1", manifest(nil), "Content-Type", ociManifest)
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Accept", "*/*")
	c.want(http.StatusOK, admin(), http.MethodHead, "/v2/demo/app/manifests/v1", nil, "Accept", "text/html, "+ociManifest)
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("open", map[string]string{"public": "true"})
	realm := `Bearer realm="` + c.h.URL() + `/service/token",service="harbor-registry"`
	for name, test := range map[string]struct {
		who          login
		method, path string
		want         string
	}{
		"base":             {login{}, http.MethodGet, "/v2/", realm},
		"push":             {login{}, http.MethodPost, "/v2/demo/app/blobs/uploads/", realm + `,scope="repository:demo/app:pull,push"`},
		"public pull":      {login{}, http.MethodGet, "/v2/open/app/manifests/v1", realm + `,scope="repository:open/app:pull"`},
		"wrong password":   {login{"admin", "wrong"}, http.MethodGet, "/v2/", `Basic realm="harbor"`},
		"catalog":          {login{}, http.MethodGet, "/v2/_catalog", `Basic realm="harbor"`},
		"missing project":  {admin(), http.MethodGet, "/v2/nope/app/manifests/v1", `Basic realm="harbor"`},
		"nobody's project": {c.robot("none", "project", "open", "repository:push"), http.MethodGet, "/v2/demo/a/tags/list", `Basic realm="harbor"`},
	} {
		got := c.want(http.StatusUnauthorized, test.who, test.method, test.path, nil)
		if challenge := got.header.Get("Www-Authenticate"); challenge != test.want {
			t.Errorf("%s: got challenge %s, want %s", name, challenge, test.want)
		}
	}
	s := &stage{client: c}
	anonymous := "Bearer " + s.token(t, login{}, "repository:open/app:pull")
	c.want(http.StatusNotFound, login{}, http.MethodGet, "/v2/open/app/manifests/v1", nil, "Authorization", anonymous)
	c.want(http.StatusUnauthorized, login{}, http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Authorization", anonymous)
	valid := "Bearer " + s.token(t, admin(), "repository:demo/app:pull")
	c.want(http.StatusNotFound, login{}, http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Authorization", valid)
	forged := valid[:len(valid)-4] + "AAAA"
	c.want(http.StatusUnauthorized, login{}, http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Authorization", forged)
}

func TestDeletion(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	s := &stage{client: c, digests: map[string]string{}, bodies: map[string][]byte{}}
	const artifacts = "/api/v2.0/projects/demo/repositories/app/artifacts/"
	subject := recordedArtifact{
		Digest: "sha256:" + strings.Repeat("1", 64), Repository: "demo/app", Size: 700, Tags: []recordedTag{{Name: "v1"}},
		ManifestType: ociManifest, MediaType: "application/vnd.oci.image.config.v1+json",
		ArtifactType: "application/vnd.oci.image.config.v1+json",
	}
	s.seed(subject)
	signature := "sha256:" + strings.Repeat("2", 64)
	s.accessory(subject, signature, "signature.cosign", 620)
	c.want(http.StatusOK, admin(), http.MethodGet, artifacts+s.digests[signature], nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, artifacts+"v1", nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, artifacts+s.digests[signature], nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Accept", allManifestTypes)

	idx := c.index()
	if err := remote.WriteIndex(c.ref("demo/app:multi"), idx, c.options(admin())...); err != nil {
		t.Fatalf("pushing an index: %v", err)
	}
	manifest, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	child := manifest.Manifests[0].Digest.String()
	c.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, artifacts+child, nil)
	c.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, "/v2/demo/app/manifests/"+child, nil)
	c.want(http.StatusCreated, admin(), http.MethodPost, artifacts+child+"/tags", map[string]string{"name": "kept"})
	c.want(http.StatusConflict, admin(), http.MethodPost, artifacts+child+"/tags", map[string]string{"name": "kept"})
	c.want(http.StatusOK, admin(), http.MethodDelete, artifacts+"multi", nil)
	c.want(http.StatusOK, admin(), http.MethodGet, artifacts+child, nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, artifacts+manifest.Manifests[1].Digest.String(), nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, artifacts+child+"/tags/kept", nil)
	c.want(http.StatusNotFound, admin(), http.MethodDelete, artifacts+child+"/tags/kept", nil)
	c.want(http.StatusAccepted, admin(), http.MethodDelete, "/v2/demo/app/manifests/"+child, nil)

	c.want(http.StatusPreconditionFailed, admin(), http.MethodDelete, "/api/v2.0/projects/demo", nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, "/api/v2.0/projects/demo/repositories/app", nil)
	c.want(http.StatusOK, admin(), http.MethodDelete, "/api/v2.0/projects/demo", nil)
	c.want(http.StatusNotFound, admin(), http.MethodGet, "/api/v2.0/projects/demo", nil)
}
