package harbortest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// signedImage is an image demo/app:v1 and signatures for it in all formats.
type signedImage struct {
	*stage
	subject string // The image's digest.
	tag     string // Its cosign tag.
}

const (
	cosignType = "application/vnd.dev.cosign.artifact.sig.v1+json"
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

func newSignedImage(t *testing.T) *signedImage {
	t.Helper()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	body := s.imageIn("demo/app", 0)
	s.put(admin(), "demo/app", "v1", ociManifest, body)
	subject := digestOf(body)
	return &signedImage{stage: s, subject: subject, tag: strings.Replace(subject, ":", "-", 1) + ".sig"}
}

// legacy is the n-th legacy signature, with its blobs uploaded.
func (s *signedImage) legacy(n int) []byte {
	s.t.Helper()
	config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	layer := s.blob("demo/app", "application/vnd.dev.cosign.simplesigning.v1+json", []byte("payload"))
	return s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{layer},
	}, 600+n)
}

// referrer is the n-th OCI 1.1 referrer of an artifact type, with its blobs uploaded.
func (s *signedImage) referrer(artifactType string, n int) []byte {
	s.t.Helper()
	config := s.blob("demo/app", "application/vnd.oci.empty.v1+json", []byte("{}"))
	return s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "artifactType": artifactType, "config": config, "layers": []any{},
		"subject":     map[string]any{"mediaType": ociManifest, "digest": s.subject, "size": 400},
		"annotations": map[string]string{"org.opencontainers.image.created": fmt.Sprintf("2026-11-22T04:39:%02dZ", n)},
	}, 800)
}

// tagged is the digest that a tag points to.
func (s *signedImage) tagged(tag string) string {
	s.t.Helper()
	return s.want(http.StatusOK, admin(), http.MethodHead, "/v2/demo/app/manifests/"+tag, nil, "Accept", ociManifest).
		header.Get("Docker-Content-Digest")
}

// attach pushes signatures by their digests.
func (s *signedImage) attach(bodies ...[]byte) {
	s.t.Helper()
	for _, body := range bodies {
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	}
}

// referrer is a descriptor of the referrers API.
type referrer struct {
	MediaType, Digest, ArtifactType string
	Size                            int
	Annotations                     map[string]string
}

// referrers asks for what refers to a digest, as a client does that filters by an artifact type, or by none.
func (s *stage) referrers(repo, digest, artifactType string) ([]referrer, answer) {
	s.t.Helper()
	path := "/v2/" + repo + "/referrers/" + digest
	if artifactType != "" {
		path += "?artifactType=" + url.QueryEscape(artifactType)
	}
	var out struct {
		SchemaVersion int
		MediaType     string
		Manifests     []referrer
	}
	got := s.want(http.StatusOK, admin(), http.MethodGet, path, nil)
	got.decode(s.t, &out)
	const index = "application/vnd.oci.image.index.v1+json"
	if out.SchemaVersion != 2 || out.MediaType != index || got.header.Get("Content-Type") != index || out.Manifests == nil {
		s.t.Errorf("referrers: got %v %s, want an OCI index with a list, empty or not", got.header, got.body)
	}
	return out.Manifests, got
}

func digestsOf(referrers []referrer) []string {
	out := make([]string, 0, len(referrers))
	for _, r := range referrers {
		out = append(out, r.Digest)
	}
	return out
}

// TestReferrersListEveryKind shows how each kind of accessory stands in the referrers of an image, oldest first. The
// recordings in 3-sign hold the answers for one kind at a time.
func TestReferrersListEveryKind(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	old, moved := s.legacy(1), s.legacy(2)
	s.put(admin(), "demo/app", s.tag, ociManifest, old)
	s.put(admin(), "demo/app", s.tag, ociManifest, moved)
	signature, bundle := s.referrer(cosignType, 1), s.referrer(bundleType, 2)
	const sbomType = "application/spdx+json"
	attestation, sbom := s.referrer(bundleType, 3), s.referrer(sbomType, 4)
	s.attach(signature, bundle, attestation, sbom)
	// No accessory of the image: a legacy attestation, and a signature that carries another tag.
	s.put(admin(), "demo/app", strings.Replace(s.tag, ".sig", ".att", 1), ociManifest, s.legacy(5))
	s.put(admin(), "demo/app", "v2", ociManifest, s.legacy(6))

	created := func(n int) map[string]string {
		return map[string]string{"org.opencontainers.image.created": fmt.Sprintf("2026-11-22T04:39:%02dZ", n)}
	}
	descriptor := func(body []byte, artifactType string, annotations map[string]string) referrer {
		return referrer{ociManifest, digestOf(body), artifactType, len(body), annotations}
	}
	const imageConfig = "application/vnd.oci.image.config.v1+json"
	all := []referrer{
		descriptor(old, imageConfig, nil), // Its tag has left it, it is listed all the same.
		descriptor(moved, imageConfig, nil),
		descriptor(signature, cosignType, created(1)),
		descriptor(bundle, bundleType, created(2)),
		descriptor(attestation, bundleType, created(3)), // By whomever: Harbor verifies nothing.
		descriptor(sbom, sbomType, created(4)),
	}
	for artifactType, want := range map[string][]referrer{
		"": all, imageConfig: all[:2], cosignType: all[2:3], bundleType: all[3:5], sbomType: all[5:], "text/none": {},
	} {
		got, answer := s.referrers("demo/app", s.subject, artifactType)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("referrers of the type %q:\n got %v\nwant %v", artifactType, got, want)
		}
		filtered := ""
		if artifactType != "" {
			filtered = "artifactType"
		}
		if applied := answer.header.Get("OCI-Filters-Applied"); applied != filtered {
			t.Errorf("type %q: got OCI-Filters-Applied %q, want %q", artifactType, applied, filtered)
		}
		if total := answer.header.Get("X-Total-Count"); total != "6" || answer.header.Get("Link") != "" {
			t.Errorf("type %q: got X-Total-Count %s and Link %q, want 6, unfiltered, and no pages", artifactType, total,
				answer.header.Get("Link"))
		}
	}
}

// TestReferrersOfNothing shows that nothing is unknown to the referrers API but what the account may not see.
func TestReferrersOfNothing(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	unknown := digestOf([]byte("unknown"))
	for name, path := range map[string][2]string{
		"nothing attached": {"demo/app", s.subject}, "unknown digest": {"demo/app", unknown},
		"unknown repository": {"demo/none", unknown},
	} {
		got, answer := s.referrers(path[0], path[1], "")
		if len(got) != 0 || answer.header.Get("X-Total-Count") != "0" {
			t.Errorf("%s: got %v %v, want none", name, got, answer.header)
		}
	}
	const want = "400 BAD_REQUEST unsupported digest sha256:12: invalid checksum digest length"
	if got := refusal(t, s.do(admin(), http.MethodGet, "/v2/demo/app/referrers/sha256:12", nil)); got != want {
		t.Errorf("no digest: got %q, want %q", got, want)
	}
	s.want(http.StatusUnauthorized, admin(), http.MethodGet, "/v2/none/app/referrers/"+unknown, nil)
}

// TestReferrersFollowDeletions deletes accessories one by one, and in the end their subject.
func TestReferrersFollowDeletions(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	early := s.referrer(bundleType, 9)
	early = []byte(strings.Replace(string(early), s.subject, digestOf(s.imageIn("demo/app", 1)), 1))
	s.attach(early)
	if got, _ := s.referrers("demo/app", digestOf(s.imageIn("demo/app", 1)), ""); len(got) != 1 {
		t.Errorf("a bundle that came before its subject: got %v, want it", got)
	}
	signature, bundle, last := s.legacy(1), s.referrer(bundleType, 1), s.referrer(bundleType, 2)
	s.put(admin(), "demo/app", s.tag, ociManifest, signature)
	s.attach(bundle, last)
	const artifacts = "/api/v2.0/projects/demo/repositories/app/artifacts/"
	remaining := []string{digestOf(signature), digestOf(bundle), digestOf(last)}
	for _, path := range []string{artifacts + s.tag, "/v2/demo/app/manifests/" + digestOf(bundle)} {
		if got := s.do(admin(), http.MethodDelete, path, nil).status; got >= http.StatusMultipleChoices {
			t.Fatalf("deleting %s: got %d", path, got)
		}
		remaining = remaining[1:]
		if got, _ := s.referrers("demo/app", s.subject, ""); !reflect.DeepEqual(digestsOf(got), remaining) {
			t.Errorf("after deleting %s: got %v, want %v", path, digestsOf(got), remaining)
		}
	}
	s.want(http.StatusOK, admin(), http.MethodDelete, artifacts+s.subject, nil)
	if got, _ := s.referrers("demo/app", s.subject, ""); len(got) != 0 {
		t.Errorf("after deleting the subject: got %v, want none", got)
	}
}

// TestDeletingATagKeepsTheReferrer shows that the manifest of a deleted .sig tag still refers to its subject.
func TestDeletingATagKeepsTheReferrer(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(1))
	s.want(http.StatusOK, admin(), http.MethodDelete,
		"/api/v2.0/projects/demo/repositories/app/artifacts/"+s.tag+"/tags/"+s.tag, nil)
	s.want(http.StatusNotFound, admin(), http.MethodHead, "/v2/demo/app/manifests/"+s.tag, nil, "Accept", ociManifest)
	if got, _ := s.referrers("demo/app", s.subject, ""); len(got) != 1 || got[0].Digest != digestOf(s.legacy(1)) {
		t.Errorf("referrers: got %v, want the signature without its tag", got)
	}
}

// TestReferrersAreCountedApart holds the counters that benchmarks read.
func TestReferrersAreCountedApart(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	before := s.h.Stats().Requests
	s.referrers("demo/app", s.subject, "")
	s.referrers("demo/app", s.subject, bundleType)
	s.want(http.StatusOK, admin(), http.MethodHead, "/v2/demo/app/manifests/v1", nil, "Accept", ociManifest)
	s.h.SetFaults(harbortest.Faults{Route: "referrers", Status: http.StatusServiceUnavailable})
	s.want(http.StatusServiceUnavailable, admin(), http.MethodGet, "/v2/demo/app/referrers/"+s.subject, nil)
	got := make(map[string]int64)
	for kind, n := range s.h.Stats().Requests {
		if n -= before[kind]; n != 0 {
			got[kind] = n
		}
	}
	if want := map[string]int64{"GET referrers": 3, "HEAD manifest": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("requests: got %v, want %v", got, want)
	}
}

// TestHeadIsAGetWithoutItsBody compares both, by tag and by digest.
func TestHeadIsAGetWithoutItsBody(t *testing.T) {
	t.Parallel()
	s := newSignedImage(t)
	s.put(admin(), "demo/app", s.tag, ociManifest, s.legacy(1))
	for _, reference := range []string{"v1", s.subject, s.tag, digestOf(s.legacy(1)), "none", digestOf(nil)} {
		path := "/v2/demo/app/manifests/" + reference
		head := s.do(admin(), http.MethodHead, path, nil, "Accept", ociManifest)
		get := s.do(admin(), http.MethodGet, path, nil, "Accept", ociManifest)
		if head.status != get.status || len(head.body) != 0 {
			t.Errorf("HEAD of %s: got %d and %d bytes, want %d and none", reference, head.status, len(head.body), get.status)
		}
		for _, name := range []string{"Docker-Content-Digest", "Content-Type", "Etag", "Docker-Distribution-Api-Version"} {
			if h, g := head.header.Get(name), get.header.Get(name); h != g || get.status == http.StatusOK && h == "" {
				t.Errorf("HEAD of %s: got %s %q, want that of GET, %q", reference, name, h, g)
			}
		}
		if length := head.header.Get("Content-Length"); get.status == http.StatusOK && length != fmt.Sprint(len(get.body)) {
			t.Errorf("HEAD of %s: got Content-Length %s, want %d", reference, length, len(get.body))
		}
	}
}
