package harbor_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

func TestImmutableRules(t *testing.T) {
	t.Parallel()
	rule := func(id int, disabled bool, tags, repositories string) string {
		return fmt.Sprintf(`{"id":%d,"disabled":%t,"template":"immutable_template","tag_selectors":[%s],"scope_selectors":{"repository":[%s]}}`,
			id, disabled, tags, repositories)
	}
	selector := func(decoration, pattern string) string {
		return fmt.Sprintf(`{"kind":"doublestar","decoration":%q,"pattern":%q}`, decoration, pattern)
	}
	for _, tt := range []struct {
		name, body string
		want       []string
	}{
		{"recorded", recorded(t, "immutable-rules"), []string{"rule 1: tags matching ** in repositories matching **"}},
		{"none", "[]", nil},
		{
			"several, one of them disabled",
			"[" + rule(3, false, selector("excludes", "sha256-*.sig"), selector("repoExcludes", "{a,b/**}")) + "," +
				rule(4, true, selector("matches", "**"), selector("repoMatches", "**")) + "," +
				rule(5, false, selector("matches", "v*")+","+selector("excludes", "v0"), selector("repoMatches", "**")) + "]",
			[]string{
				"rule 3: tags not matching sha256-*.sig in repositories not matching {a,b/**}",
				"rule 5: tags matching v* and not matching v0 in repositories matching **",
			},
		},
		{"a word that is new", "[" + rule(6, false, selector("resembles", "v1"), "") + "]", []string{"rule 6: tags resembles v1 in repositories"}},
		{"nothing in it", `[{"tag_selectors":[null]}]`, []string{"rule 0: tags in repositories"}},
		{
			"control characters and the secret", "[" + rule(7, false, `{"decoration":"matches","pattern":"s3cr3t\u001b"}`, selector("repoMatches", "**")) + "]",
			[]string{"rule 7: tags matching [secret] in repositories matching **"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cannedClient(t, func(r *http.Request) (int, string, error) {
				if want := "/api/v2.0/projects/2024/immutabletagrules?page=1&page_size=100"; r.URL.RequestURI() != want || r.Header.Get("X-Is-Resource-Name") != "true" {
					t.Errorf("%s with the header %q, want %s, by name", r.URL, r.Header.Get("X-Is-Resource-Name"), want)
				}
				return http.StatusOK, tt.body, nil
			})
			if got, err := c.ImmutableRules(t.Context(), "2024"); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("ImmutableRules() = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestImmutableRulesOfTheEmulator(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": "demo"})
	for _, c := range []*harbor.Client{
		newClient(t, h.URL(), harbortest.DefaultAdminPassword),
		robot(t, h, "lister", "immutable-tag", "list"),
	} {
		if rules, err := c.ImmutableRules(t.Context(), "demo"); err != nil || len(rules) != 0 {
			t.Errorf("ImmutableRules() = %q, %v; want none", rules, err)
		}
	}
	selector := func(decoration, pattern string) []any {
		return []any{map[string]string{"kind": "doublestar", "decoration": decoration, "pattern": pattern}}
	}
	rules := h.URL() + "/api/v2.0/projects/demo/immutabletagrules"
	rule := func(pattern string) map[string]any {
		return map[string]any{
			"action": "immutable", "template": "immutable_template",
			"tag_selectors": selector("matches", pattern), "scope_selectors": map[string]any{"repository": selector("repoMatches", "**")},
		}
	}
	for _, pattern := range []string{"v1*", "v2*", "v3*"} {
		post(t, rules, rule(pattern))
	}
	disabled := rule("v2*")
	disabled["id"], disabled["disabled"] = 2, true
	admin(t, http.MethodPut, rules+"/2", disabled)
	want := []string{"rule 1: tags matching v1* in repositories matching **", "rule 3: tags matching v3* in repositories matching **"}
	for _, pageSize := range []int64{1, 2, 100} {
		c := newClient(t, h.URL(), harbortest.DefaultAdminPassword, func(cfg *harbor.Config) { cfg.PageSize = pageSize })
		got, err := c.ImmutableRules(t.Context(), "demo")
		slices.Sort(got) // the order is Harbor's
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("pages of %d: rules %q, %v; want %q", pageSize, got, err, want)
		}
	}
	_, err := robot(t, h, "puller", "repository", "pull").ImmutableRules(t.Context(), "demo")
	if err == nil || !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Denied || !strings.Contains(err.Error(), "lacks a right") {
		t.Errorf("without the right: %v, want denied", err)
	}
}
