package harbor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// lives makes a robot account of a level that lives for some days, with the right to list robots or without it.
func lives(t *testing.T, h *harbortest.Harbor, level, name string, days int, rights ...map[string]any) *harbor.Client {
	t.Helper()
	kind, namespace := "project", "demo"
	permissions := []any{map[string]any{
		"kind": kind, "namespace": namespace, "access": append(rights, map[string]any{"resource": "repository", "action": "pull"}),
	}}
	if level == "system" && len(rights) > 0 {
		permissions = []any{
			map[string]any{"kind": "system", "namespace": "/", "access": rights},
			map[string]any{"kind": kind, "namespace": namespace, "access": []any{map[string]any{"resource": "repository", "action": "pull"}}},
		}
	}
	raw := post(t, h.URL()+"/api/v2.0/robots", map[string]any{"name": name, "level": level, "duration": days, "permissions": permissions})
	var account struct{ Name, Secret string }
	if err := json.Unmarshal(raw, &account); err != nil {
		t.Fatal(err)
	}
	return newClient(t, h.URL(), account.Secret, func(cfg *harbor.Config) { cfg.Username, cfg.PageSize = account.Name, 2 })
}

func TestRobotExpiry(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "demo"})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "mo"}) // the end of another project's name
	list := map[string]any{"resource": "robot", "action": "list"}
	started := time.Now()
	for i := range 5 { // more than two pages of others
		lives(t, h, "system", fmt.Sprintf("other%d", i), 90)
		lives(t, h, "project", fmt.Sprintf("other%d", i), 90)
	}
	for _, tt := range []struct {
		name   string
		client *harbor.Client
		days   int // 0 is never
		reason fault.Reason
	}{
		{"of the system", lives(t, h, "system", "own", 7, list), 7, ""},
		{"of the system, for ever", lives(t, h, "system", "old", -1, list), 0, ""},
		{"of a project", lives(t, h, "project", "own", 3, list), 3, ""},
		{"without the right", lives(t, h, "system", "poor", 7), 0, fault.Denied},
		{"a user", newClient(t, h.URL(), harbortest.DefaultAdminPassword), 0, fault.NotFound},
		{"a wrong secret", newClient(t, h.URL(), "wrong"), 0, fault.Unauthorized},
	} {
		at, err := tt.client.RobotExpiry(t.Context())
		switch {
		case (err != nil) != (tt.reason != "") || err != nil && fault.Of(err).Reason != tt.reason:
			t.Errorf("%s: %v, want the reason %q", tt.name, err, tt.reason)
		case tt.days == 0 && !at.IsZero():
			t.Errorf("%s: expires at %s, want never", tt.name, at)
		case tt.days > 0 && (at.Sub(started) < time.Duration(tt.days)*24*time.Hour-time.Minute || at.Sub(started) > time.Duration(tt.days)*24*time.Hour+time.Minute):
			t.Errorf("%s: expires at %s, want in %d days", tt.name, at, tt.days)
		}
	}
}

func TestRemoveArtifact(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	const project = "2024" // an all-digit name is taken for an id unless the client says otherwise
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	images := make([]v1.Image, 2)
	refs := make([]artifact.Ref, 2)
	for i := range images {
		image, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		push(t, h, fmt.Sprintf("%s/team/app:v%d", project, i), image)
		if refs[i], err = artifact.NewRef(project+"/team/app", digestOf(t, image)); err != nil {
			t.Fatal(err)
		}
	}
	if err := robot(t, h, "poor", "repository", "pull").RemoveArtifact(t.Context(), refs[0]); !fault.Is(err, fault.Permanent) ||
		fault.Of(err).Reason != fault.Denied {
		t.Errorf("without the right: %v, want denied", err)
	}
	boss := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	for i, want := range []string{"team/app", "", ""} { // the last one finds nothing to remove
		if err := errors.Join(
			robot(t, h, fmt.Sprintf("remover%d", i), "artifact", "delete").RemoveArtifact(t.Context(), refs[min(i, 1)]),
			boss.RemoveEmptyRepository(t.Context(), refs[min(i, 1)]),
		); err != nil {
			t.Fatalf("removal %d: %v", i, err)
		}
		_, err := boss.Artifact(t.Context(), refs[min(i, 1)])
		if !fault.Is(err, fault.Gone) {
			t.Errorf("removal %d: %v, want it gone", i, err)
		}
		if left := repositories(t, h, project); left != want {
			t.Errorf("removal %d: repositories %q, want %q", i, left, want)
		}
	}
}

// TestRemoveArtifactPath shows what stands in the path, which the emulator reads in more ways than one.
func TestRemoveArtifactPath(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	ref, err := artifact.NewRef("demo/team/app", digest)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	c := cannedClient(t, func(r *http.Request) (int, string, error) {
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		return http.StatusOK, `{"artifact_count":0}`, nil
	})
	if err := errors.Join(c.RemoveArtifact(t.Context(), ref), c.RemoveEmptyRepository(t.Context(), ref)); err != nil {
		t.Fatal(err)
	}
	const repository = "/api/v2.0/projects/demo/repositories/team%252Fapp"
	want := []string{"DELETE " + repository + "/artifacts/" + digest, "GET " + repository, "DELETE " + repository}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// repositories gives the names of the repositories of a project, joined.
func repositories(t *testing.T, h *harbortest.Harbor, project string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/api/v2.0/projects/"+project+"/repositories", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
	req.Header.Set("X-Is-Resource-Name", "true")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var rows []struct{ Name string }
	if err := json.NewDecoder(resp.Body).Decode(&rows); err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(rows))
	for _, r := range rows {
		names = append(names, strings.TrimPrefix(r.Name, project+"/"))
	}
	return strings.Join(names, ", ")
}
