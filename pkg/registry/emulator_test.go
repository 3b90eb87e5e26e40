package registry_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/registry"
)

// adminCall uses Harbor's own API, as an operator would.
func adminCall(t *testing.T, h *harbortest.Harbor, method, path string, body any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, h.URL()+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read
	var answer map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: status %d: %v", method, path, resp.StatusCode, answer)
	}
	return answer
}

// robotClient makes a robot account with the given rights on all projects, and a client that uses it.
func robotClient(t *testing.T, h *harbortest.Harbor, name string, actions ...string) *registry.Client {
	t.Helper()
	access := make([]any, 0, len(actions))
	for _, action := range actions {
		access = append(access, map[string]any{"resource": "repository", "action": action})
	}
	robot := adminCall(t, h, http.MethodPost, "/api/v2.0/robots", map[string]any{
		"name": name, "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "*", "access": access}},
	})
	account, _ := robot["name"].(string)
	password, _ := robot["secret"].(string)
	return newClient(t, h.URL(), func(cfg *registry.Config) {
		cfg.Username, cfg.SecretFile = account, secretFile(t, password)
	})
}

// TestHarbor runs against the emulator, which answers as a recorded Harbor does.
func TestHarbor(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	adminCall(t, h, http.MethodPost, "/api/v2.0/projects", map[string]any{
		"project_name": "demo", "metadata": map[string]string{"public": "false", "enable_content_trust_cosign": "true"},
	})
	signer := robotClient(t, h, "signer", "pull", "push")
	puller := robotClient(t, h, "puller", "pull")
	stranger := newClient(t, h.URL(), func(cfg *registry.Config) { cfg.Username = "robot$signer" })
	config := blob(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	m := manifest(config)
	wantFault := func(what string, err error, kind fault.Kind, reason fault.Reason) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: no error, want %s %s", what, kind, reason)
		}
		if got := fault.Of(err); got.Kind != kind || got.Reason != reason {
			t.Errorf("%s: fault = %s %s (%v), want %s %s", what, got.Kind, got.Reason, err, kind, reason)
		}
	}

	if err := signer.CheckPush(t.Context(), repository); err != nil {
		t.Fatalf("CheckPush: %v", err)
	}
	wantFault("a robot that may only pull", puller.CheckPush(t.Context(), repository), fault.Permanent, fault.Denied)
	wantFault("a wrong secret", stranger.CheckPush(t.Context(), repository), fault.Permanent, fault.Unauthorized)
	wantFault("a project that does not exist", signer.CheckPush(t.Context(), "nowhere/app"), fault.Permanent, fault.Denied)
	wantFault("a manifest without its blob", signer.PutManifest(t.Context(), repository, "v1", m), fault.Transient, fault.BlobUnknown)
	if err := signer.PushBlob(t.Context(), repository, config); err != nil {
		t.Fatalf("PushBlob: %v", err)
	}
	if err := signer.PutManifest(t.Context(), repository, "v1", m); err != nil {
		t.Fatalf("PutManifest: %v", err)
	}
	// The project refuses unsigned images to everybody but a signer.
	got, err := signer.Manifest(t.Context(), repository, m.Digest)
	if err != nil || !bytes.Equal(got.Raw, m.Raw) || got.MediaType != manifestType {
		t.Errorf("Manifest() = %+v, %v, want what was put", got, err)
	}
	_, err = signer.Manifest(t.Context(), repository, "none")
	wantFault("a missing tag", err, fault.Gone, fault.NotFound)
	_, err = signer.Blob(t.Context(), repository, blob("none").Digest, 100)
	wantFault("a missing blob", err, fault.Gone, fault.NotFound)
	if content, err := signer.Blob(t.Context(), repository, config.Digest, 1000); err != nil || !bytes.Equal(content, config.Raw) {
		t.Errorf("Blob() = %q, %v, want %q", content, err, config.Raw)
	}

	h.SetFaults(harbortest.Faults{PathPrefix: "/v2/", Status: http.StatusTooManyRequests, RetryAfter: "7", Count: 1})
	_, err = signer.Manifest(t.Context(), repository, m.Digest)
	wantFault("too many requests", err, fault.Transient, fault.RateLimited)
	if after := fault.Of(err).RetryAfter.Seconds(); after != 7 {
		t.Errorf("retry after %v s, want 7", after)
	}
	h.SetFaults(harbortest.Faults{PathPrefix: "/v2/", DropConnections: 1})
	_, err = signer.Manifest(t.Context(), repository, m.Digest)
	wantFault("a broken connection", err, fault.Transient, fault.Unreachable)
	h.SetFaults(harbortest.Faults{})
	if strings.Contains(err.Error(), "token") {
		t.Errorf("error %q speaks of a token", err)
	}
}
