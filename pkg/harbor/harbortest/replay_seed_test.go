package harbortest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// recordedArtifact is an artifact as the recorded Harbor showed it: enough to push one like it.
type recordedArtifact struct {
	Digest       string            `json:"digest"`
	ManifestType string            `json:"manifest_media_type"`
	MediaType    string            `json:"media_type"`
	ArtifactType string            `json:"artifact_type"`
	Annotations  map[string]string `json:"annotations"`
	Extra        json.RawMessage   `json:"extra_attrs"`
	Repository   string            `json:"repository_name"`
	Size         int               `json:"size"`
	Pulled       string            `json:"pull_time"`
	Tags         []recordedTag     `json:"tags"`
	References   []struct {
		Digest   string          `json:"child_digest"`
		Platform json.RawMessage `json:"platform"`
	} `json:"references"`
	Accessories []struct {
		Digest string `json:"digest"`
		Size   int    `json:"size"`
		Type   string `json:"type"`
	} `json:"accessories"`
}

type recordedTag struct {
	Name   string `json:"name"`
	Pulled string `json:"pull_time"`
}

const neverPulled = "0001-01-01T00:00:00.000Z"

func digestOf(body []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(body)) }

// blob uploads a blob and returns its descriptor.
func (s *stage) blob(repo, mediaType string, body []byte) map[string]any {
	s.t.Helper()
	d := digestOf(body)
	start := s.want(http.StatusAccepted, admin(), http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil)
	s.want(http.StatusCreated, admin(), http.MethodPut, start.header.Get("Location")+"&digest="+d, body)
	return map[string]any{"mediaType": mediaType, "digest": d, "size": len(body)}
}

// put pushes a manifest.
func (s *stage) put(who login, repo, reference, mediaType string, body []byte) {
	s.t.Helper()
	a := s.want(http.StatusCreated, who, http.MethodPut, "/v2/"+repo+"/manifests/"+reference, body,
		"Content-Type", mediaType)
	if got := a.header.Get("Docker-Content-Digest"); got != digestOf(body) {
		s.t.Fatalf("pushed digest: got %s, want %s", got, digestOf(body))
	}
}

// remember notes that a recorded digest is this manifest here.
func (s *stage) remember(recorded string, body []byte) {
	s.digests[recorded], s.bodies[recorded] = digestOf(body), body
}

// padded encodes a manifest and fills it up with blanks.
func (s *stage) padded(manifest map[string]any, length int) []byte {
	s.t.Helper()
	body, err := json.Marshal(manifest)
	if err != nil {
		s.t.Fatalf("encoding a manifest: %v", err)
	}
	if len(body) > length {
		s.t.Fatalf("a manifest of %d bytes is longer than the %d that it should have", len(body), length)
	}
	return append(body, bytes.Repeat([]byte(" "), length-len(body))...)
}

// seed pushes an artifact that looks like a recorded one: types, attributes, size, children, tags, accessories, pulls.
func (s *stage) seed(a recordedArtifact) {
	s.t.Helper()
	if _, ok := s.digests[a.Digest]; !ok {
		s.remember(a.Digest, s.manifestLike(a))
	}
	body := s.bodies[a.Digest]
	if len(a.Tags) == 0 {
		s.put(admin(), a.Repository, s.digests[a.Digest], a.ManifestType, body)
	}
	for _, tag := range slices.Backward(a.Tags) { // Listed newest first.
		s.put(admin(), a.Repository, s.here(tag.Name), a.ManifestType, body)
	}
	for _, acc := range a.Accessories {
		s.accessory(a, acc.Digest, acc.Type, acc.Size)
	}
	s.pullLike(a)
}

// pullLike pulls what was pulled in the recording.
func (s *stage) pullLike(a recordedArtifact) {
	s.t.Helper()
	pull := func(reference string) {
		s.want(http.StatusOK, admin(), http.MethodGet, "/v2/"+a.Repository+"/manifests/"+reference, nil,
			"Accept", allManifestTypes)
	}
	if a.Pulled != neverPulled && a.Pulled != "" {
		pull(s.digests[a.Digest])
	}
	for _, tag := range a.Tags {
		if tag.Pulled != neverPulled && tag.Pulled != "" {
			pull(s.here(tag.Name))
		}
	}
}

func (s *stage) manifestLike(a recordedArtifact) []byte {
	s.t.Helper()
	if len(a.References) > 0 {
		return s.indexLike(a)
	}
	config := s.blob(a.Repository, a.MediaType, configLike(a))
	layer := s.blob(a.Repository, "application/vnd.oci.image.layer.v1.tar+gzip", []byte("layer of "+a.Digest[7:15]))
	manifest := map[string]any{
		"schemaVersion": 2, "mediaType": a.ManifestType, "config": config, "layers": []any{layer},
	}
	if a.ArtifactType != a.MediaType {
		manifest["artifactType"] = a.ArtifactType
	}
	if len(a.Annotations) > 0 {
		manifest["annotations"] = a.Annotations
	}
	return s.padded(manifest, a.Size-sizeOf(config)-sizeOf(layer))
}

func sizeOf(descriptor map[string]any) int {
	size, _ := descriptor["size"].(int)
	return size
}

// configLike makes a config blob from which Harbor reads the recorded attributes.
func configLike(a recordedArtifact) []byte {
	if len(a.Extra) == 0 {
		return []byte("{}")
	}
	var out bytes.Buffer
	if err := json.Compact(&out, a.Extra); err != nil {
		return []byte("{}")
	}
	return out.Bytes()
}

func (s *stage) indexLike(a recordedArtifact) []byte {
	s.t.Helper()
	total := 0
	var children []any
	for _, ref := range a.References {
		body, ok := s.bodies[ref.Digest]
		if !ok { // The recording shows no more of it than its digest.
			const childSize = 700
			s.seed(recordedArtifact{
				Digest: ref.Digest, Repository: a.Repository, Size: childSize,
				ManifestType: "application/vnd.oci.image.manifest.v1+json",
				MediaType:    "application/vnd.oci.image.config.v1+json",
				ArtifactType: "application/vnd.oci.image.config.v1+json",
			})
			body = s.bodies[ref.Digest]
		}
		var shown struct{ Architecture, OS string }
		if err := json.Unmarshal(ref.Platform, &shown); err != nil {
			s.t.Fatalf("decoding a platform: %v", err)
		}
		children = append(children, map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": s.digests[ref.Digest], "size": len(body),
			"platform": map[string]string{"architecture": shown.Architecture, "os": shown.OS},
		})
		var size struct{ Size int }
		s.want(http.StatusOK, admin(), http.MethodGet, apiRepository(a.Repository)+"/artifacts/"+s.digests[ref.Digest], nil).
			decode(s.t, &size)
		total += size.Size
	}
	return s.padded(map[string]any{"schemaVersion": 2, "mediaType": a.ManifestType, "manifests": children}, a.Size-total)
}

func apiRepository(fullName string) string {
	project, repo, _ := strings.Cut(fullName, "/")
	return "/api/v2.0/projects/" + project + "/repositories/" + strings.ReplaceAll(repo, "/", "%252F")
}

// accessory pushes something that refers to an artifact and that Harbor classifies as recorded.
func (s *stage) accessory(subject recordedArtifact, recorded, kind string, size int) {
	s.t.Helper()
	if _, ok := s.digests[recorded]; ok {
		return
	}
	artifactType := "application/vnd.dev.cosign.artifact.sig.v1+json"
	if kind != "signature.cosign" {
		artifactType = "application/vnd.example.sbom"
	}
	config := s.blob(subject.Repository, "application/vnd.oci.empty.v1+json", []byte("{}"))
	body := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifactType,
		"config": config, "layers": []any{}, "annotations": map[string]string{"recorded": recorded[7:15]},
		"subject": map[string]any{
			"mediaType": subject.ManifestType, "digest": s.digests[subject.Digest], "size": len(s.bodies[subject.Digest]),
		},
	}, size-sizeOf(config))
	s.remember(recorded, body)
	s.put(admin(), subject.Repository, s.digests[recorded], "application/vnd.oci.image.manifest.v1+json", body)
}

// filler pushes n small artifacts into a repository.
func (s *stage) filler(repo string, n int) {
	s.t.Helper()
	if n <= 0 {
		return
	}
	config := s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	for i := range n {
		body, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
			"layers": []any{}, "annotations": map[string]string{"n": fmt.Sprint(i)},
		})
		if err != nil {
			s.t.Fatalf("encoding a manifest: %v", err)
		}
		s.put(admin(), repo, digestOf(body), "application/vnd.oci.image.manifest.v1+json", body)
	}
}

// artifactsOf decodes the body of a recording that shows one artifact or many.
func artifactsOf(t *testing.T, r *recording) []recordedArtifact {
	t.Helper()
	var many []recordedArtifact
	if err := json.Unmarshal(r.Response.Body, &many); err == nil {
		return many
	}
	var one recordedArtifact
	if err := json.Unmarshal(r.Response.Body, &one); err != nil {
		t.Fatalf("decoding artifacts: %v", err)
	}
	return []recordedArtifact{one}
}

// seedListing pushes what a recorded listing shows, oldest first, and before it as many others as the total needs.
func (s *stage) seedListing(r *recording) {
	s.t.Helper()
	artifacts := artifactsOf(s.t, r)
	if total, ok := r.header("X-Total-Count"); ok {
		var n int
		if _, err := fmt.Sscan(total, &n); err != nil {
			s.t.Fatalf("X-Total-Count: %v", err)
		}
		s.filler("demo/filler", n-len(artifacts))
	}
	for _, a := range slices.Backward(artifacts) {
		s.seed(a)
	}
}
