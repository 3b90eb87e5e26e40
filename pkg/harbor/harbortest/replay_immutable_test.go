package harbortest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// recordedQuota is a project's quota as the recorded Harbor showed it.
type recordedQuota struct {
	ID   int
	Hard struct{ Storage int }
	Used struct{ Storage int }
	Ref  struct{ Name string }
}

// sceneImmutableAndQuota replays a rule that makes every tag immutable, four signatures under it, and a quota that is
// then set just above what they use.
func sceneImmutableAndQuota(t *testing.T, done *replayed) {
	t.Helper()
	const dir = "api/7-immutable-quota/"
	s := newStage(t, done)
	var quotas []recordedQuota
	if err := json.Unmarshal(load(t, dir+"10-quotas.json").Response.Body, &quotas); err != nil {
		t.Fatalf("decoding quotas: %v", err)
	}
	used := make(map[string]int)
	for _, q := range slices.Backward(quotas) { // Listed newest first.
		used[q.Ref.Name] = q.Used.Storage
		if q.Ref.Name != "library" {
			s.project(q.Ref.Name, nil)
		}
	}
	s.blob("demo/any", "", []byte(strings.Repeat("x", used["demo"])))

	s.replay(t, dir+"01-rule-create.json")
	s.replay(t, dir+"02-rules.json")
	artifacts := artifactsOf(t, load(t, dir+"04-artifacts.json"))
	moved, image := artifacts[0], artifacts[1]
	s.seedUnderRule(image, used["imm"]-moved.Size)
	s.remember(moved.Digest, s.manifestLike(moved))
	s.replayRefusal(t, dir+"03-move-tag-refused.json", s.do(admin(), http.MethodPut, "/v2/imm/a/manifests/v1",
		s.bodies[moved.Digest], "Content-Type", ociManifest))
	s.seed(moved)
	for _, name := range []string{"04-artifacts", "05-delete-immutable-sig", "06-sig-tags", "10-quotas", "11-quota-put"} {
		s.replay(t, dir+name+".json")
	}

	after := artifactsOf(t, load(t, dir+"13-artifacts-after.json"))[0]
	config := s.blob("imm/q", after.MediaType, append(configLike(after), '\n')) // Shared with no other image.
	s.remember(after.Digest, s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": after.ManifestType, "config": config, "layers": []any{},
	}, after.Size-sizeOf(config)))
	s.seed(after)
	blob := []byte(strings.Repeat("y", 300))
	start := s.want(http.StatusAccepted, admin(), http.MethodPost, "/v2/imm/q/blobs/uploads/", nil)
	upload := start.header.Get("Location") + "&digest=" + digestOf(blob)
	s.replayRefusal(t, dir+"12-blob-over-quota.json", s.do(admin(), http.MethodPut, upload, blob))
	s.replay(t, dir+"13-artifacts-after.json")
}

// seedUnderRule pushes an image with its accessories, the first of them a legacy signature, so that they come to hold
// as many bytes as recorded: the sizes of the artifacts are given, so blobs must be shared.
func (s *stage) seedUnderRule(image recordedArtifact, total int) {
	s.t.Helper()
	bare := image
	bare.Accessories, bare.Pulled = nil, neverPulled
	s.seed(bare)
	sizes := image.Size
	for _, acc := range image.Accessories {
		sizes += acc.Size
	}
	// The image moved to later has the config of this one, and the last three signatures share a config.
	empty := s.blob(image.Repository, "application/vnd.oci.empty.v1+json", []byte("{}"))
	shared := sizes - total - len(configLike(image)) - 2*sizeOf(empty)
	payload := s.blob(image.Repository, "application/vnd.dev.cosign.simplesigning.v1+json", []byte(strings.Repeat("p", shared)))
	tag := "sha256-" + strings.TrimPrefix(s.digests[image.Digest], "sha256:") + ".sig"
	for i, acc := range image.Accessories {
		manifest := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": empty, "layers": []any{}}
		size, reference := acc.Size-sizeOf(empty), ""
		switch i {
		case 0:
			config := s.blob(image.Repository, "application/vnd.oci.image.config.v1+json", []byte(`{"created":""}`))
			manifest["config"], manifest["layers"], reference = config, []any{payload}, tag
			size = acc.Size - sizeOf(config) - sizeOf(payload)
		case 1:
			manifest["layers"] = []any{payload}
			size -= sizeOf(payload)
			fallthrough
		default:
			manifest["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json"
			manifest["subject"] = map[string]any{
				"mediaType": ociManifest, "digest": s.digests[image.Digest], "size": len(s.bodies[image.Digest]),
			}
		}
		body := s.padded(manifest, size)
		s.remember(acc.Digest, body)
		if reference == "" {
			reference = digestOf(body)
		}
		s.put(admin(), image.Repository, reference, ociManifest, body)
	}
	s.pullLike(image)
	s.want(http.StatusOK, admin(), http.MethodGet, "/v2/"+image.Repository+"/manifests/"+tag, nil, "Accept", ociManifest)
}

// replayRefusal compares an answer with a recording that kept nothing but its status and body.
func (s *stage) replayRefusal(t *testing.T, file string, got answer) {
	t.Helper()
	var want struct {
		Status int
		Body   json.RawMessage
	}
	loadInto(t, file, &want)
	s.done.add(file)
	if got.status != want.Status {
		t.Fatalf("%s: got status %d, want %d; body %s", file, got.status, want.Status, got.body)
	}
	s.compareBody(t, file, got.body, want.Body)
}
