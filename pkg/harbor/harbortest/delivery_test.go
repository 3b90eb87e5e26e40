package harbortest_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestDeliveryIsTriedThreeTimes(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	hook := newReceiver(t, func(int, *http.Request) string {
		return "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
	})
	c.policy("demo", "hook", hook.url()+"/h?dropped=by-harbor", "CloudEvents")
	c.push(admin(), c.image(), "demo/app:v1")
	got := settled(t, c, hook)
	if len(got) != 3 {
		t.Fatalf("attempts: got %d, want 3", len(got))
	}
	for i, raw := range got {
		if !bytes.Equal(raw, got[0]) {
			t.Errorf("attempt %d differs from the first:\n%s\n%s", i+1, raw, got[0])
		}
	}
	if !bytes.HasPrefix(got[0], []byte("POST /h HTTP/1.1\r\n")) {
		t.Errorf("request line: got %s, want the address without its query", got[0][:40])
	}
	want := harbortest.WebhookStats{Events: 1, Attempts: 3, GivenUp: 1}
	if stats := c.h.Stats().Webhooks; stats != want {
		t.Errorf("stats: got %+v, want %+v", stats, want)
	}
}

// TestSlowClock checks, from below, that retries wait.
func TestSlowClock(t *testing.T) {
	t.Parallel()
	const retryScale = 0.01 // 16 s are 160 ms.
	h := harbortest.New(t, harbortest.Config{DeliveryDelayScale: 0.02, RetryScale: retryScale, Seed: 7})
	c := newClient(t, h)
	c.project("demo", nil)
	hook := newReceiver(t, func(n int, r *http.Request) string {
		if n == 1 {
			return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
		}
		return ok200(n, r)
	})
	c.policy("demo", "hook", hook.url(), "Default")
	c.push(admin(), c.image(), "demo/app:v1")
	hook.wait(t, 1)
	started := time.Now()
	hook.wait(t, 2)
	if took := time.Since(started); took < 150*time.Millisecond {
		t.Errorf("second attempt after %s, want at least 160ms", took)
	}
	settled(t, c, hook)
	if stats := h.Stats().Webhooks; stats.Delivered != 1 || stats.Attempts != 2 {
		t.Errorf("stats: got %+v, want one delivered in two attempts", stats)
	}
}

func TestWhatFiresNothing(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("quiet", nil)
	hook := newReceiver(t, ok200)
	c.policy("demo", "hook", hook.url(), "Default")
	const policies = "/api/v2.0/projects/demo/webhook/policies"
	c.want(http.StatusCreated, admin(), http.MethodPost, policies, map[string]any{
		"name": "disabled", "enabled": false, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []any{map[string]string{"type": "http", "address": hook.url()}},
	})
	c.want(http.StatusCreated, admin(), http.MethodPost, policies, map[string]any{
		"name": "deletions", "enabled": true, "event_types": []string{"DELETE_ARTIFACT"},
		"targets": []any{map[string]string{"type": "http", "address": hook.url()}},
	})
	img := c.image()
	c.push(admin(), img, "demo/app:v1")
	c.push(admin(), img, "demo/app:v1") // The client looks first and pushes nothing.
	c.push(admin(), img, "quiet/app:v1")
	c.want(http.StatusCreated, admin(), http.MethodPost, "/api/v2.0/projects/demo/repositories/app/artifacts/v1/tags",
		map[string]string{"name": "byapi"})
	c.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]any{"notification_enable": false})
	c.push(admin(), c.image(), "demo/app:silent")
	c.want(http.StatusOK, admin(), http.MethodPut, "/api/v2.0/configurations", map[string]any{"notification_enable": true})
	c.h.SetFaults(harbortest.Faults{LoseWebhooks: true})
	c.push(admin(), c.image(), "demo/app:lost")
	c.h.SetFaults(harbortest.Faults{})
	if got := settled(t, c, hook); len(got) != 1 {
		t.Errorf("webhooks: got %d, want the one of the first push:\n%s", len(got), bytes.Join(got, []byte("\n")))
	}
	if stats := c.h.Stats().Webhooks; stats.Lost != 1 {
		t.Errorf("stats: got %+v, want one lost", stats)
	}
}

func TestCopyFiresForEachAccessory(t *testing.T) {
	t.Parallel()
	c := newClient(t, fast(t))
	c.project("demo", nil)
	c.project("other", nil)
	s := &stage{client: c, digests: map[string]string{}, bodies: map[string][]byte{}}
	subject := recordedArtifact{
		Digest: "sha256:" + strings.Repeat("1", 64), Repository: "demo/app", Size: 700, Tags: []recordedTag{{Name: "v1"}},
		ManifestType: ociManifest, MediaType: "application/vnd.oci.image.config.v1+json",
		ArtifactType: "application/vnd.oci.image.config.v1+json",
	}
	s.seed(subject)
	s.accessory(subject, "sha256:"+strings.Repeat("2", 64), "signature.cosign", 620)
	hook := newReceiver(t, ok200)
	c.policy("other", "hook", hook.url(), "Default")
	c.want(http.StatusCreated, admin(), http.MethodPost,
		"/api/v2.0/projects/other/repositories/app/artifacts?from=demo/app:v1", nil)
	if got := settled(t, c, hook); len(got) != 2 {
		t.Errorf("webhooks of a copy: got %d, want 2", len(got))
	}
	var copied recordedArtifact
	c.want(http.StatusOK, admin(), http.MethodGet,
		"/api/v2.0/projects/other/repositories/app/artifacts/v1?with_accessory=true", nil).decode(t, &copied)
	if len(copied.Accessories) != 1 {
		t.Errorf("accessories of the copy: got %d, want 1", len(copied.Accessories))
	}
}
