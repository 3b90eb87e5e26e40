package harbortest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// plain is a small image manifest, the n-th of its kind, whose blobs are in demo/app.
func (s *stage) plain(n int) []byte {
	s.t.Helper()
	config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
	return s.padded(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{},
	}, 400+n)
}

func (s *stage) show(path string) recordedArtifact {
	s.t.Helper()
	var out recordedArtifact
	s.want(http.StatusOK, admin(), http.MethodGet, path, nil).decode(s.t, &out)
	return out
}

func TestTheSamePushAgainKeepsTheTag(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	const tags = "/api/v2.0/projects/demo/repositories/app/artifacts/v1/tags"
	s.put(admin(), "demo/app", "v1", ociManifest, s.plain(0))
	before := string(s.want(http.StatusOK, admin(), http.MethodGet, tags, nil).body)
	s.put(admin(), "demo/app", "v1", ociManifest, s.plain(0))
	if after := string(s.want(http.StatusOK, admin(), http.MethodGet, tags, nil).body); after != before {
		t.Errorf("tags after the same push: got %s, want %s", after, before)
	}
}

func TestOnlyAGetIsAPull(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	const artifact = "/api/v2.0/projects/demo/repositories/app/artifacts/v1"
	s.put(admin(), "demo/app", "v1", ociManifest, s.plain(0))
	s.want(http.StatusOK, admin(), http.MethodHead, "/v2/demo/app/manifests/v1", nil, "Accept", ociManifest)
	if got := s.show(artifact).Pulled; got != neverPulled {
		t.Errorf("pull time after a HEAD: got %s, want never", got)
	}
	s.want(http.StatusOK, admin(), http.MethodGet, "/v2/demo/app/manifests/v1", nil, "Accept", ociManifest)
	if got := s.show(artifact); got.Pulled == neverPulled || got.Tags[0].Pulled == neverPulled {
		t.Errorf("pull times after a GET: got %s and %s, want now", got.Pulled, got.Tags[0].Pulled)
	}
}

// TestLegacySignatures shows that only what is pushed to the cosign tag of a digest that is there is an accessory, and
// that a moved tag leaves the old manifest behind as one.
func TestLegacySignatures(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	subject := s.plain(0)
	d := digestOf(subject)
	tag := "sha256-" + strings.TrimPrefix(d, "sha256:") + ".sig"
	signature := func(length int, layerType string) []byte {
		config := s.blob("demo/app", "application/vnd.oci.image.config.v1+json", []byte("{}"))
		layer := s.blob("demo/app", layerType, []byte("payload"))
		return s.padded(map[string]any{
			"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []any{layer},
		}, length)
	}
	const simple = "application/vnd.dev.cosign.simplesigning.v1+json"
	accessories := func() int {
		return len(s.show("/api/v2.0/projects/demo/repositories/app/artifacts/" + d + "?with_accessory=true").Accessories)
	}
	s.put(admin(), "demo/app", tag, ociManifest, signature(600, simple))
	s.put(admin(), "demo/app", "v1", ociManifest, subject)
	if got := accessories(); got != 0 {
		t.Errorf("a signature that came before its subject: got %d accessories, want 0", got)
	}
	s.put(admin(), "demo/app", tag, ociManifest, signature(601, "application/octet-stream"))
	s.put(admin(), "demo/app", strings.Replace(tag, ".sig", ".att", 1), ociManifest, signature(602, simple))
	if got := accessories(); got != 0 {
		t.Errorf("no signature, and an attestation: got %d accessories, want 0", got)
	}
	s.put(admin(), "demo/app", tag, ociManifest, signature(603, simple))
	s.put(admin(), "demo/app", tag, ociManifest, signature(604, simple))
	if got := accessories(); got != 2 {
		t.Errorf("two signatures under one tag: got %d accessories, want 2", got)
	}
}

func TestLosingTheNextWebhooks(t *testing.T) {
	t.Parallel()
	s := &stage{client: newClient(t, fast(t))}
	s.project("demo", nil)
	hook := newReceiver(t, ok200)
	s.policy("demo", "default", hook.url(), "Default")
	s.policy("demo", "ce", hook.url(), "CloudEvents")
	s.h.SetFaults(harbortest.Faults{LoseNextWebhooks: 2})
	for i := range 3 {
		body := s.plain(i)
		s.put(admin(), "demo/app", digestOf(body), ociManifest, body)
	}
	if got := len(settled(t, s.client, hook)); got != 2 {
		t.Errorf("webhooks: got %d, want the 2 of the third push", got)
	}
	if got := s.h.CurrentFaults(); got != (harbortest.Faults{}) {
		t.Errorf("faults afterwards: got %+v, want none", got)
	}
}
