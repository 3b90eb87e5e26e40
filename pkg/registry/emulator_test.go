package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
	"github.com/harborseal/harborseal/pkg/registry"
)

// adminPost uses Harbor's own API, as an operator would.
func adminPost(t *testing.T, h *harbortest.Harbor, path string, body any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL()+path, bytes.NewReader(raw))
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
		t.Fatalf("POST %s: status %d: %v", path, resp.StatusCode, answer)
	}
	return answer
}

// robotClient makes a robot account with the given rights on all projects, and a client that uses it.
func robotClient(t *testing.T, h *harbortest.Harbor, name string, actions []string, change ...func(*registry.Config)) *registry.Client {
	t.Helper()
	access := make([]any, 0, len(actions))
	for _, action := range actions {
		access = append(access, map[string]any{"resource": "repository", "action": action})
	}
	robot := adminPost(t, h, "/api/v2.0/robots", map[string]any{
		"name": name, "level": "system", "duration": -1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "*", "access": access}},
	})
	account, _ := robot["name"].(string)
	password, _ := robot["secret"].(string)
	return newClient(t, h.URL(), func(cfg *registry.Config) {
		cfg.Username, cfg.SecretFile = account, secretFile(t, password)
		for _, c := range change {
			c(cfg)
		}
	})
}

// renaming is a proxy that puts its own name into the User-Agent.
type renaming struct{ next http.RoundTripper }

func (r renaming) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", "Proxy/1.0")
	return r.next.RoundTrip(req)
}

// TestHarbor runs against the emulator, which answers as a recorded Harbor does.
func TestHarbor(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	adminPost(t, h, "/api/v2.0/projects", map[string]any{
		"project_name": "demo", "metadata": map[string]string{"public": "false", "enable_content_trust_cosign": "true"},
	})
	signer := robotClient(t, h, "signer", []string{"pull", "push"})
	puller := robotClient(t, h, "puller", []string{"pull"})
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

	// None of the three things by which Harbor knows a signer may be missing, and the fault names the one that is.
	renamed := robotClient(t, h, "renamed", []string{"pull", "push"}, func(cfg *registry.Config) { cfg.Transport = renaming{cfg.Transport} })
	_, err = renamed.Manifest(t.Context(), repository, m.Digest)
	wantFault("a proxy that changes the User-Agent", err, fault.Permanent, fault.PullPolicy)
	if !strings.Contains(err.Error(), `missing: "cosign" in the User-Agent; `) || !strings.Contains(err.Error(), registry.DefaultUserAgent) {
		t.Errorf("error %q does not name the User-Agent as what is missing", err)
	}
	_, err = puller.Manifest(t.Context(), repository, m.Digest)
	wantFault("a token without push right", err, fault.Permanent, fault.Denied)
	if !strings.Contains(err.Error(), "lacks repository:push on "+repository) {
		t.Errorf("error %q does not name the push right as what is missing", err)
	}

	if listed, err := signer.Referrers(t.Context(), repository, m.Digest); err != nil || len(listed) != 0 {
		t.Errorf("Referrers() = %v, %v, want none", listed, err)
	}
	if listed, err := signer.Referrers(t.Context(), "demo/none", m.Digest); err != nil || len(listed) != 0 {
		t.Errorf("Referrers() in a repository that is not there = %v, %v, want none, as Harbor answers", listed, err)
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%[1]q,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",`+
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":%[2]d,"digest":%[3]q},"layers":[],"subject":{"mediaType":%[1]q,"digest":%[4]q,"size":%[5]d}}`,
		manifestType, len(config.Raw), config.Digest, m.Digest, len(m.Raw))
	referrer := artifact.Manifest{MediaType: manifestType, Digest: artifact.DigestOf(raw), Raw: raw}
	if err := signer.PutManifest(t.Context(), repository, referrer.Digest, referrer); err != nil {
		t.Fatalf("PutManifest of a referrer: %v", err)
	}
	if listed, err := signer.Referrers(t.Context(), repository, m.Digest); err != nil || len(listed) != 1 || listed[0].Digest != referrer.Digest ||
		listed[0].ArtifactType != "application/vnd.dev.sigstore.bundle.v0.3+json" {
		t.Errorf("Referrers() = %+v, %v, want %s", listed, err, referrer.Digest)
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

// TestHarborRefusesToStore meets a locked tag and a full project: what can be done about both stands in the faults.
func TestHarborRefusesToStore(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	adminPost(t, h, "/api/v2.0/projects", map[string]any{"project_name": "demo", "storage_limit": 5000})
	selector := func(decoration string) []any {
		return []any{map[string]string{"kind": "doublestar", "decoration": decoration, "pattern": "**"}}
	}
	adminPost(t, h, "/api/v2.0/projects/demo/immutabletagrules", map[string]any{
		"action": "immutable", "template": "immutable_template",
		"tag_selectors": selector("matches"), "scope_selectors": map[string]any{"repository": selector("repoMatches")},
	})
	c := robotClient(t, h, "signer", []string{"pull", "push"})
	first, second := blob(`{"os":"linux"}`), blob(`{"os":"windows"}`)
	for _, b := range []artifact.Blob{first, second} {
		if err := c.PushBlob(t.Context(), repository, b); err != nil {
			t.Fatalf("PushBlob: %v", err)
		}
	}
	if err := c.PutManifest(t.Context(), repository, "v1", manifest(first)); err != nil {
		t.Fatalf("PutManifest: %v", err)
	}
	for name, tt := range map[string]struct {
		err  error
		want fault.Reason
		says []string
	}{
		"another manifest under a locked tag": {
			c.PutManifest(t.Context(), repository, "v1", manifest(second)), fault.Immutable, []string{"'team/app:v1'", "exclude sha256-*.sig"},
		},
		"more than the quota": {
			c.PushBlob(t.Context(), repository, blob(strings.Repeat("x", 6000))), fault.QuotaExceeded,
			[]string{"adding 5.9 KiB", "current usage of", "upper limit of 4.9 KiB"},
		},
	} {
		got := fault.Of(errOrNone(tt.err))
		if got.Kind != fault.Permanent || got.Reason != tt.want {
			t.Errorf("%s: fault = %s %s (%v), want permanent %s", name, got.Kind, got.Reason, tt.err, tt.want)
		}
		for _, part := range tt.says {
			if !strings.Contains(got.Error(), part) {
				t.Errorf("%s: error %q does not say %q", name, got.Err, part)
			}
		}
	}
}
