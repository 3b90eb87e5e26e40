package harbor_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/artifact"
	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// projectRights are the rights in a project that the client knows.
func projectRights() []string {
	return []string{
		"repository:pull", "repository:push", "repository:list", "artifact:list", "artifact:read", "notification-policy:list", "notification-policy:read",
		"notification-policy:create", "notification-policy:update", "notification-policy:delete", "immutable-tag:list",
	}
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	all := append(projectRights(), "project:read", "quota:list", "audit-log:list")
	for _, version := range []string{"v2.10.3", ""} {
		h := harbortest.New(t, harbortest.Config{Version: version})
		const project = "2024"
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
		push(t, h, project+"/app:v1", randomImage(t))
		boss := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
		if _, err := boss.CreateWebhook(t.Context(), project, artifact.Webhook{
			Name: "theirs", Enabled: true, Events: []string{"PUSH_ARTIFACT"}, Address: "http://127.0.0.1:1", Format: "Default",
		}); err != nil {
			t.Fatal(err)
		}
		before := everything(t, h, project)
		for i, right := range projectRights() {
			c := robotWith(t, h, fmt.Sprintf("only%d", i), "project", project, right)
			got, err := c.MissingRights(t.Context(), project, all)
			want := slices.DeleteFunc(slices.Clone(all), func(r string) bool {
				// A real Harbor's robots get the right to pull only by that one, too; what else opens is recorded.
				return r == right
			})
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("version %q, only %s: missing %v, %v; want %v", version, right, got, err, want)
			}
		}
		got, err := boss.MissingRights(t.Context(), project, all)
		want := slices.DeleteFunc(slices.Clone(all), func(r string) bool { return version == "" || r != "audit-log:list" })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("version %q, admin: missing %v, %v; want %v", version, got, err, want)
		}
		for right, c := range map[string][]string{"quota:list": {"quota:list"}, "audit-log:list": {"audit-log:list"}} {
			if right == "audit-log:list" && version != "" {
				continue
			}
			got, err := robotWith(t, h, "sys"+right[:4], "system", "/", c...).MissingRights(t.Context(), project, []string{"quota:list", "audit-log:list"})
			if err != nil || len(got) != 1 || got[0] == right {
				t.Errorf("version %q, only the system's %s: missing %v, %v", version, right, got, err)
			}
		}
		if after := everything(t, h, project); after != before {
			t.Errorf("version %q: looking for rights has changed Harbor:\nbefore %s\nafter  %s", version, before, after)
		}
	}
}

// everything is what a look for rights could change.
func everything(t *testing.T, h *harbortest.Harbor, project string) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"webhook/policies", "repositories", "immutabletagrules", "artifacts?q=base=*", "metadatas"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/api/v2.0/projects/"+project+"/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("admin", harbortest.DefaultAdminPassword)
		req.Header.Set("X-Is-Resource-Name", "true")
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		fmt.Fprintln(&all, path, resp.StatusCode, body)
	}
	return all.String()
}

func TestMissingRightsFaults(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	boss := newClient(t, h.URL(), harbortest.DefaultAdminPassword)
	if _, err := boss.MissingRights(t.Context(), "nothing", []string{"notification-policy:delete"}); !fault.Is(err, fault.Gone) {
		t.Errorf("no project: %v, want a fault of kind gone", err)
	}
	if _, err := boss.MissingRights(t.Context(), "library", []string{"scan:create"}); !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Malformed {
		t.Errorf("an unknown right: %v, want malformed", err)
	}
	if _, err := newClient(t, h.URL(), "wrong").MissingRights(t.Context(), "library", []string{"artifact:list"}); err == nil ||
		fault.Of(err).Reason != fault.Unauthorized {
		t.Errorf("a wrong secret: %v, want unauthorized", err)
	}
	// What a proxy says instead of Harbor says nothing of rights.
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusServiceUnavailable} {
		c := cannedClient(t, nil, through(roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodHead {
				return canned(func(*http.Request) (int, string, error) { return http.StatusOK, "", nil }).RoundTrip(r)
			}
			resp, err := canned(func(*http.Request) (int, string, error) { return status, "<html>", nil }).RoundTrip(r)
			if err == nil {
				resp.Header.Set("Content-Type", "text/html")
			}
			return resp, err
		})))
		for _, right := range append(projectRights(), "project:read", "quota:list", "audit-log:list") {
			if missing, err := c.MissingRights(t.Context(), "demo", []string{right}); !fault.Is(err, fault.Transient) {
				t.Errorf("%d of a proxy, %s: missing %v, %v; want a transient fault", status, right, missing, err)
			}
		}
	}
}

func TestRecordedTokens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		recording, repository string
		want                  []string
	}{
		{"token-signer-pull-push", "demo/pol", []string{"push", "pull"}},
		{"token-signer-pull-push", "p2/x", []string{"push", "pull"}},
		{"token-signer-pull-push", "demo/other", nil},
		{"token-puller-pull-push", "demo/pol", []string{"pull"}},
		{"error-401-token", "demo/pol", nil},
	} {
		c := cannedClient(t, func(r *http.Request) (int, string, error) {
			want := "repository:" + tt.repository + ":push,pull"
			if q := r.URL.Query(); r.URL.Path != "/service/token" || q.Get("service") != "harbor-registry" || q.Get("scope") != want {
				t.Errorf("%s, want the token service, and the scope %s", r.URL, want)
			}
			return http.StatusOK, recorded(t, tt.recording), nil
		})
		got, err := c.TokenActions(t.Context(), tt.repository, []string{"push", "pull"})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s, %s: %v, %v; want %v", tt.recording, tt.repository, got, err, tt.want)
		}
	}
}

// TestNoRepository asks about what cannot be one: it would mean something else in a scope, or in a path.
func TestNoRepository(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(r *http.Request) (int, string, error) {
		t.Errorf("%s %s, want no request", r.Method, r.URL)
		return http.StatusOK, "{}", nil
	})
	for _, repository := range []string{"", "demo", "demo/app:pull repository:other/app", "demo/../other/app", "demo/app "} {
		if got, err := c.TokenActions(t.Context(), repository, []string{"pull"}); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v; want nothing", repository, got, err)
		}
	}
	for name, operation := range map[string]func() error{
		"Webhooks":      func() error { return second(c.Webhooks(t.Context(), "..")) },
		"DeleteWebhook": func() error { return c.DeleteWebhook(t.Context(), "..", 1) },
		"MissingRights": func() error { return second(c.MissingRights(t.Context(), "..", []string{"project:read"})) },
		"Population":    func() error { return c.Population(t.Context(), "..", artifact.Cursor{}, nowhere) },
	} {
		if err := operation(); !fault.Is(err, fault.Gone) {
			t.Errorf("%s of a project ..: %v, want a fault of kind gone", name, err)
		}
	}
}

// FuzzToken gives TokenActions any token.
func FuzzToken(f *testing.F) {
	f.Add("a.b.c")
	f.Add("e30.eyJhY2Nlc3MiOlt7InR5cGUiOiJyZXBvc2l0b3J5IiwibmFtZSI6ImRlbW8vYXBwIiwiYWN0aW9ucyI6WyIqIl19XX0.c2ln")
	var body []byte
	c := cannedClient(f, func(*http.Request) (int, string, error) { return http.StatusOK, string(body), nil })
	f.Fuzz(func(t *testing.T, token string) {
		var err error
		body, err = json.Marshal(map[string]string{"token": token})
		if err != nil {
			t.Skip()
		}
		got, err := c.TokenActions(t.Context(), "demo/app", []string{"pull"})
		if err != nil && (len(token) > 8 && strings.Contains(err.Error(), token) || !fault.Is(err, fault.Transient)) {
			t.Errorf("%v, want a transient fault that does not show the token", err)
		}
		if len(got) > 1 || len(got) == 1 && got[0] != "pull" {
			t.Errorf("TokenActions() = %v, want pull or nothing", got)
		}
	})
}
