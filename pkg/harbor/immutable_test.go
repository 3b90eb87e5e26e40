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

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"pgregory.net/rapid"

	"github.com/harborseal/harborseal/pkg/fault"
	"github.com/harborseal/harborseal/pkg/harbor"
	"github.com/harborseal/harborseal/pkg/harbor/harbortest"
)

// signatureTag is the legacy tag of some digest.
const signatureTag = "sha256-2222222222222222222222222222222222222222222222222222222222222222.sig"

// ruleOf is a rule as Harbor writes it. A selector is written as "matches v*".
func ruleOf(id int, repositories, tags []string) map[string]any {
	selectors := func(texts []string) []any {
		all := make([]any, 0, len(texts))
		for _, text := range texts {
			decoration, pattern, _ := strings.Cut(text, " ")
			all = append(all, map[string]any{"kind": "doublestar", "decoration": decoration, "pattern": pattern})
		}
		return all
	}
	return map[string]any{
		"id": id, "action": "immutable", "template": "immutable_template",
		"tag_selectors": selectors(tags), "scope_selectors": map[string]any{"repository": selectors(repositories)},
	}
}

func rule(id int, repositories, tags string) map[string]any {
	return ruleOf(id, []string{repositories}, []string{tags})
}

func rulesJSON(t *testing.T, rules ...map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestLockedBy(t *testing.T) {
	t.Parallel()
	disabled := rule(3, "repoMatches **", "matches **")
	disabled["disabled"] = true
	const app, nested = "2024/app", "2024/team/app"
	everything := rule(1, "repoMatches **", "matches **")
	const byEverything = "rule 1: tags matching ** in repositories matching **"
	for _, tt := range []struct {
		name, body, repository, tag, want string
	}{
		{"recorded", recorded(t, "immutable-rules"), app, "v1", byEverything},
		{"none", "[]", app, "v1", ""},
		{"everything, a signature", rulesJSON(t, everything), app, signatureTag, byEverything},
		{"not signatures: one", rulesJSON(t, rule(1, "repoMatches **", "excludes sha256-*.sig")), app, signatureTag, ""},
		{
			"not signatures: another tag", rulesJSON(t, rule(1, "repoMatches **", "excludes sha256-*.sig")), app, "v1",
			"rule 1: tags not matching sha256-*.sig in repositories matching **",
		},
		{
			"alternatives", rulesJSON(t, rule(1, "repoMatches **", "matches {v*,release-*}")), app, "release-1",
			"rule 1: tags matching {v*,release-*} in repositories matching **",
		},
		{"no alternative", rulesJSON(t, rule(1, "repoMatches **", "matches {v*,release-*}")), app, signatureTag, ""},
		{"another repository", rulesJSON(t, rule(1, "repoMatches other", "matches **")), app, "v1", ""},
		{"not this repository", rulesJSON(t, rule(1, "repoExcludes {app,b/**}", "matches **")), app, "v1", ""},
		{
			"not the other", rulesJSON(t, rule(1, "repoExcludes other", "matches **")), app, "v1",
			"rule 1: tags matching ** in repositories not matching other",
		},
		{"one star ends at a slash", rulesJSON(t, rule(1, "repoMatches *", "matches **")), nested, "v1", ""},
		{"two stars do not", rulesJSON(t, everything), nested, "v1", byEverything},
		{
			"a folder", rulesJSON(t, rule(1, "repoMatches team/*", "matches **")), nested, "v1",
			"rule 1: tags matching ** in repositories matching team/*",
		},
		{
			"in a folder at any depth", rulesJSON(t, rule(1, "repoMatches **/app", "matches **")), "2024/a/b/c/app", "v1",
			"rule 1: tags matching ** in repositories matching **/app",
		},
		{"the project does not count", rulesJSON(t, rule(1, "repoMatches 2024/app", "matches **")), app, "v1", ""},
		{"the first that locks", rulesJSON(t, rule(2, "repoMatches no", "matches **"), everything, rule(4, "repoMatches **", "matches v1")), app, "v1", byEverything},
		{"a disabled one", rulesJSON(t, disabled), app, "v1", ""},
		{"after a disabled one", rulesJSON(t, disabled, everything), app, "v1", byEverything},
		{"the second tag selector", rulesJSON(t, ruleOf(1, []string{"repoMatches **"}, []string{"matches no", "matches **"})), app, "v1", ""},
		{"the second scope selector", rulesJSON(t, ruleOf(1, []string{"repoMatches no", "repoMatches **"}, []string{"matches **"})), app, "v1", ""},
		{
			"the first selectors", rulesJSON(t, ruleOf(1, []string{"repoMatches **", "repoMatches no"}, []string{"matches **", "matches no"})), app, "v1",
			byEverything,
		},
		{"no scope", rulesJSON(t, ruleOf(1, nil, []string{"matches **"})), app, "v1", ""},
		{"no tags", rulesJSON(t, ruleOf(1, []string{"repoMatches **"}, nil)), app, "v1", ""},
		{"another scope", `[{"tag_selectors":[{"decoration":"matches","pattern":"**"}],"scope_selectors":{"project":[{"decoration":"repoMatches","pattern":"**"}]}}]`, app, "v1", ""},
		{"a selector that is null", `[{"tag_selectors":[null],"scope_selectors":{"repository":[{"decoration":"repoMatches","pattern":"**"}]}}]`, app, "v1", ""},
		{"nothing in it", `[{}]`, app, "v1", ""},
		{"empty pattern", rulesJSON(t, rule(1, "repoMatches ", "matches ")), app, "v1", `rule 1: tags matching "" in repositories matching ""`},
		{"everything but everything", rulesJSON(t, rule(1, "repoMatches **", "excludes ")), app, "v1", ""},
		{"malformed pattern", rulesJSON(t, rule(1, "repoMatches **", "matches [")), app, "v1", ""},
		{"malformed pattern that excludes", rulesJSON(t, rule(1, "repoMatches **", "excludes [")), app, "v1", ""},
		{"malformed, and another rule", rulesJSON(t, rule(2, "repoMatches [", "matches **"), everything), app, "v1", byEverything},
		{"a word that is new", rulesJSON(t, rule(1, "repoMatches **", "resembles **"), rule(2, "resembles **", "matches **")), app, "v1", ""},
		{
			"control characters and the secret", rulesJSON(t, rule(7, "repoMatches {app,s3cr3t\x1b}", "matches **")), app, "v1",
			"rule 7: tags matching ** in repositories matching {app,[secret] }",
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
			if got, err := c.LockedBy(t.Context(), tt.repository, tt.tag); err != nil || got != tt.want {
				t.Errorf("LockedBy(%q, %q) = %q, %v; want %q", tt.repository, tt.tag, got, err, tt.want)
			}
		})
	}
}

// TestRulesBeyondTheLimit has more rules than are looked at.
func TestRulesBeyondTheLimit(t *testing.T) {
	t.Parallel()
	for others, locks := range map[int]bool{99: true, 100: false} {
		var rules []map[string]any
		for id := range others {
			rules = append(rules, rule(id, "repoMatches no", "matches **"))
		}
		body := rulesJSON(t, append(rules, rule(others, "repoMatches **", "matches **"))...)
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, body, nil })
		if got, err := c.LockedBy(t.Context(), "demo/app", "v1"); err != nil || (got != "") != locks {
			t.Errorf("behind %d others: LockedBy() = %q, %v; want a lock: %t", others, got, err, locks)
		}
	}
}

func TestLockedByRefuses(t *testing.T) {
	t.Parallel()
	c := cannedClient(t, func(r *http.Request) (int, string, error) {
		t.Errorf("%s %s, want no request", r.Method, r.URL)
		return http.StatusOK, "[]", nil
	})
	for _, tt := range []struct{ repository, tag string }{{"", "v1"}, {"app", "v1"}, {"/app", "v1"}, {"demo/", "v1"}, {"demo/app", ""}} {
		_, err := c.LockedBy(t.Context(), tt.repository, tt.tag)
		if err == nil || !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Malformed {
			t.Errorf("LockedBy(%q, %q): %v, want a permanent %s", tt.repository, tt.tag, err, fault.Malformed)
		}
	}
}

// TestPatternsThatTakeLong has patterns which whoever may make rules could keep a signer busy with for years, beside some
// that people write.
func TestPatternsThatTakeLong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pattern, repository string
		locks               bool
	}{
		"stars":                      {strings.Repeat("*?", 30) + "!", "app", false},
		"stars in alternatives":      {strings.Repeat("{*?,*2}", 30) + "!", "app", false},
		"alternatives":               {strings.Repeat("{?,[0-z]}", 60) + "!", "app", false},
		"alternatives in each other": {strings.Repeat("{2,", 40) + "?" + strings.Repeat("}{?,2}", 40) + "!", "app", false},
		"empty alternatives":         {strings.Repeat("{,}", 300), "app", false},
		"eight stars":                {strings.Repeat("*?", 8) + "!", "app", false},
		"classes hide a group":       {"[{s]" + strings.Repeat("*?[,0-9a-z]", 12) + "!", "app", false},
		"longer than a pattern is":   {"{" + signatureTag + strings.Repeat(",x", 600) + "}", "app", false},
		"four stars":                 {"*-*2*.*", "app", true},
		"many alternatives":          {"{v*,release-*,rc-*,hotfix-*,*-final,*-rc,latest,stable,sha256-*.sig,sha256-*.att}", "app", true},
		"a class":                    {"sha256-[0-9a-f]*.sig", "app", true},
	} {
		body := rulesJSON(t, rule(1, "repoMatches **", "matches "+tt.pattern))
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, body, nil })
		checkTakesShort(t, name, c, "demo/"+tt.repository, tt.locks)
	}
	deep := strings.Repeat("a/", 100) + "app"
	for name, tt := range map[string]struct {
		pattern, repository string
		locks               bool
	}{
		"two stars between slashes": {strings.Repeat("**/", 30) + "b", deep, false},
		"four, as people do":        {"**/team/**/app/**", "x/team/b/app/c", true},
		"stars and slashes":         {"**/*/**", "team/" + strings.Repeat("a", 60), true},
	} {
		body := rulesJSON(t, rule(1, "repoMatches "+tt.pattern, "matches **"))
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, body, nil })
		checkTakesShort(t, name, c, "demo/"+tt.repository, tt.locks)
	}
	// What one rule alone may cost, many may not: a costly one behind them is passed over, a cheap one is not.
	var rules []map[string]any
	for id := range 50 {
		rules = append(rules, rule(id, "repoMatches **", "matches *?*?*?*!"))
	}
	for name, tt := range map[string]struct {
		pattern string
		locks   bool
	}{"and a costly one": {"*-*2*.*", false}, "and a cheap one": {"*.sig", true}} {
		body := rulesJSON(t, append(slices.Clone(rules), rule(50, "repoMatches **", "matches "+tt.pattern))...)
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, body, nil })
		checkTakesShort(t, "many rules, "+name, c, "demo/app", tt.locks)
	}
}

func checkTakesShort(t *testing.T, what string, c *harbor.Client, repository string, locks bool) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got, err := c.LockedBy(t.Context(), repository, signatureTag); err != nil || (got != "") != locks {
			t.Errorf("%s: LockedBy() = %q, %v; want a lock: %t", what, got, err, locks)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: no answer for 20 s", what)
	}
}

func TestLockedByOfTheEmulator(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	for _, project := range []string{"demo", "empty"} {
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": project})
	}
	rules := h.URL() + "/api/v2.0/projects/demo/immutabletagrules"
	for id, pattern := range []string{"v1*", "v2*", "v3*"} {
		post(t, rules, rule(id+1, "repoMatches **", "matches "+pattern))
	}
	disabled := rule(2, "repoMatches **", "matches v2*")
	disabled["disabled"] = true
	admin(t, http.MethodPut, rules+"/2", disabled)
	clients := map[string]*harbor.Client{"robot": robot(t, h, "lister", "immutable-tag", "list")}
	for _, pageSize := range []int64{1, 2, 100} {
		clients[fmt.Sprintf("pages of %d", pageSize)] = newClient(t, h.URL(), harbortest.DefaultAdminPassword,
			func(cfg *harbor.Config) { cfg.PageSize = pageSize })
	}
	for name, c := range clients {
		for tag, want := range map[string]string{
			"v1.0": "rule 1: tags matching v1* in repositories matching **", "v2.0": "",
			"v3.0": "rule 3: tags matching v3* in repositories matching **", "v4.0": "",
		} {
			if got, err := c.LockedBy(t.Context(), "demo/team/app", tag); err != nil || got != want {
				t.Errorf("%s, %s: LockedBy() = %q, %v; want %q", name, tag, got, err, want)
			}
		}
		if got, err := c.LockedBy(t.Context(), "empty/app", "v1.0"); err != nil || got != "" {
			t.Errorf("%s, another project: LockedBy() = %q, %v; want none", name, got, err)
		}
	}
	_, err := robot(t, h, "puller", "repository", "pull").LockedBy(t.Context(), "demo/app", "v1.0")
	if err == nil || !fault.Is(err, fault.Permanent) || fault.Of(err).Reason != fault.Denied || !strings.Contains(err.Error(), "lacks a right") {
		t.Errorf("without the right: %v, want denied", err)
	}
}

// TestLockedByAgreesWithTheEmulator moves tags under any rules: Harbor refuses if and only if LockedBy names a rule.
func TestLockedByAgreesWithTheEmulator(t *testing.T) {
	t.Parallel()
	h := harbortest.New(t, harbortest.Config{})
	c := robot(t, h, "lister", "immutable-tag", "list")
	network := &http.Transport{}
	t.Cleanup(network.CloseIdleConnections)
	options := []remote.Option{
		remote.WithTransport(network), remote.WithContext(t.Context()),
		remote.WithAuth(&authn.Basic{Username: "admin", Password: harbortest.DefaultAdminPassword}),
	}
	pattern := rapid.OneOf(
		rapid.SampledFrom([]string{"**", "*", "", "v*", "sha256-*.sig", "{v*,sha256-*}", "app", "team/*", "**/app", "team/**", "[", "[a-v]?", "{a", `\v1`}),
		rapid.StringOfN(rapid.SampledFrom([]rune("av1*?{,}[]^-/\\")), 1, 8, -1),
	)
	selectors := func(decorations ...string) *rapid.Generator[[]string] {
		one := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom(decorations).Draw(t, "decoration") + " " + pattern.Draw(t, "pattern")
		})
		return rapid.SliceOfN(one, 0, 2)
	}
	project := 0
	rapid.Check(t, func(rt *rapid.T) {
		project++
		demo := fmt.Sprintf("demo%d", project)
		post(t, h.URL()+"/api/v2.0/projects", map[string]any{"project_name": demo})
		rules := h.URL() + "/api/v2.0/projects/" + demo + "/immutabletagrules"
		for range rapid.IntRange(0, 3).Draw(rt, "rules") {
			scopes := selectors("repoMatches", "repoExcludes", "likes").Draw(rt, "repositories")
			tags := selectors("matches", "matches", "excludes", "likes").Draw(rt, "tags")
			addRule(t, rules, ruleOf(0, scopes, tags), rapid.Bool().Draw(rt, "disabled") && len(tags) > 0)
		}
		repository := demo + "/" + rapid.SampledFrom([]string{"app", "team/app", "v1"}).Draw(rt, "repository")
		tag := rapid.SampledFrom([]string{"v1", "a", signatureTag}).Draw(rt, "tag")
		ref, err := name.NewTag(h.Host()+"/"+repository+":"+tag, name.Insecure)
		if err != nil {
			rt.Fatal(err)
		}
		if err := remote.Write(ref, empty.Image, options...); err != nil {
			rt.Fatal(err)
		}
		refusal := remote.Put(ref, empty.Image, options...)
		if answer, ok := errors.AsType[*transport.Error](refusal); refusal != nil && (!ok || answer.StatusCode != http.StatusPreconditionFailed) {
			rt.Fatalf("pushing again: %v, want nothing but 412", refusal)
		}
		got, err := c.LockedBy(t.Context(), repository, tag)
		if err != nil || (got != "") != (refusal != nil) {
			rt.Errorf("%s:%s: LockedBy() = %q, %v; pushing again: %v", repository, tag, got, err, refusal)
		}
	})
}

// addRule adds a rule unless there is one like it, and switches it off if it is to be disabled.
func addRule(t *testing.T, rules string, r map[string]any, disabled bool) {
	t.Helper()
	var there []struct {
		ID int `json:"id"`
	}
	list := func() int {
		t.Helper()
		if err := json.Unmarshal(admin(t, http.MethodGet, rules, nil), &there); err != nil {
			t.Fatal(err)
		}
		return len(there)
	}
	before := list()
	r["priority"] = before // makes it another one
	post(t, rules, r)
	if !disabled {
		return
	}
	list()
	r["id"], r["disabled"] = there[before].ID, true
	admin(t, http.MethodPut, fmt.Sprintf("%s/%d", rules, there[before].ID), r)
}

// FuzzLockedBy gives LockedBy any pattern, in every place.
func FuzzLockedBy(f *testing.F) {
	for _, pattern := range []string{"**", "v*", "{a,b/**}", "[^a-z]", "[", `\`, "{a,{b", "a//b", "**/"} {
		f.Add(pattern, "team/app", "v1")
	}
	f.Fuzz(func(t *testing.T, pattern, repository, tag string) {
		if repository == "" || tag == "" || len(repository) > 255 || len(tag) > 128 {
			t.Skip()
		}
		body := rulesJSON(t, rule(1, "repoMatches "+pattern, "excludes "+pattern), rule(2, "repoExcludes "+pattern, "matches "+pattern))
		c := cannedClient(t, func(*http.Request) (int, string, error) { return http.StatusOK, body, nil })
		got, err := c.LockedBy(t.Context(), "demo/"+repository, tag)
		if err != nil || got != "" && !strings.HasPrefix(got, "rule ") {
			t.Errorf("LockedBy() = %q, %v; want a rule or none", got, err)
		}
	})
}
