package harbortest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// signatureLike turns a recorded signature manifest into one for a digest of the stage: the same bytes but for digests,
// whose blobs are made up in the recorded sizes.
func (s *stage) signatureLike(repo string, raw []byte, recordedSubject string, variant byte) []byte {
	s.t.Helper()
	var parts struct {
		Config map[string]any
		Layers []map[string]any
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		s.t.Fatalf("decoding a signature manifest: %v", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		s.t.Fatalf("compacting a signature manifest: %v", err)
	}
	text := compact.String()
	for _, part := range append(parts.Layers, parts.Config) {
		size, _ := part["size"].(float64)
		recorded, _ := part["digest"].(string)
		content := bytes.Repeat([]byte{' '}, int(size))
		copy(content, "{}")
		switch mediaType, _ := part["mediaType"].(string); {
		case mediaType == "application/vnd.oci.image.config.v1+json":
			copy(content, `{"created":"0001-01-01T00:00:00Z"}`) // As cosign writes it.
		case strings.Contains(mediaType, "simplesigning"), strings.Contains(mediaType, "bundle"):
			content[1], content[2] = ' ', variant // Another signature.
		}
		made := s.blob(repo, "", content)
		digest, _ := made["digest"].(string)
		text = strings.ReplaceAll(text, recorded, digest)
	}
	return []byte(strings.ReplaceAll(text, recordedSubject, s.digests[recordedSubject]))
}

// sceneSignatures replays an image that is signed twice in one of cosign's formats.
func sceneSignatures(t *testing.T, done *replayed, format string) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	file := func(name string) string { return "api/3-sign/" + format + "-" + name + ".json" }
	after := artifactsOf(t, load(t, file("artifact")))[0]
	repo := after.Repository
	legacy := strings.HasSuffix(format, "legacy")
	signature := loadRaw(t, file("sigmanifest"))

	image := after
	image.Accessories, image.Pulled = nil, neverPulled
	s.seed(image)
	tag := "sha256-" + strings.TrimPrefix(s.digests[after.Digest], "sha256:") + ".sig"
	sign := func(n int, body []byte) {
		reference := digestOf(body)
		if legacy {
			reference = tag
		}
		s.remember(after.Accessories[min(n, len(after.Accessories)-1)].Digest, body)
		s.put(admin(), repo, reference, "application/vnd.oci.image.manifest.v1+json", body)
	}
	first := s.signatureLike(repo, signature, after.Digest, '1')
	sign(0, first)
	s.pullLike(artifactsOf(t, load(t, file("artifacts-1-sign")))[0])
	s.replay(t, file("artifacts-1-sign"))
	if !legacy { // Signing again with the same key pushes nothing in the legacy format, one more in the others.
		sign(1, s.signatureLike(repo, signature, after.Digest, '2'))
	}
	s.pullLike(artifactsOf(t, load(t, file("artifacts-2-sign-again")))[0])
	s.replay(t, file("artifacts-2-sign-again"))
	s.pullLike(after)
	s.replay(t, file("artifact"))
	s.replay(t, file("accessories"))
	s.pullLike(artifactsOf(t, load(t, file("sigartifact")))[0])
	s.replay(t, file("sigartifact"))

	s.replayRaw(t, file("tagslist"), "/v2/"+repo+"/tags/list")
	s.replayRaw(t, file("referrers"), "/v2/"+repo+"/referrers/"+s.digests[after.Digest])
	s.replayRaw(t, file("sigmanifest"), "/v2/"+repo+"/manifests/"+digestOf(first))

	var now, want recordedRepository
	s.want(http.StatusOK, admin(), http.MethodGet, apiRepository(repo), nil).decode(t, &now)
	if err := json.Unmarshal(load(t, file("repository")).Response.Body, &want); err != nil {
		t.Fatalf("decoding a repository: %v", err)
	}
	s.pullTimes(repo, want.Pulls-now.Pulls)
	if want.Pulls >= now.Pulls {
		s.replay(t, file("repository"))
		return
	}
	// The harness pulled more often than cosign did: compare all but the count of pulls, in a repository of its own.
	fresh := newStage(t, done)
	fresh.project("demo", nil)
	fresh.seedRepositories(load(t, file("repository")))
	fresh.replay(t, file("repository"))
}

// replayRaw replays a recording that kept nothing but the body of a GET.
func (s *stage) replayRaw(t *testing.T, file, path string) {
	t.Helper()
	got := s.want(http.StatusOK, admin(), http.MethodGet, path, nil, "Accept", allManifestTypes)
	s.done.add(file)
	s.compareBody(t, file, got.body, loadRaw(t, file))
}

// sceneLate replays a signature that is pushed before its subject.
func sceneLate(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	late := artifactsOf(t, load(t, "api/3-sign/late-after.json"))[0]
	bare := late
	bare.Accessories = nil
	s.remember(late.Digest, s.manifestLike(bare))
	s.accessory(late, late.Accessories[0].Digest, late.Accessories[0].Type, late.Accessories[0].Size)
	s.replay(t, "api/3-sign/late-before.json")
	s.seed(bare)
	s.replay(t, "api/3-sign/late-after.json")
}

// sceneSignedOnly replays the pull policy.
func sceneSignedOnly(t *testing.T, done *replayed) {
	t.Helper()
	s := newStage(t, done)
	s.project("demo", nil)
	s.logins["robot$signer"] = s.robot("signer", "project", "*", "repository:pull", "repository:push")
	s.logins["robot$puller"] = s.robot("puller", "project", "*", "repository:pull")
	allowed := load(t, "api/6-policy/07-signer-push-scope-cosign-ua-allowed.json")
	s.plainImage("demo/pol", "unsigned", allowed)
	signed := s.plainImage("demo/sig-v2-legacy", "v1", load(t, "api/6-policy/11-signed-legacy-allowed.json"))
	s.sign("demo/sig-v2-legacy", signed)
	garbage := s.plainImage("demo/garbage", "v1", load(t, "api/6-policy/14-garbage-signature-allowed.json"))
	s.accessory(recordedArtifact{
		Digest: garbage, Repository: "demo/garbage", ManifestType: "application/vnd.oci.image.manifest.v1+json",
	}, "sha256:53fe03809ca2b20b5848f8eba6ad1aa2d786a4b2859b89b9871bc08a75f46362", "signature.cosign", 627)

	index := artifactsOf(t, load(t, "api/3-sign/recursive-index.json"))[0]
	index.Pulled = neverPulled
	for i := range index.Tags {
		index.Tags[i].Pulled = neverPulled
	}
	s.seed(index)
	s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/projects/demo",
		map[string]any{"metadata": map[string]string{"enable_content_trust_cosign": "true"}})
	for _, name := range []string{
		"01-admin-unsigned-refused", "02-admin-unsigned-digest", "03-admin-unsigned-head", "04-signer-plain-ua-refused",
		"05-signer-push-scope-plain-ua", "06-signer-pull-scope-cosign-ua", "07-signer-push-scope-cosign-ua-allowed",
		"08-signer-own-ua-with-cosign-word", "09-signer-basic-cosign-ua", "10-puller-cosign-ua-refused",
		"11-signed-legacy-allowed", "12-child-of-signed-index", "14-garbage-signature-allowed",
	} {
		s.replay(t, "api/6-policy/"+name+".json")
	}
}

// plainImage pushes the manifest that a recording shows, with blobs made up in the recorded sizes, and returns its
// recorded digest.
func (s *stage) plainImage(repo, tag string, r *recording) string {
	s.t.Helper()
	var text string
	if err := json.Unmarshal(r.Response.Body, &text); err != nil {
		s.t.Fatalf("decoding a manifest: %v", err)
	}
	var parts struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal([]byte(text), &parts); err != nil {
		s.t.Fatalf("decoding a manifest: %v", err)
	}
	for i, recorded := range []string{parts.Config.Digest, parts.Layers[0].Digest} {
		content := []byte("{}")
		if i == 1 {
			content = []byte("a layer of " + repo)
		}
		digest, _ := s.blob(repo, "", content)["digest"].(string)
		text = strings.ReplaceAll(text, recorded, digest)
	}
	recorded, _ := r.header("Docker-Content-Digest")
	s.remember(recorded, []byte(text))
	s.put(admin(), repo, tag, "application/vnd.oci.image.manifest.v1+json", []byte(text))
	return recorded
}

// sign pushes something that looks like a legacy signature.
func (s *stage) sign(repo, recorded string) {
	s.t.Helper()
	config := s.blob(repo, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	layer := s.blob(repo, "application/vnd.dev.cosign.simplesigning.v1+json", []byte("payload"))
	body := s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
		"layers": []any{layer},
	}, 600)
	tag := "sha256-" + strings.TrimPrefix(s.digests[recorded], "sha256:") + ".sig"
	s.put(admin(), repo, tag, "application/vnd.oci.image.manifest.v1+json", body)
}

// sceneAccept replays how the pull policy and a missing Accept header go together.
func sceneAccept(t *testing.T, done *replayed) {
	t.Helper()
	const file = "api/6-policy/15-attestation-and-accept-header.json"
	s := newStage(t, done)
	s.project("demo", nil)
	puller := s.robot("puller", "project", "*", "repository:pull")
	var want map[string]map[string][2]any
	loadInto(t, file, &want)
	for name, kind := range map[string]string{
		"att-v3": "signature.cosign", "att-v2-bundle": "signature.cosign", "twokeys": "signature.cosign",
		"withsbom": "subject.accessory", "att-v2-legacy": "", "app": "",
	} {
		repo := "demo/" + name
		const subject = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
		delete(s.digests, subject)
		image := recordedArtifact{
			Digest: subject, Repository: repo, Size: 700, Tags: []recordedTag{{Name: "v1"}},
			ManifestType: "application/vnd.oci.image.manifest.v1+json",
			MediaType:    "application/vnd.oci.image.config.v1+json",
			ArtifactType: "application/vnd.oci.image.config.v1+json",
		}
		s.seed(image)
		if kind != "" {
			s.accessory(image, "sha256:"+strings.Repeat("1", 64-len(name))+strings.Repeat("a", len(name)), kind, 620)
		}
	}
	s.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/projects/demo",
		map[string]any{"metadata": map[string]string{"enable_content_trust_cosign": "true"}})
	for name, answers := range want {
		for how, answer := range answers {
			var headers []string
			if how == "with_accept" {
				headers = []string{"Accept", allManifestTypes}
			}
			got := s.do(puller, http.MethodGet, "/v2/demo/"+name+"/manifests/v1", nil, headers...)
			if status, _ := answer[0].(float64); got.status != int(status) {
				t.Errorf("%s %s: got status %d, want %v", name, how, got.status, status)
			}
			if text, _ := answer[1].(string); got.status != http.StatusOK && string(got.body) != text {
				t.Errorf("%s %s: got %q, want %q", name, how, got.body, text)
			}
		}
	}
	done.add(file)
}
